"""What the door to the org brings into the daemon, and what it does not."""

import subprocess
import sys

import pytest


def told(program: str) -> str:
    """What a Python of its own prints: this one has imported far more."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 - below
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_daemon_does_not_load_the_metadata_api() -> None:
    """Nor zeep and lxml, which it alone needs: they would be there for as long as the daemon runs."""
    program = "import sys, connector.app.daemon, connector.salesforce.transport\n"
    program += "print({'zeep', 'lxml', 'simple_salesforce.metadata'} & set(sys.modules))"
    assert told(program) == "set()"


@pytest.mark.parametrize(
    "imports",
    [
        "import connector.salesforce.transport, simple_salesforce.metadata",
        "import simple_salesforce.metadata, connector.salesforce.transport",
    ],
)
def test_who_imports_the_metadata_api_has_the_real_one(imports: str) -> None:
    """Before us or behind us."""
    assert told(f"{imports}\nprint(hasattr(simple_salesforce.metadata.SfdcMetadataApi, 'deploy'))") == "True"


def test_asking_for_what_is_not_loaded_says_so() -> None:
    """A client of ours has no Metadata API, and no silent half of one."""
    program = "from connector.salesforce.library import Salesforce\n"
    program += "org = Salesforce(session_id='x', instance_url='https://localhost')\n"
    program += "try: org.mdapi\nexcept NotImplementedError as error: print(error)"
    assert "not loaded" in told(program)

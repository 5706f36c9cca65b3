"""The connector on a Pi's processor, emulated; org, broker and subscriber are this machine's."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64.machine import python
from tests.broker import ProcessBroker
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

# An emulated processor takes ten times as long; making the machine, minutes, once.
pytestmark = pytest.mark.timeout(1200)
START_S = 180.0
_LIBRARIES = "apsw, orjson, grpc, fastavro, pydantic_core, lxml.etree, aiohttp._http_parser, cryptography.x509"


@pytest.fixture(scope="module")
def interpreter() -> Path:
    return python()


def answer(interpreter: Path, *arguments: str) -> str:
    done = subprocess.run([interpreter, *arguments], capture_output=True, text=True, check=True)  # noqa: S603 - our words
    return done.stdout.strip()


def test_every_compiled_library_loads(interpreter: Path) -> None:
    """The wheels of deploy/requirements.txt are of this processor, and their code runs."""
    words = f"import platform, {_LIBRARIES}; print(platform.machine(), orjson.dumps([1]).decode())"
    assert answer(interpreter, "-c", words) == "aarch64 [1]"
    assert answer(interpreter, "-m", "connector", "--version").startswith("salesforce-sync, version ")


@pytest.fixture
def stack(interpreter: Path, tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, ProcessBroker(tmp_path / "broker"), {}, ("Contact",)) as made:
        made.daemon.run_by(interpreter)
        yield made


def test_a_change_goes_through(stack: Stack) -> None:
    """First load, stream, publication, an orderly end."""
    stack.org.seed(contacts=50)
    stack.daemon.launch()
    stack.daemon.until_logged("stream.subscribed", START_S)
    until(lambda: stack.replica.loaded(stack.objects), START_S)
    contact = min(stack.org.records("Contact"))
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": {"Phone": "1"}})
    stack.until_change(contact)
    assert stack.daemon.stop() == 0

"""CONTRIBUTING.md, "Add an object" and "Add a migration", to the letter, in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from connector.store.migrate import SCHEMA_VERSION
from tests.documents import ROOT

FIELDS = ("Subject", "Status", "OwnerId")
SECTION = '[objects.Case]\nfields = ["Subject", "Status", "OwnerId"]\npoll_interval = "15m"\n\n'
METADATA = Path("deploy/salesforce/force-app/main/default")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What git knows of the working tree, and what is new in it."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode()  # noqa: S603 - our own words
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def run(copy: Path, *words: str) -> tuple[int, str]:
    """A module of the copy, in the copy; its exit code and what it prints."""
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", *words], cwd=copy, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout + done.stderr


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path}: {old}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def describe_cases(copy: Path) -> None:
    """A describe result as an org would answer it: of leads, with fewer fields and other names."""
    folder = copy / "connector/devorg/objects/describe"
    result = json.loads((folder / "Lead.json").read_text(encoding="utf-8"))
    system = ("Id", "IsDeleted", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp")
    result["fields"] = [field for field in result["fields"] if field["name"] in (*system, "OwnerId", "Status", "Title")]
    for field in result["fields"]:
        if field["name"] == "Title":
            field |= {"name": "Subject", "label": "Subject"}
    result |= {"name": "Case", "label": "Case", "labelPlural": "Cases", "keyPrefix": "500"}
    (folder / "Case.json").write_text(json.dumps(result), encoding="utf-8")


def give_rights(copy: Path) -> None:
    """Both permission sets, and a member of the channel, after the example of leads."""
    for name in ("Read", "Write"):
        path = copy / METADATA / "permissionsets" / f"Salesforce_Sync_{name}.permissionset-meta.xml"
        text = path.read_text(encoding="utf-8")
        parts = re.findall(r" *<(objectPermissions|fieldPermissions)>\n(.*?)</\1>\n", text, re.DOTALL)
        rights = next(body for kind, body in parts if kind == "objectPermissions" and "<object>Lead</object>" in body)
        field = next(body for kind, body in parts if kind == "fieldPermissions")
        replace(
            path,
            rights,
            rights + rights.join(["    </objectPermissions>\n    <objectPermissions>\n", ""]).replace("Lead", "Case"),
        )
        one = re.sub(r"<field>.*</field>", "<field>Case.Subject</field>", field)
        replace(path, field, field + one.join(["    </fieldPermissions>\n    <fieldPermissions>\n", ""]))
    members = copy / METADATA / "platformEventChannelMembers"
    lead = (members / "ChangeEvents_LeadChangeEvent.platformEventChannelMember-meta.xml").read_text(encoding="utf-8")
    member = members / "ChangeEvents_CaseChangeEvent.platformEventChannelMember-meta.xml"
    member.write_text(lead.replace("LeadChangeEvent", "CaseChangeEvent"), encoding="utf-8")


def failed(output: str) -> set[str]:
    return set(re.findall(r"(?m)^FAILED (\S+?)(?:\[| |$)", output))


def checks(copy: Path, *files: str) -> set[str]:
    """The tests that fail there."""
    return failed(run(copy, "pytest", "-q", *files)[1])


@pytest.mark.timeout(180)  # a dozen processes, one of them a whole demo
def test_an_object_becomes_one_of_the_defaults(copy: Path) -> None:
    """Each step that is left out is told by a test; after all of them the local org has it, and it is synced."""
    units, settings = "tests/integration/test_deploy_units.py", "tests/unit/test_settings.py"
    replace(
        copy / "connector/settings.py",
        '    "Opportunity": {',
        f'    "Case": {{"fields": {FIELDS}}},\n    "Opportunity": {{',
    )
    assert f"{settings}::test_the_shipped_files_show_every_setting_with_its_default" in checks(copy, settings)
    for name in ("settings.toml", "connector/cli/template.toml"):
        replace(copy / name, "[objects.Opportunity]", f"{SECTION}[objects.Opportunity]")
    describe_cases(copy)
    assert len(checks(copy, units)) == 3
    give_rights(copy)
    assert checks(copy, units) == set()
    assert checks(copy, "tests/unit/test_schemas.py") == {
        "tests/unit/test_schemas.py::test_the_files_are_those_of_the_models"
    }
    code, told = run(copy, "connector.schemas", "schemas", "connector/devorg/objects/describe")
    assert (code, (copy / "schemas/objects/Case.json").exists()) == (0, True), told
    assert checks(copy, "tests/unit/test_schemas.py") == set()
    assert f"{settings}::test_defaults_are_those_of_the_interface" in checks(copy, settings)
    replace(copy / settings, '"Account", "Opportunity"]', '"Account", "Case", "Opportunity"]')
    # Another test there takes an object that is none of the defaults.
    assert checks(copy, settings) == {f"{settings}::test_sync_objects_selects_exactly_these"}
    code, told = run(copy, "connector", "demo", "--seconds", "1")
    assert code == 0, told
    assert "the replica is equal to the org" in told


def test_a_migration_is_one_file_and_the_schema(copy: Path) -> None:
    """Left out of one of the two places it is told; in both it is a version."""
    test = ("tests/integration/test_store_migrate.py",)
    statement = "CREATE TABLE noted (x INTEGER PRIMARY KEY) STRICT;\n"
    sql = copy / "connector/store/sql"
    (sql / "migrations" / f"{SCHEMA_VERSION + 1:04}_note.sql").write_text(statement, encoding="utf-8")
    assert checks(copy, *test)
    with (sql / "schema.sql").open("a", encoding="utf-8") as schema:
        schema.write(statement)
    assert checks(copy, *test) == set()


def test_the_steps_name_the_places(copy: Path) -> None:
    """What this file does is what the page says."""
    page = (copy / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = page.partition("## Add an object")[2].partition("## Style")[0]
    named: Sequence[str] = (
        "DEFAULT_OBJECTS",
        "settings.toml",
        "connector/cli/template.toml",
        "connector/devorg/objects/describe/",
        "deploy/salesforce/",
        "make schemas",
        "tests/unit/test_settings.py",
        "connector/store/sql/migrations/",
        "connector/store/sql/schema.sql",
    )
    assert [name for name in named if name not in steps] == []

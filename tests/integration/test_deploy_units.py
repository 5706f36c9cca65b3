"""The files of deploy/ that can be looked at without a node: units, scripts, locked packages, permission sets."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from connector.settings import DEFAULT_OBJECTS, Secrets

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICES = sorted((DEPLOY / "systemd").glob("*.service"))
UNITS = sorted((DEPLOY / "systemd").iterdir())
MOST_EXPOSURE = 1.5


def analyze(*arguments: str, directory: Path) -> str:
    """What `systemd-analyze` says, of files alone; it must be installed (Debian: systemd)."""
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not installed (Debian: apt-get install systemd)"
    done = subprocess.run(  # noqa: S603 - our own arguments
        [program, *arguments], cwd=directory, capture_output=True, check=False
    )
    return (done.stdout + done.stderr).decode()


def exposure(unit: Path, directory: Path) -> float:
    told = analyze("security", "--offline=true", "--no-pager", str(unit), directory=directory)
    found = re.search(r"exposure level for \S+: ([\d.]+)", told)
    assert found, told
    return float(found[1])


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.stem)
def test_a_service_is_exposed_little(unit: Path, tmp_path: Path) -> None:
    """By systemd's own measure, of 10."""
    assert exposure(unit, tmp_path) <= MOST_EXPOSURE


def test_the_broker_is_exposed_little(tmp_path: Path) -> None:
    """Debian's unit with our drop-in over it."""
    unit = tmp_path / "mosquitto.service"
    unit.write_text((DEPLOY / "mosquitto" / "salesforce-sync.conf").read_text(encoding="utf-8"), encoding="utf-8")
    assert exposure(unit, tmp_path) <= MOST_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    """No unknown key, no wrong value; programs stand where the installer puts them, which is not here."""
    for each in UNITS:
        text = re.sub(
            r"/opt/salesforce-sync/current/bin/salesforce-sync", "/bin/true", each.read_text(encoding="utf-8")
        )
        (tmp_path / each.name).write_text(text, encoding="utf-8")
    told = analyze("verify", "--man=no", str(tmp_path / unit.name), directory=tmp_path)
    # Units that another unit names and that are not on this machine are no fault of ours.
    ours = [line for line in told.splitlines() if "salesforce-sync" in line and "not found" not in line]
    assert ours == []


@pytest.mark.parametrize("name", ["salesforce-sync.service", "salesforce-sync-verify.service"])
def test_every_secret_can_be_a_credential(name: str) -> None:
    """A login flow that works from `.env` works as a service, too; the command line's wrapper takes the same."""
    names = {field.upper() for field in Secrets.model_fields}
    unit = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
    assert dict(re.findall(r"LoadCredential=(\w+):salesforce-sync\.(\w+)", unit)) == {n: n for n in names}
    for script in ("salesforce-sync", "install.sh"):
        words = set(re.findall(r"\b(?:SF|MQTT)_[A-Z_]+\b", (DEPLOY / script).read_text(encoding="utf-8")))
        assert words == names, script


def test_every_package_is_locked_with_hashes() -> None:
    """What pyproject.toml asks for, either stream's libraries, stands in the lock, at a version that it allows."""
    text = (DEPLOY / "requirements.txt").read_text(encoding="utf-8")
    entries = [e for e in re.split(r"\n(?=\S)", text) if not e.startswith("#")]
    locked = {}
    for entry in entries:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", entry)
        assert found, entry
        assert "--hash=sha256:" in entry, found[1]
        locked[canonicalize_name(found[1])] = found[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = project["project"]["optional-dependencies"]["pubsub"]
    wanted = [*project["project"]["dependencies"], *extra, *project["build-system"]["requires"]]
    for line in wanted:
        requirement = Requirement(line)
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{line}: run make lock"
        assert requirement.specifier.contains(version), f"{line}: locked is {version}; run make lock"
    assert "--index-url" not in text


@pytest.mark.parametrize("script", ["install.sh", "salesforce-sync", "mosquitto/service-user.sh"])
def test_a_script_can_be_read_by_the_shell(script: str) -> None:
    """Its syntax, and that it stops at the first failure."""
    path = DEPLOY / script
    subprocess.run(["bash", "-n", str(path)], check=True)  # noqa: S603, S607 - our own file, the bash of the path
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize("arguments", [("--nonsense",), ("--secrets",)])
def test_the_installer_explains_itself(arguments: tuple[str, ...]) -> None:
    """A mistyped option changes nothing."""
    done = subprocess.run(  # noqa: S603 - our own arguments
        [str(DEPLOY / "install.sh"), *arguments], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"--uninstall" in done.stderr


# --- What the operator deploys to the org

METADATA = DEPLOY / "salesforce" / "force-app" / "main" / "default"
NAMESPACE = {"m": "http://soap.sforce.com/2006/04/metadata"}
DESCRIBED = ROOT / "connector" / "devorg" / "objects" / "describe"


def permissions(name: str) -> tuple[dict[str, dict[str, str]], dict[str, str], set[str]]:
    """Of a permission set: rights by object, `editable` by field, user permissions."""
    root = ET.parse(METADATA / "permissionsets" / f"{name}.permissionset-meta.xml").getroot()  # noqa: S314 - our own file
    objects = {}
    for entry in root.findall("m:objectPermissions", NAMESPACE):
        rights = {child.tag.partition("}")[2]: child.text or "" for child in entry}
        objects[rights.pop("object")] = rights
    fields = {
        entry.findtext("m:field", "", NAMESPACE): entry.findtext("m:editable", "", NAMESPACE)
        for entry in root.findall("m:fieldPermissions", NAMESPACE)
    }
    users = {entry.findtext("m:name", "", NAMESPACE) for entry in root.findall("m:userPermissions", NAMESPACE)}
    return objects, fields, users


def permissionable() -> set[str]:
    """The default fields that a permission set speaks of; the others go with the object, and naming them is refused."""
    found = set()
    for name, settings in DEFAULT_OBJECTS.items():
        described = json.loads((DESCRIBED / f"{name}.json").read_text(encoding="utf-8"))
        flags = {field["name"]: field["permissionable"] for field in described["fields"]}
        found |= {f"{name}.{field}" for field in settings["fields"] if flags[field]}
    return found


def test_the_permission_set_reads_what_is_synced_and_no_more() -> None:
    """Read access and View All on the default objects (events come for nothing less), their fields, and no write."""
    objects, fields, users = permissions("Salesforce_Sync_Read")
    assert objects == {
        name: {
            "allowCreate": "false",
            "allowDelete": "false",
            "allowEdit": "false",
            "allowRead": "true",
            "modifyAllRecords": "false",
            "viewAllRecords": "true",
        }
        for name in DEFAULT_OBJECTS
    }
    assert fields == dict.fromkeys(permissionable(), "false")
    assert users == {"ApiEnabled", "ViewSetup"}


def test_writing_is_a_permission_set_of_its_own() -> None:
    """Create, edit and delete, of no more than the synced fields; never Modify All."""
    objects, fields, users = permissions("Salesforce_Sync_Write")
    assert objects.keys() == DEFAULT_OBJECTS.keys()
    for rights in objects.values():
        assert rights["modifyAllRecords"] == "false"
        assert {rights[f"allow{verb}"] for verb in ("Create", "Read", "Edit", "Delete")} == {"true"}
    assert fields == dict.fromkeys(permissionable(), "true")
    assert users == set()


def test_the_default_objects_are_selected_for_change_data_capture() -> None:
    """A member of the standard channel for each; the file is named as the org names the member."""
    members = {}
    for path in (METADATA / "platformEventChannelMembers").iterdir():
        root = ET.parse(path).getroot()  # noqa: S314 - our own file
        assert root.findtext("m:eventChannel", "", NAMESPACE) == "ChangeEvents"
        members[path.name.partition(".")[0]] = root.findtext("m:selectedEntity", "", NAMESPACE)
    assert members == {f"ChangeEvents_{name}ChangeEvent": f"{name}ChangeEvent" for name in DEFAULT_OBJECTS}

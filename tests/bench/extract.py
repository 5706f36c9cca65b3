"""What people load an org into SQLite with today, each as its guide has it, through the gateway: what it took."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from tests import pypi
from tests.bench import metered
from tests.bench.gateway import MY_DOMAIN

_SOURCE = Path(__file__).parent / "tools"
_BUILD = Path(__file__).parents[2] / "build"
_TIMEOUT_S = 1800.0
_TARGET_SQLITE = """
import collections.abc, sys
collections.MutableMapping = collections.abc.MutableMapping
from target_sqlite import main
sys.exit(main())
"""
"""target-sqlite, unchanged, on a Python that has its name for mappings elsewhere since 3.10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a load took, from the start of its programs to their end.

    Attributes:
        processor_s, peak_mb: Of all its processes together.
        database: What came of it.
    """

    seconds: float
    processor_s: float
    peak_mb: float
    database: Path


def singer_programs() -> Path | None:
    """Where `tap-salesforce` and `target-sqlite` are; None where they cannot be installed."""
    return pypi.installed(_SOURCE / "singer.txt", _BUILD / "singer")


def cumulusci_programs() -> Path | None:
    """Where `cci` is; None where it cannot be installed, or has no git, without which it has no project."""
    return pypi.installed(_SOURCE / "cumulusci.txt", _BUILD / "cumulusci") if shutil.which("git") else None


def singer_prepared(
    programs: Path, directory: Path, told: Mapping[str, Any], through: Mapping[str, str], names: Sequence[str]
) -> list[str]:
    """Settings, and a catalog that selects these fields of Contact; all that it then asks for, in its order."""
    config = {
        "refresh_token": told["refresh_token"],
        "client_id": told["client_id"],
        "client_secret": told["client_secret"],
        "start_date": "2000-01-01T00:00:00Z",
        "api_type": "BULK",
    }
    (directory / "tap.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "target.json").write_text(json.dumps({"database": str(directory / "tap.db")}), encoding="utf-8")
    discover = [str(programs / "tap-salesforce"), "--config", str(directory / "tap.json"), "--discover"]
    ran = subprocess.run(discover, env={**os.environ, **through}, capture_output=True, text=True, check=False)  # noqa: S603 - tap-salesforce
    assert ran.returncode == 0, ran.stderr
    catalog = json.loads(ran.stdout)
    (contact,) = (stream for stream in catalog["streams"] if stream["stream"] == "Contact")
    asked = set()
    for entry in contact["metadata"]:
        place, about = entry["breadcrumb"], entry["metadata"]
        if not place:
            about |= {"selected": True, "replication-method": "INCREMENTAL", "replication-key": "SystemModstamp"}
        elif place[1] in names or about["inclusion"] == "automatic":
            about["selected"] = True
            asked.add(place[1])
    (directory / "catalog.json").write_text(json.dumps({"streams": [contact]}), encoding="utf-8")
    return [name for name in contact["schema"]["properties"] if name in asked]


def singer(programs: Path, directory: Path, through: Mapping[str, str]) -> Spent:
    """`tap-salesforce | target-sqlite`, by the Bulk API, into `tap.db`; another run goes on from the last state."""
    tap = [str(programs / "tap-salesforce"), "--config", str(directory / "tap.json")]
    state, states = directory / "state.json", directory / "states"
    if states.exists():
        state.write_text(states.read_text("utf-8").splitlines()[-1], encoding="utf-8")
        tap += ["--state", str(state)]
    target = [str(programs / "python"), "-c", _TARGET_SQLITE, "-c", str(directory / "target.json")]
    began_s = time.monotonic()
    with (
        (directory / "singer.log").open("wb") as log,
        states.open("wb") as out,
        subprocess.Popen(  # noqa: S603 - tap-salesforce
            _metered(directory / "tap.told", [*tap, "--properties", str(directory / "catalog.json")]),
            env={**os.environ, **through},
            stdout=subprocess.PIPE,
            stderr=log,
        ) as first,
        subprocess.Popen(  # noqa: S603 - target-sqlite
            _metered(directory / "target.told", target), stdin=first.stdout, stdout=out, stderr=log
        ) as second,
    ):
        assert first.stdout is not None
        first.stdout.close()  # the target's alone: its end is the tap's, too
        codes = [_waited(process) for process in (first, second)]
    assert codes == [0, 0], (directory / "singer.log").read_text("utf-8")[-2000:]
    told = [json.loads((directory / name).read_text("utf-8")) for name in ("tap.told", "target.told")]
    return Spent(
        seconds=time.monotonic() - began_s,
        processor_s=sum(one["processor_s"] for one in told),
        peak_mb=sum(one["peak_mb"] for one in told),
        database=directory / "tap.db",
    )


def cumulusci_prepared(directory: Path, told: Mapping[str, Any], names: Sequence[str]) -> None:
    """A project that maps these fields of Contact and the stamp, and a home where nothing asks for newer versions."""
    home, project = directory / "home", directory / "project"
    (home / ".cumulusci").mkdir(parents=True)
    (home / ".cumulusci" / "cumulus_timestamp").write_text(str(time.time()), encoding="utf-8")
    project.mkdir()
    package = {"name": "Extract", "api_version": "59.0"}
    settings = {"minimum_cumulusci_version": "4.0.0", "project": {"name": "Extract", "package": package}}
    mapping = {
        "Contact": {"sf_object": "Contact", "table": "Contact", "api": "bulk", "fields": [*names, "SystemModstamp"]}
    }
    # JSON is YAML as well.
    (project / "cumulusci.yml").write_text(json.dumps(settings), encoding="utf-8")
    (project / "mapping.yml").write_text(json.dumps(mapping), encoding="utf-8")
    org = {
        "access_token": told["access_token"],
        "instance_url": MY_DOMAIN,
        "id": f"{MY_DOMAIN}/id/{told['org_id']}/{INTEGRATION_USER_ID}",
        "username": told["username"],
    }
    (directory / "org.json").write_text(json.dumps(org), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)  # noqa: S603, S607 - git, wherever it is


def cumulusci(programs: Path, directory: Path, through: Mapping[str, str]) -> Spent:
    """`cci task run extract_dataset`, by the Bulk API, into `cci.db`."""
    extract = [str(programs / "cci"), "task", "run", "extract_dataset", "--org", "dev", "-o", "mapping", "mapping.yml"]
    environment = {
        **os.environ,
        **through,
        "HOME": str(directory / "home"),
        "CUMULUSCI_KEY": "0123456789abcdef",
        "CUMULUSCI_DISABLE_REFRESH": "1",
        "CUMULUSCI_ORG_dev": (directory / "org.json").read_text("utf-8"),
    }
    with (
        (directory / "cci.log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 - CumulusCI
            _metered(directory / "cci.told", [*extract, "-o", "database_url", f"sqlite:///{directory}/cci.db"]),
            env=environment,
            cwd=directory / "project",
            stdout=log,
            stderr=log,
        ) as process,
    ):
        code = _waited(process)
    assert code == 0, (directory / "cci.log").read_text("utf-8")[-2000:]
    told = json.loads((directory / "cci.told").read_text("utf-8"))
    return Spent(**told, database=directory / "cci.db")


def _metered(file: Path, command: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", metered.__file__, str(file), *command]


def _waited(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise

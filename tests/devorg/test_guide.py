"""docs/devorg.md: its programs and command lines run against a started org, its tables are those of the code."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.cli.devorg.running import DEFAULT_URL
from connector.cli.devorg.upset import EFFECTS
from connector.devorg.admin.interface import description
from connector.devorg.events.changes import EventOptions
from connector.devorg.faults import KINDS
from connector.devorg.records.org import RecordOptions
from connector.devorg.server import DevOrg
from connector.devorg.settings import OrgSettings
from tests.documents import ROOT, shell_lines, spans

PATH = ROOT / "docs" / "devorg.md"
GUIDE = PATH.read_text(encoding="utf-8")
URL = "http://localhost:8620"
STARTS = shell_lines(PATH, "Start")
SPOKEN = sorted({s for s in spans(GUIDE) if s.startswith("salesforce-sync devorg ") and s not in STARTS})
TYPED = [*STARTS, *SPOKEN, *shell_lines(PATH, "Edit"), *shell_lines(PATH, "Upset")]


def section(title: str) -> str:
    return GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def block(language: str, title: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", section(title), flags=re.DOTALL)
    return str(found)


def first_cells(text: str) -> list[str]:
    """Everything in backticks in the first column of the tables."""
    return [span for line in text.splitlines() if line.startswith("| `") for span in _spans(line.split("|")[1])]


def _spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


async def run(org: DevOrg, *words: str, directory: Path) -> str:
    """What a process prints; it must end well."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SALESFORCE_SYNC_DEVORG_URL": org.url,
    }
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(150):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_the_programs_of_the_guide_run(org: DevOrg, tmp_path: Path) -> None:
    """simple-salesforce makes and changes a record, aiosfstream-ng receives both changes."""
    assert (await run(org, sys.executable, "-c", program(org, "simple-salesforce"), directory=tmp_path)) == "Jane Doe\n"
    lines = (await run(org, sys.executable, "-c", program(org, "aiosfstream-ng"), directory=tmp_path)).splitlines()
    assert [line.split()[0] for line in lines] == ["CREATE", "UPDATE"]


def program(org: DevOrg, title: str) -> str:
    text = block("python", title)
    assert URL in text
    return text.replace(URL, org.url)


@pytest.mark.parametrize("line", STARTS)
async def test_it_is_started_as_the_guide_says(line: str, tmp_path: Path) -> None:
    """It says where it is, and ends when it is interrupted."""
    for port in re.findall(r"862\d", line) or ([] if "--port" in line else ["8620"]):
        with socket.socket() as looking:
            looking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                looking.bind(("127.0.0.1", int(port)))
            except OSError:
                pytest.skip(f"port {port} is somebody else's")
    program = Path(sys.executable).with_name("salesforce-sync")
    process = await asyncio.create_subprocess_exec(
        *(str(program), *line.replace("/tmp/org", str(tmp_path / "org")).split()[1:]),  # noqa: S108 - what is replaced
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            first = (await process.stdout.readline()).decode()
            told = json.loads(first)["url"] if "--json" in line else first.split()[1]
            assert re.fullmatch(r"http://localhost:\d+", told), told
            assert ("--json" in line) or told == URL
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (tmp_path / ("org" if "/tmp/org" in line else "data/devorg")).is_dir()  # noqa: S108 - what is replaced


@pytest.mark.parametrize("line", SPOKEN)
async def test_a_command_line_within_a_sentence_runs(org: DevOrg, tmp_path: Path, line: str) -> None:
    """It prints something."""
    assert await run(org, "bash", "-c", line, directory=tmp_path)


@pytest.mark.timeout(180)  # a process per line, on a machine that is busy
@pytest.mark.parametrize("title", ["Edit", "Upset"])
async def test_the_command_lines_of_the_guide_run(org: DevOrg, tmp_path: Path, title: str) -> None:
    """Every line, in order, by a shell."""
    output = await run(org, "bash", "-euo", "pipefail", "-c", block("sh", title), directory=tmp_path)
    if title == "Edit":
        (account,) = [r for r in await _records(org, tmp_path, "Account") if r["Name"] == "Bodra Labs"]
        assert (account["Industry"], account["AnnualRevenue"]) == ("Energy", 2500)
        assert account["Id"] in output
        assert [lead["LastName"] for lead in await _records(org, tmp_path, "Lead")] == ["Doe"]
        assert len(await _records(org, tmp_path, "Contact")) == 20
    else:
        assert "drop_response" in output
        assert org.ctx.faults.in_force() == {}
        assert org.ctx.clock.offset_ms == 73 * 3_600_000


async def _records(org: DevOrg, directory: Path, name: str) -> Sequence[dict[str, Any]]:
    printed = await run(org, "salesforce-sync", "devorg", "records", name, directory=directory)
    return [json.loads(line) for line in printed.splitlines()]


def test_the_addresses_are_those_of_the_program() -> None:
    """Where orders go without `--url`."""
    assert f"`{DEFAULT_URL}`" in section("Start")
    assert DEFAULT_URL.replace("127.0.0.1", "localhost") == URL


async def test_the_credentials_are_those_of_the_org(org: DevOrg) -> None:
    """Each of them, and no other."""
    told = description(org.ctx, org.keys)
    names = ("client_id", "client_secret", "username", "password", "security_token", "refresh_token", "access_token")
    table = [line for line in section("Log in").splitlines() if line.startswith("| ")]
    assert [_spans(line) for line in table[1:]] == [[URL], *([str(told[name])] for name in names)]


def test_the_faults_are_those_of_the_org() -> None:
    """Kinds and effects."""
    assert first_cells(section("Upset")) == [*KINDS, *EFFECTS]


def test_the_switches_are_those_of_the_org() -> None:
    """Every one, each once, with its default."""
    rows = [line.split("|") for line in section("Switches").splitlines() if line.startswith("| `")]
    documented = [(row[1].strip(" `"), json.loads(row[2].strip(" `"))) for row in rows]
    settings = {**vars(OrgSettings()), **vars(EventOptions()), **vars(RecordOptions())}
    assert dict(documented) == json.loads(json.dumps(settings))
    assert len(documented) == len(settings)

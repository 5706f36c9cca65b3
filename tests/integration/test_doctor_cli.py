"""`salesforce-sync doctor` as a process: what it prints, to whom, and how it ends."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.server import DevOrg
from tests.broker import Broker, free_port

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_"))}


@dataclass
class Ward:
    """A working directory, and what the environment adds to its settings."""

    path: Path
    env: dict[str, str]

    async def run(self, *options: str, **env: str) -> tuple[int, str]:
        """Exit code and standard output; nothing may be on standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connector", "doctor", *options,
            cwd=self.path, env={**CLEAN, **self.env, **env},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert err == b""
        return process.returncode or 0, out.decode()

    async def json(self, *options: str, **env: str) -> tuple[int, Any]:
        """The same with `--json`."""
        code, out = await self.run("--json", *options, **env)
        return code, json.loads(out)


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
def ward(org: DevOrg, broker: Broker, tmp_path: Path) -> Ward:
    path = tmp_path / "ward"
    path.mkdir()
    text = f'[salesforce]\ninstance_url = "{org.url}"\n[mqtt]\nport = {broker.port}\n'
    (path / "settings.toml").write_text(text, "utf-8")
    known = org.ctx.credentials
    return Ward(path, {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret})


async def test_all_well_exits_0_and_a_warning_does_too(ward: Ward, org: DevOrg) -> None:
    """One line each, then the sum."""
    code, out = await ward.run()
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("✔ settings  ")
    assert lines[-1] == f"{len(lines) - 1} fine, 0 to watch, 0 to mend"
    org.ctx.org.advance(3600)
    code, out = await ward.run()
    assert code == 0
    assert "⚠ clock" in out


async def test_json_tells_every_finding(ward: Ward, org: DevOrg) -> None:
    """Check, state, message and mend of each; a failure that is none of settings, org or broker exits 1."""
    org.ctx.schema.select("Contact", "Lead", "Account")
    code, document = await ward.json()
    assert code == 1
    assert document["ok"] is False
    assert document["skipped"] == []
    assert all(finding.keys() == {"check", "state", "message", "mend"} for finding in document["findings"])
    [failure] = [finding for finding in document["findings"] if finding["state"] == "fail"]
    assert failure["check"] == "selection"
    code, document = await ward.json("--fix")
    assert (code, document["ok"]) == (0, True)
    assert "Opportunity" in org.ctx.schema.selected


async def test_exit_codes_tell_settings_org_and_broker(ward: Ward, org: DevOrg) -> None:
    """2, 3 and 4; where several fail, the one that may cause the others."""
    away = {"SALESFORCE_SYNC_MQTT__PORT": str(free_port())}
    assert (await ward.json(**away))[0] == 4
    code, document = await ward.json(SF_CLIENT_SECRET="a-wrong-secret", **away)
    assert code == 3
    assert "a-wrong-secret" not in json.dumps(document)
    assert {f["check"] for f in document["findings"] if f["state"] == "fail"} == {"login", "broker"}
    await org.hang_up()
    assert (await ward.json())[0] == 3
    code, out = await ward.run(SALESFORCE_SYNC_MQTT__PORT="x", SALESFORCE_SYNC_SYNC__NOPE="1")
    assert code == 2
    assert out.count("✖ settings") == 2
    assert "not looked at, because of the above: disk, replica, broker, org" in out
    (ward.path / "data").mkdir()
    (ward.path / "data" / "salesforce.db").write_bytes(b"not a database" * 100)
    assert (await ward.json(**away))[0] == 2


async def test_without_anything_it_says_what_to_begin_with(tmp_path: Path) -> None:
    """An empty directory: no traceback, exit 2."""
    code, out = await Ward(tmp_path, {}).run()
    assert code == 2
    assert "salesforce-sync init" in out


async def test_on_a_terminal_findings_are_in_columns(ward: Ward, org: DevOrg) -> None:
    """Long ones are folded inside their column."""
    org.ctx.schema.select("Contact", "Lead", "Account")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connector", "doctor",
        cwd=ward.path, env={**CLEAN, **ward.env, "TERM": "xterm", "COLUMNS": "60", "NO_COLOR": "1"}, stdout=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = await asyncio.to_thread(_all_of, ours)
    assert await process.wait() == 1
    lines = shown.replace("\r", "").splitlines()
    assert any("✖" in line and "selection" in line and "Opportunity" in line for line in lines)
    assert any("→" in line and line.startswith(" " * 12) for line in lines)
    assert any(line.startswith(" " * 12) and "→" not in line for line in lines)


def _all_of(terminal: int) -> str:
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:
        pass  # Linux's way to say that the other end is closed.
    os.close(terminal)
    return shown.decode()

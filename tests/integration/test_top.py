"""`salesforce-sync top` in a real terminal, on a replica that moves."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.model.change import CommitInfo
from connector.model.command import CommandStatus
from connector.store import Session
from tests.store_nouns import NOW_MS, WIDGET, change, command, record, record_id
from tests.terminal import Terminal

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_"))}
HOSTILE = "evil\x1b[2J\x1b]0;owned\x07name"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    settings = '[salesforce]\ninstance_url = "http://localhost:9"\n[storage]\npath = "replica.db"\n[mqtt]\nport = 9\n'
    (tmp_path / "settings.toml").write_text(settings, "utf-8")
    return tmp_path


@pytest.fixture
def session(place: Path) -> Iterator[Session]:
    with Session(place / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        opened.run(lambda unit: unit.put(WIDGET, [record(n) for n in range(1234)]))
        yield opened


@pytest.fixture
def terminal(session: Session, place: Path) -> Iterator[Terminal]:  # noqa: ARG001 - it makes the file
    with Terminal([sys.executable, "-m", "connector", "top"], env=CLEAN, directory=place) as made:
        yield made


def shows(*words: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(any(word in line for line in lines) for word in words)


def test_it_follows_what_happens_and_ends_on_q(terminal: Terminal, session: Session) -> None:
    """A change, a conflict and a hole appear by themselves; the terminal is left as it was found."""
    terminal.until(shows("needs attention", "No word from the daemon", "Widget__c", "1,234", "nothing has changed yet"))
    assert terminal.settings != terminal.settings_before
    told = change(7, commit=CommitInfo(timestamp_ms=NOW_MS), record={"Name": HOSTILE})
    session.run(lambda unit: unit.append([told]))
    torn = {"Name": {"base": 1, "local": 2, "remote": 3}}
    session.run(lambda unit: unit.add_command(command("torn", status=CommandStatus.CONFLICT, conflict=torn)))
    session.run(lambda unit: unit.open_hole("Widget__c", NOW_MS, "away too long", NOW_MS))
    seen = terminal.until(shows("evil·[2J·]0;owned·name", "both sides changed Name", "away too long", "1 conflict"))
    assert len(seen) == 24
    assert "q quit" in seen[-1]
    assert b"\x1b[2J\x1b]0;owned" not in terminal.raw
    terminal.press(b"x")
    terminal.press(b"q")
    assert terminal.ended() == 0
    assert terminal.settings == terminal.settings_before
    assert terminal.raw.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h"))
    assert b"\x1b[?1049l" in terminal.raw


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_it_ends_with_0_on_ctrl_c_and_on_signals(terminal: Terminal, number: signal.Signals | None) -> None:
    """However it is told to."""
    terminal.until(shows("q quit"))
    terminal.press(b"\x03") if number is None else terminal.send(number)
    assert terminal.ended() == 0
    assert b"Traceback" not in terminal.raw


def test_it_fills_the_terminal_that_was_resized(terminal: Terminal, session: Session) -> None:
    """Bigger: more changes, side by side with commands; smaller: the most important first."""
    session.run(lambda unit: unit.append([change(n, record={"Name": f"thing {n}"}) for n in range(40)]))
    session.run(lambda unit: unit.add_command(command("fresh")))
    small = terminal.until(shows("thing 39", "billing", "q quit"))
    terminal.resize(150, 45)
    big = terminal.until(lambda lines: shows("q quit")(lines[-1:]) and shows("thing 15")(lines))
    assert any("changes" in line and "commands" in line for line in big)
    assert sum("thing" in line for line in big) > sum("thing" in line for line in small)
    terminal.resize(60, 10)
    terminal.until(lambda lines: "needs attention" in lines[0] and len(lines) == 10)
    terminal.press(b"q")
    assert terminal.ended() == 0


def test_without_a_terminal_it_says_what_to_do_instead(session: Session, place: Path) -> None:  # noqa: ARG001 - it makes the file
    """In a pipe, exit 2."""
    command_line = [sys.executable, "-m", "connector", "top"]
    done = subprocess.run(command_line, capture_output=True, cwd=place, env=CLEAN, check=False, text=True)  # noqa: S603 - our own program
    assert (done.returncode, done.stdout) == (2, "")
    assert "salesforce-sync status" in done.stderr


def test_the_record_of_a_change_without_a_name_is_its_id(terminal: Terminal, session: Session) -> None:
    """Not every object has a Name."""
    session.run(lambda unit: unit.append([change(7, record={})]))
    terminal.until(shows(record_id(7)))

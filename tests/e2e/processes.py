"""The processes under test, started, ended and killed: the local org and the daemon."""

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from connector.devorg.tokens import KeyPair
from tests.broker import free_port
from tests.e2e.waiting import until

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_LAST_LINES = 15


class Process:
    """A child process with a log of its own, which goes on over restarts."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str], directory: Path) -> None:
        self._command = list(command)
        self.env = dict(env)
        self._directory = directory
        self._running: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.log = log

    def run_by(self, interpreter: Path) -> None:
        """From the next start on by another Python than this one."""
        self._command[0] = str(interpreter)

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._running is not None and self._running.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._running is not None, "it does not run"
        return self._running.pid

    def launch(self, *, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Start it; returns at once."""
        assert not self.alive, "it runs already"
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._running = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env=self.env,
                cwd=self._directory,
                start_new_session=True,
            )
        return self._running

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self._running is not None:
            self._running.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Its exit code, once it has ended."""
        if self._running is None:
            return 0
        try:
            return self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; its last words:\n{self.last_words()}") from None

    def freeze(self) -> None:
        """SIGSTOP."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def end(self) -> None:
        """Make sure that nothing is left of it."""
        if self.alive:
            self.thaw()
            self.kill()

    def text(self) -> str:
        """What it has logged since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.text().splitlines()[-_LAST_LINES:])


@cache
def _key_file() -> Path:
    """A private key for every org of this run: each would make its own at its start, which takes its time."""
    directory = tempfile.mkdtemp(prefix="org-key-")
    atexit.register(shutil.rmtree, directory)
    return KeyPair(Path(directory)).private_key_file()


class OrgProcess(Process):
    """`python -m connector.devorg` with a folder and ports that stay over restarts; `pubsub`: with its Pub/Sub API."""

    def __init__(self, directory: Path, *, pubsub: bool = False) -> None:
        ports = ["--port", str(free_port()), *(["--pubsub-port", str(free_port())] if pubsub else [])]
        command = [sys.executable, "-m", "connector.devorg", *ports, "--directory"]
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        shutil.copy(_key_file(), data)
        super().__init__([*command, str(data)], directory / "org.log", os.environ, directory)

    def start(self) -> Mapping[str, Any]:
        """Start; returns what it tells of itself once it answers."""
        process = self.launch(stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as out:
            ready, _, _ = select.select([out], [], [], START_TIMEOUT_S)
            line = out.readline() if ready else b""
        assert line, f"the local org did not start:\n{self.last_words()}"
        told: dict[str, Any] = json.loads(line)
        return told


class DaemonProcess(Process):
    """`salesforce-sync daemon` (or another command that runs on) with a settings file and a service's environment."""

    def __init__(
        self,
        directory: Path,
        settings: str,
        secrets: Mapping[str, str],
        arguments: Sequence[str] = (),
        *,
        command: str = "daemon",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.settings = directory / "settings.toml"
        self.settings.write_text(settings, encoding="utf-8")
        # Settings and secrets of the user's own must not leak into the test.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_"))}
        words = [sys.executable, "-m", "connector", "--settings", str(self.settings), command, *arguments]
        super().__init__(words, directory / "daemon.log", {**clean, **secrets}, directory)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log events of this name since it was started last."""
        found: list[dict[str, Any]] = []
        for line in self.text().splitlines():
            if name in line and line.startswith("{") and line.endswith("}"):
                event: dict[str, Any] = json.loads(line)
                if event.get("event") == name:
                    found.append(event)
        return found

    def until_logged(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once it has logged an event of this name since it was started last."""
        until(
            lambda: self._alive_and(bool(self.events(name))), timeout_s, say=lambda: f"no {name}:\n{self.last_words()}"
        )

    def _alive_and(self, reached: bool) -> bool:
        assert reached or self.alive, f"the daemon has ended:\n{self.last_words()}"
        return reached


def toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """A settings file of these sections; `objects` holds tables of its own."""
    lines: list[str] = []
    for section, values in settings.items():
        tables = {k: v for k, v in values.items() if isinstance(v, Mapping)}
        plain = {k: v for k, v in values.items() if k not in tables}
        if plain:
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in plain.items())]
        for name, table in tables.items():
            lines += [f"[{section}.{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"

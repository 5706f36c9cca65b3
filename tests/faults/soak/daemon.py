"""The daemon's process as a service manager holds it."""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from connector.errors import StoreFull
from tests.e2e.processes import toml
from tests.faults.soak import child
from tests.faults.soak.strings import Name, Strings

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([child.__name__])
_RESTART_S = 0.03
_LAST_LINES = 12


@dataclass(slots=True)
class Exit:
    """The daemon ended without being told to.

    Attributes:
        at_work: It had got as far as running its jobs.
    """

    code: int
    words: str
    at_work: bool


class Daemon:
    """The daemon's process; one that ends by itself is started again, as a service manager would.

    Attributes:
        exits: Ends that nobody asked for.
        log: What all its runs have logged.
        pulled: Strings that were pulled, see `strings.py`.
        starts: How often it was started.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any], secrets: Mapping[str, str], sizes: Mapping[str, int]
    ) -> None:
        """`sizes`: see `child.SIZES`."""
        directory.mkdir()
        self._settings = directory / "settings.toml"
        self._settings.write_text(toml(settings), encoding="utf-8")
        self._secrets = dict(secrets)
        self._sizes = dict(sizes)
        self._strings_file = directory / "strings"
        self._strings = Strings(self._strings_file)
        self._process: BaseProcess | None = None
        self._wanted = False
        self._log_start = 0
        self.log = directory / "daemon.log"
        self.exits: list[Exit] = []
        self.pulled: set[Name] = set()
        self.starts = 0

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it unless it runs."""
        self._wanted = True
        if not self.alive:
            self._log_start = self.log.stat().st_size if self.log.exists() else 0
            arguments = (self._settings, self._secrets, self._strings_file, self.log, self._sizes)
            self.starts += 1
            self._process = _FORKS.Process(target=child.main, args=arguments, daemon=True)
            self._process.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.join()

    async def stop(self, timeout_s: float = 8.0) -> int | None:
        """SIGTERM; its exit code, None where it did not end in time and was killed."""
        self._wanted = False
        if self._process is None:
            return 0
        self._process.terminate()
        deadline_s = time.monotonic() + timeout_s
        while self._process.is_alive():
            if time.monotonic() > deadline_s:
                self.kill()
                return None
            await asyncio.sleep(0.01)
        return self._process.exitcode

    def pull(self, name: Name, value: int) -> None:
        """Pull one of its strings; it stays so over restarts."""
        self.pulled.add(name)
        self._strings.pull(name, value)

    async def keep_up(self) -> None:
        """Start it again whenever it has ended by itself; does not end."""
        while True:
            await asyncio.sleep(_RESTART_S)
            if self._wanted and not self.alive and self._process is not None:
                text = self._text()
                self.exits.append(Exit(self._process.exitcode or 0, self.last_words(), "app.started" in text))
                self.start()

    def unexpected(self) -> list[Exit]:
        """Ends other than those pulled, and those of a start that the org or the database does not allow now."""
        return [e for e in self.exits if not self._explained(e)]

    def _explained(self, end: Exit) -> bool:
        match end.code:
            case child.WAITED_OUT:
                return not end.at_work
            case child.REFUSED:
                return "disk_full" in self.pulled and StoreFull.__name__ in end.words
            case code:
                return "dies_in" in self.pulled and code == -signal.SIGKILL

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._text().splitlines()[-_LAST_LINES:])

    def _text(self) -> str:
        """What it has logged since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

"""A program in a real pseudo-terminal, its screen read as a terminal shows it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

DEADLINE_S = 20.0
# A parent that runs tests side by side sets these, and they would win over the terminal's own size.
_SIZE = frozenset({"COLUMNS", "LINES"})


class Terminal:
    """80 columns by 24 lines at first. Use with `with`.

    Attributes:
        raw: Everything that the program has written.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], directory: Path) -> None:
        self.raw = b""
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._master, self._slave = pty.openpty()
        self.resize(80, 24)
        self.settings_before = termios.tcgetattr(self._slave)
        # The terminal becomes the program's own, so that Ctrl-C and new sizes reach it as signals.
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            ["setsid", "--ctty", *command],  # noqa: S607 - util-linux, wherever it is
            stdin=self._slave, stdout=self._slave, stderr=self._slave,
            env={**{k: v for k, v in env.items() if k not in _SIZE}, "TERM": "xterm-256color"}, cwd=directory,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def lines(self) -> list[str]:
        """The screen as it stands."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def settings(self) -> list[object]:
        """Those of the terminal now, as `termios` tells them."""
        return termios.tcgetattr(self._slave)

    def resize(self, columns: int, lines: int) -> None:
        """As a window manager does; the program is told by SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def until(self, shows: Callable[[list[str]], bool], timeout_s: float = DEADLINE_S) -> list[str]:
        """The screen, once it shows what is waited for."""
        ends_s = time.monotonic() + timeout_s
        while not shows(self.lines):
            left_s = ends_s - time.monotonic()
            assert left_s > 0, "the screen does not show it:\n" + "\n".join(self.lines)
            self._take(min(left_s, 0.1))
        return self.lines

    def ended(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit code, once it has ended; what it wrote last is taken."""
        ends_s = time.monotonic() + timeout_s
        while self._process.poll() is None:
            assert time.monotonic() < ends_s, "it does not end:\n" + "\n".join(self.lines)
            self._take(0.05)
        self._take(0.05)
        return self._process.returncode

    def _take(self, timeout_s: float) -> None:
        if select.select([self._master], [], [], timeout_s)[0]:
            written = os.read(self._master, 1 << 16)
            self.raw += written
            self._stream.feed(written)

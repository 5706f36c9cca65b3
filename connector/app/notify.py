"""What the service manager is told: ready, stopping, how things stand, and that the work goes on.

The watchdog is fed by a round through what must move: this task (the event loop), a turn on the writer's thread (the
disk), and the connection to the broker, which must be alive or trying. Whatever of these hangs, the feeding stops, and
the service manager ends the process and starts it again. A broker or org that is down is no reason to: a restart mends
neither.

Source: systemd, sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import structlog

log = structlog.get_logger()

# Between two rounds where no watchdog is set; the status line is renewed by each.
ROUND_S = 10.0


class ServiceManager:
    """The service manager that started us, if one did; telling it never waits and never fails."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        microseconds, meant = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = not meant or meant == str(os.getpid())
        self.watchdog_s = int(microseconds) / 1e6 if ours and microseconds.isdigit() and int(microseconds) else None

    @property
    def listens(self) -> bool:
        """True if there is one."""
        return self._address.startswith(("/", "@"))

    def tell(self, *assignments: str) -> None:
        """Send `READY=1`, `STATUS=...` and the like."""
        if not self.listens:
            return
        # An abstract address begins with a zero byte, written as @.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
            try:
                out.sendto("\n".join(assignments).encode(), address)
            except OSError as error:
                log.warning("app.notify_failed", error=str(error))


class Watchdog:
    """A job: tells that the daemon is ready once a first round went through, then feeds the watchdog by each."""

    def __init__(
        self,
        manager: ServiceManager,
        *,
        turn: Callable[[], Awaitable[object]],
        connection_hangs: Callable[[], bool],
        status: Callable[[], str],
    ) -> None:
        """`turn` returns once the writer's thread has had a turn; `status` is one line for people."""
        self._manager = manager
        self._turn = turn
        self._connection_hangs = connection_hangs
        self._status = status
        self._ready = False

    async def run(self) -> None:
        """Feed until cancelled; returns at once where no service manager listens.

        Raises:
            TransientError: The database is busy; call again.
        """
        if not self._manager.listens:
            return
        wait_s = min(ROUND_S, self._manager.watchdog_s / 4) if self._manager.watchdog_s else ROUND_S
        while True:
            await self._turn()
            if self._connection_hangs():
                log.error("app.watchdog_withheld", reason="the connection to the broker neither lives nor is tried")
            else:
                self._feed()
            await asyncio.sleep(wait_s)

    def _feed(self) -> None:
        first = () if self._ready else ("READY=1",)
        self._ready = True
        self._manager.tell(*first, "WATCHDOG=1", f"STATUS={self._status()}")

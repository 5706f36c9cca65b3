"""A real MQTT broker for tests: Mosquitto as a process on a free port, or in a container with `--broker=container`."""

import asyncio
import contextlib
import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.waiting import until

START_TIMEOUT_S = 20.0
_SIGNAL_AGAIN_S = 0.5
GRACE_S = 10
_SERVER_PORTS = range(10_000, 32_768)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """How the broker is set up.

    Attributes:
        users: Name -> password; None allows anonymous clients.
        acl: Lines of an ACL file, or None for no limits.
        cert: (certificate, key) of a TLS listener, or None for plain TCP.
        log_types: What it writes to its log; the default tells of every packet.
        extra: Further lines of mosquitto.conf.
    """

    users: dict[str, str] | None = None
    acl: Sequence[str] | None = None
    cert: tuple[Path, Path] | None = None
    log_types: Sequence[str] = ("all",)
    extra: Sequence[str] = ()


class Broker(Protocol):
    """What a test may do to a broker. The port stays the same over restarts."""

    host: str
    port: int

    async def start(self) -> None:
        """Start; returns once it takes connections."""
        ...

    async def stop(self) -> None:
        """Orderly end: what is persistent is saved."""
        ...

    async def kill(self) -> None:
        """SIGKILL."""
        ...

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        ...

    def thaw(self) -> None:
        """SIGCONT."""
        ...

    def forget(self) -> None:
        """Remove what was persisted; only while stopped."""
        ...


class ProcessBroker:
    """`mosquitto` as a child process with a directory of its own."""

    def __init__(self, directory: Path, options: BrokerOptions | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._directory = directory
        self._options = options or BrokerOptions()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    async def start(self) -> None:
        """Start; returns once it takes connections."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "data").mkdir(exist_ok=True)
        config = self._directory / "mosquitto.conf"
        config.write_text("\n".join(config_lines(self._options, self._directory, self.port, self.host)) + "\n")
        with (self._directory / "mosquitto.log").open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own arguments; returns in milliseconds
                [mosquitto(), "-c", str(config)], stdout=output, stderr=output
            )
        await self._answers()

    async def stop(self) -> None:
        """Orderly end: what is persistent is saved."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    def save(self) -> None:
        """Have it write its persistence file now."""
        self._running().send_signal(signal.SIGUSR1)

    def forget(self) -> None:
        """Remove what was persisted."""
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    async def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        deadline_s = time.monotonic() + START_TIMEOUT_S
        # Once is not enough: Mosquitto forgets a SIGTERM that comes after it listens and before its loop begins.
        while process.poll() is None and time.monotonic() < deadline_s:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _SIGNAL_AGAIN_S)
        assert process.returncode is not None, "the broker does not end"

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the broker is not running"
        return self._process

    async def _answers(self) -> None:
        await until(self._ready)

    async def _ready(self) -> bool:
        if self._running().poll() is not None:
            log = (self._directory / "mosquitto.log").read_text(errors="replace")
            raise RuntimeError(f"mosquitto ended: {log[-2000:]}")
        return await takes_connections(self.host, self.port)


class ContainerBroker:
    """Mosquitto in a container; `freeze` pauses it. Its port is chosen here, so that it stays over restarts."""

    def __init__(self, directory: Path, image: str, options: BrokerOptions | None = None) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - needed with --broker=container only

        self.host = "127.0.0.1"
        self.port = free_port()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "data").mkdir(exist_ok=True)
        options = options or BrokerOptions()
        lines = config_lines(options, Path("/mosquitto/test"), 1883, "0.0.0.0", write_to=directory)  # noqa: S104 - inside the container
        (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        container = DockerContainer(image).with_bind_ports(1883, self.port)
        container = container.with_volume_mapping(str(directory), "/mosquitto/test", "rw")
        self._container = container.with_command("mosquitto -c /mosquitto/test/mosquitto.conf")
        self._created = False

    async def start(self) -> None:
        """Start; returns once it takes connections."""
        if self._created:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        else:
            await asyncio.to_thread(self._container.start)
            self._created = True
        await until(lambda: takes_connections(self.host, self.port))

    async def stop(self) -> None:
        """Orderly end."""
        await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=GRACE_S)

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self._container.get_wrapped_container().kill)

    def freeze(self) -> None:
        """Pause it."""
        self._container.get_wrapped_container().pause()

    def thaw(self) -> None:
        """Go on."""
        self._container.get_wrapped_container().unpause()

    def forget(self) -> None:
        """Remove what was persisted."""
        shutil.rmtree(self._directory / "data", ignore_errors=True)
        (self._directory / "data").mkdir()

    async def remove(self) -> None:
        """Remove the container."""
        if self._created:
            await asyncio.to_thread(self._container.stop)


def config_lines(
    options: BrokerOptions, directory: Path, port: int, bind: str, write_to: Path | None = None
) -> list[str]:
    """Lines of mosquitto.conf; writes the files that they name (`write_to`: where `directory` is on this machine)."""
    here = write_to or directory
    lines = [f"listener {port} {bind}"]
    if options.cert is not None:
        for keyword, file in zip(("certfile", "keyfile"), options.cert, strict=True):
            shutil.copy(file, here / f"{keyword}.pem")
            lines.append(f"{keyword} {directory / keyword}.pem")
    lines += ["persistence true", f"persistence_location {directory / 'data'}/", "set_tcp_nodelay true"]
    lines += ["max_queued_messages 100000", "log_dest stderr"]
    lines += [f"log_type {kind}" for kind in options.log_types]
    if os.geteuid() == 0 or write_to is not None:
        lines.append("user root")
    if options.users is None:
        lines.append("allow_anonymous true")
    else:
        lines += ["allow_anonymous false", f"password_file {directory / 'passwords'}"]
        _write_passwords(here / "passwords", options.users)
    if options.acl is not None:
        (here / "acl").write_text("\n".join(options.acl) + "\n")
        (here / "acl").chmod(0o600)
        lines.append(f"acl_file {directory / 'acl'}")
    return [*lines, *options.extra]


def _write_passwords(path: Path, users: dict[str, str]) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    for name, password in users.items():
        subprocess.run(  # noqa: S603 - our own arguments
            [_program("mosquitto_passwd"), "-b", str(path), name, password], check=True, capture_output=True
        )


def mosquitto() -> str:
    """The broker's program."""
    return _program("mosquitto")


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed (Debian: apt-get install mosquitto)")
    return found


def free_port() -> int:
    """A TCP port that was free a moment ago.

    None of those that the system gives to connections by itself: one could have it before the server is there.
    """
    for port in random.SystemRandom().sample(_SERVER_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, "no port is free")


async def takes_connections(host: str, port: int) -> bool:
    """True if something listens there."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
    return False


def docker_problem() -> str | None:
    """Why no container can be started here, or None."""
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    unix = address.scheme == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        try:
            probe.connect(address.path if unix else (address.hostname, address.port or 2375))
        except OSError as error:
            return f"no Docker API answers: {error}"
    return None

"""The processes of the demo: a broker, a local org and the daemon, as an operator would start them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connector.errors import BrokerDown, ConnectorError, LinkDown

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 15.0

_BROKER = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
# Events of a burst wait here instead of being dropped.
max_queued_messages 100000
# Small messages leave at once instead of waiting for more.
set_tcp_nodelay true
log_type error
log_type warning
"""

_SETTINGS = """\
[salesforce]
instance_url = "{url}"

[storage]
path = "{database}"

[mqtt]
port = {port}

[signals]
batch_interval = "2s"

[health]
interval = "2s"

[sync]
bulk_threshold = 1500

[web]
enabled = true
listen = "127.0.0.1:{web_port}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where everything is.

    Attributes:
        org: What the local org told of itself: `url` and credentials.
    """

    directory: Path
    broker_port: int
    web_port: int
    org: Mapping[str, Any]

    @property
    def database(self) -> Path:
        """The replica."""
        return self.directory / "salesforce.db"

    @property
    def settings(self) -> Path:
        """The daemon's settings file."""
        return self.directory / "settings.toml"

    @property
    def daemon_log(self) -> Path:
        """What the daemon logs."""
        return self.directory / "daemon.log"


@asynccontextmanager
async def broker(directory: Path) -> AsyncIterator[int]:
    """A Mosquitto of our own on a free port.

    Raises:
        ConnectorError: Mosquitto is not installed.
        BrokerDown: It did not start.
    """
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise ConnectorError("mosquitto is not installed: `make setup` does it, or `apt-get install mosquitto`")
    port = free_port()
    conf = directory / "mosquitto.conf"
    conf.write_text(_BROKER.format(port=port), encoding="utf-8")
    async with _process([program, "-c", str(conf)], directory / "mosquitto.log") as process:
        await _listening(port, process)
        yield port


@asynccontextmanager
async def local_org(directory: Path) -> AsyncIterator[Mapping[str, Any]]:
    """A local org as a process of its own; gives its address and credentials.

    Raises:
        LinkDown: It did not start.
    """
    command = [sys.executable, "-m", "connector.devorg", "--directory", str(directory / "org")]
    async with _process(command, directory / "org.log", stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await process.stdout.readline()
            yield json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise LinkDown(f"the local org did not start; see {directory / 'org.log'}") from error


@asynccontextmanager
async def daemon(parts: Parts) -> AsyncIterator[asyncio.subprocess.Process]:
    """The connector's daemon."""
    parts.settings.write_text(
        _SETTINGS.format(
            url=parts.org["url"], database=parts.database, port=parts.broker_port, web_port=parts.web_port
        ),
        encoding="utf-8",
    )
    secrets = {"SF_CLIENT_ID": parts.org["client_id"], "SF_CLIENT_SECRET": parts.org["client_secret"]}
    # Settings and secrets of the user's own must not leak into the show.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_"))}
    command = [sys.executable, "-m", "connector", "--settings", str(parts.settings), "daemon"]
    async with _process(command, parts.daemon_log, env={**clean, **secrets}, cwd=parts.directory) as process:
        yield process


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _process(command: list[str], log: Path, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            # A Ctrl-C on the terminal is for the demo, which ends its parts in their order.
            start_new_session=True,
            stderr=file,
            **{"stdin": asyncio.subprocess.DEVNULL, "stdout": file, **options},
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return
    except TimeoutError:
        pass
    raise BrokerDown("Mosquitto did not start")

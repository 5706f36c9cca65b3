"""`mosquitto_sub`, `mosquitto_pub` and `mosquitto_rr` as a document shows them, without the broker's address."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.broker import Broker


def run(line: str, broker: Broker, directory: Path, more: Sequence[str] = ()) -> str:
    """What one line prints. The address is in the clients' own settings files, as a reader may do it."""
    return subprocess.run(  # noqa: S603 - as documented
        [*shlex.split(line), *more],
        env=at(broker, directory),
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    ).stdout


def start(line: str, broker: Broker, directory: Path, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A line that waits for something."""
    words = [*shlex.split(line), *more]
    return subprocess.Popen(words, env=at(broker, directory), stdout=subprocess.PIPE, text=True)  # noqa: S603 - as documented


def at(broker: Broker, directory: Path) -> dict[str, str]:
    """The environment in which the clients go to the broker by themselves."""
    for program in ("mosquitto_sub", "mosquitto_pub", "mosquitto_rr"):
        (directory / program).write_text(f"-h {broker.host}\n-p {broker.port}\n")
    return {**os.environ, "XDG_CONFIG_HOME": str(directory)}

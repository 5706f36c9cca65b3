"""When each change came to a subscriber that is not Python: `mosquitto_sub`, which stamps it with nanoseconds.

Mosquitto hands a message to its subscribers and acknowledges it in one go, so this is the moment of the PUBACK as well,
to some hundredths of a millisecond; a client of Python's own would add its waking up to it.

Source: mosquitto_sub(1), "Output format".
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import paho.mqtt.publish

from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

_READY = f"{ROOT}/bench-ready"
_TIMEOUT_S = 300.0


class Arrivals:
    """What has come, in a file that `mosquitto_sub` writes.

    Attributes:
        bytes: Of all payloads, once they have been waited for.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", out: IO[bytes]) -> None:
        self.bytes = 0
        self._process = process
        self._out = out

    def at_s(self) -> dict[int, float]:
        """The number in each change's telephone -> when it came, by the machine's monotonic clock; waits for all."""
        self._process.wait(timeout=_TIMEOUT_S)
        ahead_s = time.time() - time.monotonic()
        return {number: stamp_s - ahead_s for number, stamp_s in self._lines()}

    def _lines(self) -> Iterator[tuple[int, float]]:
        self._out.seek(0)
        for line in self._out:
            stamp, _, payload = line.partition(b" ")
            if payload.startswith(b"{"):
                self.bytes += len(payload)
                yield int(json.loads(payload)["data"]["after"]["Phone"]), float(stamp)


@contextmanager
def arrivals(port: int, count: int) -> Iterator[Arrivals]:
    """Note the next so many changes; subscribed when the block begins."""
    # What is retained comes first, which shows that the subscription stands.
    paho.mqtt.publish.single(_READY, "ready", 1, retain=True, port=port, hostname="127.0.0.1")
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-C", str(count + 1), "-F", "%U %p"]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([*command, "-t", _READY, "-t", f"{ROOT}/change/#"], stdout=out)  # noqa: S603 - ours
        try:
            until(lambda: out.seek(0, 2) > 0)
            yield Arrivals(process, out)
        finally:
            process.kill()
            process.wait()

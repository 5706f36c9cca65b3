"""A service on the mesh that sends commands as fast as they are accepted, and notes when each is answered.

Its loop is inline, without a thread: what it takes of the processor is not the daemon's to have.
"""

import select
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Self

import orjson
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.e2e.watcher import ROOT

# Published and not accepted yet: a service that does not wait for its answers would fill the broker's queue.
IN_FLIGHT = 500
_RESULTS = f"{ROOT}/result/"
_TIMEOUT_S = 120.0


class Service:
    """Use with `with`.

    Attributes:
        accepted: Command id -> its `accepted` result.
        answered: Command id -> its final result.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._subscribed = False
        self._sent = 0
        self._client = Client(CallbackAPIVersion.VERSION2, "bench-service", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.max_queued_messages_set(0)
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.on_subscribe = lambda *_: self._note_subscribed()
        self.accepted: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, dict[str, Any]] = {}
        self.last_answer_s = 0.0

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.subscribe(f"{_RESULTS}+", 1)
        self._until(lambda: self._subscribed)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()

    def send(self, name: str, operation: str, commands: Iterable[Mapping[str, Any]]) -> None:
        """Publish commands with QoS 1; returns once all are accepted."""
        topic, waiting = f"{ROOT}/command/{name}/{operation}", iter(commands)
        end_s = time.monotonic() + _TIMEOUT_S
        while True:
            for command in islice(waiting, IN_FLIGHT - self._open):
                self._client.publish(topic, orjson.dumps(command), 1)
                self._sent += 1
            if not self._open:
                return
            self._turn(end_s)

    def until_answered(self, count: int, timeout_s: float) -> None:
        """Return once so many commands have their end."""
        self._until(lambda: len(self.answered) >= count, timeout_s)

    @property
    def _open(self) -> int:
        """Sent, and not accepted yet."""
        return self._sent - len(self.accepted)

    def _until(self, holds: Callable[[], bool], timeout_s: float = _TIMEOUT_S) -> None:
        end_s = time.monotonic() + timeout_s
        while not holds():
            self._turn(end_s)

    def _turn(self, end_s: float) -> None:
        """Read and write what there is to be, and wait for a little where there is nothing."""
        sock = self._client.socket()
        assert sock is not None, "the broker has hung up"
        assert time.monotonic() < end_s, f"{len(self.accepted)} of {self._sent} accepted, {len(self.answered)} answered"
        readable, writable, _ = select.select([sock], [sock] if self._client.want_write() else [], [], 0.1)
        if readable:
            self._client.loop_read()
        if writable:
            self._client.loop_write()
        self._client.loop_misc()

    def _note_subscribed(self) -> None:
        self._subscribed = True

    def _take(self, message: MQTTMessage) -> None:
        result = orjson.loads(message.payload)
        if result["status"] == "accepted":
            self.accepted[result["command_id"]] = result
        else:
            self.answered[result["command_id"]] = result
            self.last_answer_s = time.monotonic()

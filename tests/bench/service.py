"""A service on the mesh that sends commands as fast as they are accepted, and notes when each is answered."""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

# Published and not accepted yet: a service that does not wait for its answers would fill the broker's queue.
IN_FLIGHT = 500
_RESULTS = f"{ROOT}/result/"


class Service:
    """Use with `with`.

    Attributes:
        accepted: Command id -> its `accepted` result.
        answered: Command id -> its final result.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._subscribed = threading.Event()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._client = Client(CallbackAPIVersion.VERSION2, "bench-service", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.max_queued_messages_set(0)
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self.accepted: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, dict[str, Any]] = {}
        self.last_answer_s = 0.0

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        self._client.subscribe(f"{_RESULTS}+", 1)
        until(self._subscribed.is_set)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, name: str, operation: str, commands: Iterable[Mapping[str, Any]]) -> None:
        """Publish commands with QoS 1; returns once all are on their way."""
        for command in commands:
            self._room.acquire()
            self._client.publish(f"{ROOT}/command/{name}/{operation}", json.dumps(command), 1)

    def until_answered(self, count: int, timeout_s: float) -> None:
        """Return once so many commands have their end."""
        until(lambda: len(self.answered) >= count, timeout_s, say=lambda: f"{len(self.answered)} of {count} answered")

    def _take(self, message: MQTTMessage) -> None:
        result = json.loads(message.payload)
        if result["status"] == "accepted":
            self.accepted[result["command_id"]] = result
            self._room.release()
        else:
            self.answered[result["command_id"]] = result
            self.last_answer_s = time.monotonic()

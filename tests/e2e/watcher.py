"""A service on the mesh: a plain paho client with its own network thread, which keeps everything that it receives."""

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.e2e.waiting import DEADLINE_S, until

ROOT = "blackroad/salesforce"
SIGNALS = "blackroad/signals/FND/OS"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Received:
    """One message.

    Attributes:
        content_type, correlation, response_topic: Properties of MQTT 5; None where there are none.
    """

    topic: str
    payload: bytes
    retain: bool
    qos: int
    content_type: str | None
    correlation: bytes | None
    response_topic: str | None

    @cached_property
    def json(self) -> dict[str, Any]:
        """The payload as a JSON object."""
        document = json.loads(self.payload)
        assert isinstance(document, dict)
        return document


class Watcher:
    """Subscribed to everything unless told otherwise.

    Attributes:
        sent: What it has published itself, as (topic, payload).
    """

    def __init__(self, host: str, port: int, *filters: str, mqtt5: bool = True, clean: bool = False) -> None:
        """`clean` False: what is published while the link is down waits at the broker."""
        self._address = host, port
        self._filters = filters or ("#",)
        self._mqtt5 = mqtt5
        self._clean = clean
        self.sent: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._messages: list[Received] = []
        self._by_topic: defaultdict[str, list[tuple[int, Received]]] = defaultdict(list)
        version = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
        name = f"test-watcher-{next(_NUMBERS)}"
        session = None if mqtt5 else clean
        self._client = Client(CallbackAPIVersion.VERSION2, name, clean_session=session, protocol=version)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self._ready.clear()
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._keep(_received(message))
        self._client.reconnect_delay_set(0.05, 0.05)  # type: ignore[arg-type]  # a float does as well
        self._client.max_queued_messages_set(0)

    def __enter__(self) -> Self:
        options: dict[str, Any] = {}
        if self._mqtt5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own lacks the annotation
            properties.SessionExpiryInterval = 0 if self._clean else 600
            options = {"clean_start": self._clean, "properties": properties}
        self._client.connect(*self._address, **options)
        self._client.loop_start()
        self.until_connected()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def until_connected(self) -> None:
        """Return once it is subscribed; after the broker came back, again."""
        until(self._ready.is_set, say=lambda: "the watcher is not subscribed")

    @property
    def connected(self) -> bool:
        """True while it is subscribed."""
        return self._ready.is_set()

    def unsubscribe(self) -> None:
        """Stay connected and receive no more; returns once the broker has said so."""
        done = threading.Event()
        self._client.on_unsubscribe = lambda *_: done.set()
        self._client.unsubscribe(list(self._filters))
        until(done.is_set, say=lambda: "the watcher is still subscribed")

    def mark(self) -> int:
        """A point in time, for `since`."""
        return len(self._messages)

    def messages(self, pattern: str = "#", since: int = 0) -> list[Received]:
        """What has arrived on topics that match."""
        if "+" not in pattern and "#" not in pattern:
            return [m for at, m in self._by_topic.get(pattern, ()) if at >= since]
        return [m for m in self._messages[since:] if topic_matches_sub(pattern, m.topic)]

    def until(
        self,
        pattern: str,
        matches: Callable[[Received], bool] = lambda _message: True,
        *,
        since: int = 0,
        count: int = 1,
        timeout_s: float = DEADLINE_S,
    ) -> Received:
        """The message that makes `count` matching ones on topics that match."""
        found: list[Received] = []

        def arrived() -> bool:
            found[:] = [m for m in self.messages(pattern, since) if matches(m)]
            return len(found) >= count

        until(
            arrived,
            timeout_s,
            say=lambda: f"{len(found)} of {count} messages on {pattern}{self._latest(pattern, since)}",
        )
        return found[count - 1]

    def signals(self, name: str, since: int = 0) -> list[dict[str, Any]]:
        """The signals of this name."""
        return [s for s in (m.json for m in self.messages(SIGNALS, since)) if s["signal"] == name]

    def until_signal(self, name: str, since: int = 0, timeout_s: float = DEADLINE_S, **data: Any) -> dict[str, Any]:
        """The first signal of this name with these members in its `data`."""

        def fits(message: Received) -> bool:
            signal = message.json
            return bool(signal["signal"] == name) and data.items() <= signal["data"].items()

        return self.until(SIGNALS, fits, since=since, timeout_s=timeout_s).json

    def send(
        self,
        topic: str,
        payload: bytes | str | dict[str, Any],
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        wait: bool = True,
    ) -> None:
        """Publish with QoS 1; returns once the broker has it."""
        properties = None
        if self._mqtt5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own lacks the annotation
            if response_topic is not None:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
        text = json.dumps(payload) if isinstance(payload, dict) else payload
        body = text.encode() if isinstance(text, str) else text
        self.sent.append((topic, body))
        info = self._client.publish(topic, body, 1, retain, properties)
        if wait:
            until(info.is_published)

    def _keep(self, message: Received) -> None:
        self._by_topic[message.topic].append((len(self._messages), message))
        self._messages.append(message)

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, _code: ReasonCode, _props: Properties | None
    ) -> None:
        client.subscribe([(f, 1) for f in self._filters])

    def _latest(self, pattern: str, since: int) -> str:
        return "".join(f"\n  {m.topic} {m.payload[:300]!r}" for m in self.messages(pattern, since)[-5:])


def _received(message: MQTTMessage) -> Received:
    properties = message.properties
    return Received(
        topic=message.topic,
        payload=bytes(message.payload),
        retain=message.retain,
        qos=message.qos,
        content_type=getattr(properties, "ContentType", None),
        correlation=getattr(properties, "CorrelationData", None),
        response_topic=getattr(properties, "ResponseTopic", None),
    )

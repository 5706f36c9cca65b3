"""A service on the mesh, as others write them: a plain paho client with its own network thread."""

import itertools
import queue
import threading
from types import TracebackType
from typing import Self

import orjson
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.broker import Broker
from tests.waiting import until

_NUMBERS = itertools.count()


class Service:
    """Collects what it is subscribed to; publishes with QoS 1."""

    def __init__(
        self,
        broker: Broker,
        *filters: str,
        mqtt5: bool = True,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._broker = broker
        self._filters = filters
        self._mqtt5 = mqtt5
        self._ready = threading.Event()
        self._queue: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        self.messages: list[MQTTMessage] = []
        version = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
        self._client = Client(CallbackAPIVersion.VERSION2, f"test-service-{next(_NUMBERS)}", protocol=version)
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._queue.put(message)
        self._client.reconnect_delay_set(1, 1)

    async def __aenter__(self) -> Self:
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        await until(self._ready.is_set)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, _code: ReasonCode, _props: Properties | None
    ) -> None:
        if self._filters:
            client.subscribe([(f, 1) for f in self._filters])
        else:
            self._ready.set()

    async def send(
        self,
        topic: str,
        payload: bytes | str | dict[str, object],
        *,
        retain: bool = False,
        qos: int = 1,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """Publish; returns once the broker has it."""
        props = None
        if self._mqtt5:
            props = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own lacks the annotation
            if response_topic is not None:
                props.ResponseTopic = response_topic
            if correlation is not None:
                props.CorrelationData = correlation
        body = orjson.dumps(payload) if isinstance(payload, dict) else payload
        info = self._client.publish(topic, body, qos, retain, props)
        await until(info.is_published)

    def received(self, topic: str | None = None) -> list[MQTTMessage]:
        """What has arrived so far, on one topic or on all."""
        while not self._queue.empty():
            self.messages.append(self._queue.get())
        return [m for m in self.messages if topic is None or m.topic == topic]

    async def wait_for(self, topic: str, count: int = 1) -> list[MQTTMessage]:
        """Wait until so many messages have arrived on a topic; answers them."""
        await until(lambda: len(self.received(topic)) >= count)
        return self.received(topic)

    async def document(self, topic: str) -> dict[str, object]:
        """The newest JSON object on a topic, waited for."""
        messages = await self.wait_for(topic)
        loaded = orjson.loads(messages[-1].payload)
        assert isinstance(loaded, dict)
        return loaded

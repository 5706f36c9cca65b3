"""A short visit to the mesh, for programs beside the daemon: the command line, the demo."""

import contextlib
import queue
import socket
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from connector.errors import BrokerDown, BrokerRefused
from connector.mesh.client import properties
from connector.settings import MqttSettings, Secrets

CONNECT_TIMEOUT_S = 5.0
PUBLISH_TIMEOUT_S = 10.0
_REFUSED = frozenset({"not authorized", "bad user name or password", "banned"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and who we are there.

    Attributes:
        ca_file: CA certificates; empty: the system's.
    """

    host: str
    port: int
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password: str = ""


def address_of(mqtt: MqttSettings, secrets: Secrets) -> BrokerAddress:
    """Where the settings say that the broker is."""
    return BrokerAddress(
        host=mqtt.host,
        port=mqtt.port,
        tls=mqtt.tls,
        ca_file=mqtt.ca_file,
        username=secrets.mqtt_username,
        password=secrets.mqtt_password.get_secret_value(),
    )


class Visitor:
    """One MQTT 5 connection that leaves no session behind. Callbacks run on its network thread."""

    def __init__(self, address: BrokerAddress) -> None:
        self.client_id = f"salesforce-sync-{uuid.uuid4().hex[:12]}"
        self._address = address
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._filters: list[str] = []
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = self._on_connect
        self._client.on_socket_open = _send_at_once

    @contextmanager
    def connected(self) -> Iterator[Self]:
        """Connect for the length of a `with`; a connection that breaks meanwhile comes back by itself.

        Raises:
            BrokerDown: The broker cannot be reached.
            BrokerRefused: It does not let us in.
        """
        address, client = self._address, self._client
        if address.tls:
            client.tls_set_context(ssl.create_default_context(cafile=address.ca_file or None))
        if address.username:
            client.username_pw_set(address.username, address.password)
        client.connect_timeout = CONNECT_TIMEOUT_S
        where = f"{address.host}:{address.port}"
        try:
            client.connect(address.host, address.port, keepalive=30)
        except OSError as error:
            raise BrokerDown(f"no MQTT broker answers at {where}: {error}") from error
        client.loop_start()
        try:
            self._let_in(where)
            yield self
        finally:
            client.disconnect()
            client.loop_stop()

    @property
    def is_connected(self) -> bool:
        """False while the connection is broken."""
        return self._client.is_connected()

    def subscribe(self, topic_filter: str, received: Callable[[str, bytes], None]) -> None:
        """Call `received(topic, payload)` for every message; again after each reconnection."""

        def on_message(_client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
            received(message.topic, bytes(message.payload))

        self._client.message_callback_add(topic_filter, on_message)
        self._filters.append(topic_filter)
        self._client.subscribe(topic_filter, qos=1)

    def publish(self, topic: str, payload: bytes, reply_topic: str | None = None) -> None:
        """Publish with QoS 1 and wait for the acknowledgement.

        Raises:
            BrokerDown: None came in time.
        """
        with_reply = properties(PacketTypes.PUBLISH, ResponseTopic=reply_topic)
        info = self._client.publish(topic, payload, qos=1, properties=with_reply)
        with contextlib.suppress(RuntimeError, ValueError):
            info.wait_for_publish(PUBLISH_TIMEOUT_S)
        if not info.is_published():
            raise BrokerDown(f"the broker did not acknowledge a message within {PUBLISH_TIMEOUT_S:.0f} s")

    def request(self, topic: str, payload: Mapping[str, Any], reply_topic: str) -> "Replies":
        """Publish a request; its replies wait in what is returned."""
        replies: Replies = Replies(topic)
        self.subscribe(reply_topic, replies.put)
        self.publish(topic, orjson.dumps(payload), reply_topic)
        return replies

    def _let_in(self, where: str) -> None:
        try:
            answer = self._answers.get(timeout=CONNECT_TIMEOUT_S)
        except queue.Empty:
            raise BrokerDown(f"{where} took the connection but does not speak MQTT") from None
        if answer.lower() in _REFUSED:
            raise BrokerRefused(f"the broker at {where} refuses us ({answer}): check MQTT_USERNAME and MQTT_PASSWORD")
        if answer != "Success":
            raise BrokerDown(f"the broker at {where} refuses the connection: {answer}")

    def _on_connect(
        self, client: mqtt.Client, _userdata: object, _flags: mqtt.ConnectFlags, reason: Any, _properties: object
    ) -> None:
        self._answers.put(str(reason))
        for topic_filter in self._filters:
            client.subscribe(topic_filter, qos=1)


def _send_at_once(_client: mqtt.Client, _userdata: object, sock: Any) -> None:
    """Small messages must not wait for the acknowledgement of the one before."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Replies:
    """The replies to one request, in their order."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def put(self, _topic: str, payload: bytes) -> None:
        """A reply came."""
        self._queue.put(payload)

    def next(self, timeout_s: float) -> Mapping[str, Any]:
        """The next reply.

        Raises:
            BrokerDown: None came in time, or it is not a JSON object.
        """
        try:
            reply = orjson.loads(self._queue.get(timeout=timeout_s))
        except queue.Empty:
            raise BrokerDown(f"no reply on {self._topic} within {timeout_s:.0f} s: does the daemon run?") from None
        except orjson.JSONDecodeError as error:
            raise BrokerDown(f"the reply on {self._topic} is not JSON") from error
        if not isinstance(reply, dict):
            raise BrokerDown(f"the reply on {self._topic} is not a JSON object")
        return reply

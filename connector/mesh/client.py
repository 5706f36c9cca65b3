"""The paho client of one connection: protocol version, session, credentials, TLS and will."""

import socket
import ssl
from dataclasses import dataclass
from functools import lru_cache

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from connector.mesh.buffered import BufferedSocket
from connector.model.message import Message

RECEIVE_MAXIMUM = 200
# Long enough for a week away; the queue of a node that was taken away for good does not stay for ever.
SESSION_EXPIRY_S = 7 * 86400
_MAX_KEEPALIVE_S = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """What a link needs to know.

    Attributes:
        clean: Neither resume a session nor leave one; for short visits.
        keepalive_s: Also bounds every wait for an acknowledgement: twice this, then the link counts as broken.
        max_payload_bytes: Longer deliveries are cut to one byte more than this.
    """

    host: str
    port: int
    client_id: str
    mqtt5: bool
    clean: bool
    keepalive_s: int
    connect_timeout_s: float
    max_payload_bytes: int
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None
    will: Message | None


class _Buffering(Client):
    """paho over a socket that reads and writes in large pieces: half the time of a message goes into system calls."""

    def _create_socket(self) -> BufferedSocket:
        # Where paho itself puts a wrapper (of WebSockets) around the socket that it has connected.
        raw = super()._create_socket()
        if not isinstance(raw, socket.socket):
            raise TypeError("paho has given another kind of socket")
        return BufferedSocket(raw, mqtt5=self.protocol == MQTTProtocolVersion.MQTTv5)


def paho_client(settings: LinkSettings) -> Client:
    """A client that is ready for `reconnect`, has no thread, acknowledges nothing by itself and never reconnects."""
    client = _Buffering(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if settings.mqtt5 else settings.clean,
        protocol=MQTTProtocolVersion.MQTTv5 if settings.mqtt5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = settings.connect_timeout_s
    if settings.username:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls is not None:
        client.tls_set_context(settings.tls)
    if settings.will is not None:
        will, extras = settings.will, None
        if settings.mqtt5:
            extras = properties(PacketTypes.WILLMESSAGE, ContentType=will.content_type)
        client.will_set(will.topic, will.payload, will.qos, will.retain, extras)
    client.connect_async(
        settings.host,
        settings.port,
        min(settings.keepalive_s, _MAX_KEEPALIVE_S),
        clean_start=settings.clean,
        properties=_connect_properties(settings),
    )
    return client


@lru_cache(maxsize=16)
def content_type(value: str) -> bytes:
    """Properties of a PUBLISH that has nothing but a Content Type, packed."""
    return publish_properties(value, None)


def publish_properties(content_type: str, correlation: bytes | None) -> bytes:
    """Properties of a PUBLISH, packed."""
    made = properties(PacketTypes.PUBLISH, ContentType=content_type, CorrelationData=correlation)
    return bytes(made.pack())  # type: ignore[no-untyped-call]  # paho's own lacks the annotation


def properties(packet: int, **values: object) -> Properties:
    """MQTT 5 properties of a packet; None leaves one out."""
    made = Properties(packet)  # type: ignore[no-untyped-call]  # paho's own lacks the annotation
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made


def _connect_properties(settings: LinkSettings) -> Properties | None:
    if not settings.mqtt5:
        return None
    expiry_s = 0 if settings.clean else SESSION_EXPIRY_S
    return properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry_s, ReceiveMaximum=RECEIVE_MAXIMUM)

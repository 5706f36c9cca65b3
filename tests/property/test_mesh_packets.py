"""The packets that we make and take out ourselves, held against paho's own reading and writing of them."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from connector.mesh.buffered import BufferedSocket
from connector.mesh.client import properties, publish_properties
from connector.mesh.packets import Puback, Published, header, publish, published

TOPICS = st.text(st.characters(codec="utf-8", exclude_characters="+#\0"), min_size=1, max_size=300)
IDS = st.integers(1, 65_535)


@given(TOPICS, IDS, st.binary(max_size=40_000), st.booleans(), st.none() | st.binary(max_size=200))
def test_paho_reads_what_we_publish(
    topic: str, packet_id: int, payload: bytes, retain: bool, correlation: bytes | None
) -> None:
    """Every part of the message arrives, whatever its length."""
    properties = publish_properties("application/json", correlation)
    packet = publish(topic, packet_id, payload, retain=retain, properties=properties)
    head = header(packet, 0)
    assert head is not None
    assert head.size == len(packet)
    read = decode_publish(head.kind, packet[head.length :], MQTTProtocolVersion.MQTTv5)
    told = (read.dup, read.qos, read.retain, read.topic.decode(), read.mid, read.payload)
    assert told == (False, 1, retain, topic, packet_id, payload)
    assert getattr(read.properties, "ContentType", None) == "application/json"
    assert getattr(read.properties, "CorrelationData", None) == correlation


@given(TOPICS, IDS, st.binary(max_size=300))
def test_without_properties_it_is_a_message_of_3_1_1(topic: str, packet_id: int, payload: bytes) -> None:
    """The older protocol has no place for them."""
    packet = publish(topic, packet_id, payload, retain=False, properties=b"")
    head = header(packet, 0)
    assert head is not None
    read = decode_publish(head.kind, packet[head.length :], MQTTProtocolVersion.MQTTv311)
    assert (read.topic.decode(), read.mid, read.payload) == (topic, packet_id, payload)


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "PayloadFormatIndicator": st.integers(0, 1),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "ContentType": TOPICS,
        "ResponseTopic": TOPICS,
        "CorrelationData": st.binary(min_size=1, max_size=300),
        "SubscriptionIdentifier": st.integers(1, 268_435_455),
        "UserProperty": st.tuples(TOPICS, TOPICS),
    },
)


@given(TOPICS, IDS, st.binary(max_size=400), st.booleans(), st.booleans(), ASKED)
def test_we_read_what_paho_writes(
    topic: str, packet_id: int, payload: bytes, retain: bool, dup: bool, asked: dict[str, object]
) -> None:
    """With every property that a broker may send us, and a packet behind it."""
    packed = bytes(properties(PacketTypes.PUBLISH, **asked).pack())  # type: ignore[no-untyped-call]  # paho's own
    packet = publish(topic, packet_id, payload, retain=retain, properties=packed)
    packet = bytes((packet[0] | (0x08 if dup else 0),)) + packet[1:]
    head = header(packet, 0)
    assert head is not None
    told = published(b"\x40" + packet + b"\x32\x00", 1, head, mqtt5=True)
    response_topic, correlation = asked.get("ResponseTopic"), asked.get("CorrelationData")
    assert told == Published(topic, packet_id, payload, dup, retain, response_topic, correlation)  # type: ignore[arg-type]  # of the strategies above


@given(st.integers(0x30, 0x3F), st.binary(max_size=60), st.booleans())
def test_no_bytes_make_our_reading_fail(kind: int, body: bytes, mqtt5: bool) -> None:
    """What we read out of them paho reads as well; the rest is paho's to judge."""
    packet = _packet(kind, body)
    head = header(packet, 0)
    assert head is not None
    told = published(packet, 0, head, mqtt5=mqtt5)
    if told is None:
        return
    version = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
    read = decode_publish(kind, body, version)
    assert (read.qos, read.dup, read.retain) == (1, told.duplicate, told.retained)
    assert (read.topic.decode(), read.mid, read.payload) == (told.topic, told.packet_id, told.payload)


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x00\x00\x07\x00",  # no topic
        b"\x00\x01\xff\x00\x07\x00",  # not UTF-8
        b"\x00\x01a\x00\x00\x00",  # no packet id
        b"\x00\x01a\x00\x07",  # no properties
        b"\x00\x01a\x00\x07\x03\x23\x00\x01",  # a topic alias, which we do not allow
        b"\x00\x01a\x00\x07\x03\x02\x00\x00\x00\x00",  # properties that end within one
        b"\x00\x01a\x00\x07\x03\x08\x00\x05",  # a response topic longer than the packet
    ],
)
def test_a_malformed_message_is_left_to_the_library(body: bytes) -> None:
    """It decides whether the connection can go on."""
    packet = _packet(0x32, body)
    head = header(packet, 0)
    assert head is not None
    assert published(packet, 0, head, mqtt5=True) is None


@pytest.mark.parametrize("topic", ["", "a/+/b", "a/#", "x" * 65_536])
def test_a_topic_that_is_none_is_refused(topic: str) -> None:
    """A broker would end the connection for it."""
    with pytest.raises(ValueError, match="topic"):
        publish(topic, 1, b"", retain=False, properties=b"")


def _packet(kind: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes((kind, *length, size)) + body


ACKNOWLEDGED = st.builds(Puback, IDS, st.integers(0, 255))
OTHERS = st.builds(_packet, st.sampled_from([0x20, 0x30, 0x90, 0xD0, 0xE0]), st.binary(max_size=400))
MESSAGES = st.builds(
    Published,
    topic=TOPICS,
    packet_id=IDS,
    payload=st.binary(max_size=90),
    duplicate=st.just(value=False),
    retained=st.just(value=False),
    response_topic=st.none(),
    correlation=st.none(),
)
Item = Puback | Published | bytes


def _bytes_of(item: Item) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, Published):
        return publish(item.topic, item.packet_id, item.payload, retain=False, properties=b"\0")
    # A code of success may be left out, with the properties behind it.
    code = bytes((item.code, 0)) if item.code else b""
    return _packet(0x40, item.packet_id.to_bytes(2, "big") + code)


@contextmanager
def _connected() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        yield BufferedSocket(ours, mqtt5=True), theirs


@given(
    st.lists(ACKNOWLEDGED | MESSAGES | OTHERS, max_size=30),
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.data(),
)
def test_what_is_ours_is_taken_out_wherever_the_stream_is_cut(
    items: Sequence[Item], cuts: Sequence[int], data: st.DataObject
) -> None:
    """The library reads the other packets whole and in order; nothing is lost at a border of two reads."""
    stream = b"".join(map(_bytes_of, items))
    taken: list[Item] = []
    read = bytearray()
    with _connected() as (buffered, broker):
        at = 0
        while at < len(stream):
            size = cuts[at % len(cuts)]
            broker.sendall(stream[at : at + size])
            at += size
            while True:
                try:
                    piece = buffered.recv(data.draw(st.sampled_from([1, 7, 1000])))
                except BlockingIOError:
                    ours: list[Item] = [*buffered.acknowledgements(), *buffered.messages]
                    buffered.messages.clear()
                    taken += ours
                    if not ours and not buffered.pending():
                        break
                else:
                    assert piece
                    read += piece
        assert (buffered.acknowledgements(), list(buffered.messages)) == ([], [])
    for kind in (Puback, Published):
        assert [i for i in taken if isinstance(i, kind)] == [i for i in items if isinstance(i, kind)]
    assert bytes(read) == b"".join(item for item in items if isinstance(item, bytes))


@given(st.lists(MESSAGES, min_size=1, max_size=5), OTHERS, MESSAGES)
def test_once_the_library_has_a_packet_what_came_before_it_is_there(
    before: Sequence[Published], packet: bytes, behind: Published
) -> None:
    """And what came behind it is not: whoever handles it can keep the order."""
    with _connected() as (buffered, broker):
        broker.sendall(b"".join([*map(_bytes_of, before), packet, _bytes_of(behind)]))
        assert b"".join(buffered.recv(1) for _ in packet) == packet
        assert list(buffered.messages) == list(before)


def test_half_a_packet_is_nothing_to_come_back_for() -> None:
    """The rest makes the socket ready; asking again before would spin."""
    with _connected() as (buffered, broker):
        broker.sendall(b"\x40\x02\x00")
        with pytest.raises(BlockingIOError):
            buffered.recv(1)
        assert not buffered.pending()
        broker.sendall(b"\x07")
        with pytest.raises(BlockingIOError):
            buffered.recv(1)
        assert buffered.acknowledgements() == [Puback(7, 0)]


def test_the_end_is_told_once_what_came_before_has_been_taken() -> None:
    """A broker that acknowledges and dies has acknowledged."""
    with _connected() as (buffered, broker):
        broker.sendall(_bytes_of(Puback(300, 0)))
        broker.shutdown(socket.SHUT_WR)
        with pytest.raises(BlockingIOError):
            buffered.recv(1)
        assert buffered.acknowledgements() == [Puback(300, 0)]
        assert buffered.recv(1) == b""


@pytest.mark.parametrize("stream", [b"\x40\xff\xff\xff\xff\x01", b"\x40\x01\x00"])
def test_what_is_no_packet_is_left_to_the_library(stream: bytes) -> None:
    """It ends the connection for a length of five bytes, and for an acknowledgement without an id."""
    with _connected() as (buffered, broker):
        broker.sendall(stream)
        assert b"".join(buffered.recv(1) for _ in stream) == stream
        assert buffered.acknowledgements() == []


def test_a_large_message_is_the_librarys() -> None:
    """It puts the pieces together as they come; here each would copy all that has come before."""
    with _connected() as (buffered, broker):
        packet = publish("a", 7, bytes(70_000), retain=False, properties=b"\0")
        broker.sendall(packet[:30_000])
        assert buffered.recv(5) == packet[:5]
        assert not buffered.messages


def test_an_acknowledgement_without_end_breaks_the_connection() -> None:
    """It would be kept in memory until it is all there: up to 256 MB."""
    with _connected() as (buffered, broker):
        broker.sendall(b"\x40\xff\xff\xff\x7f\x00\x07")
        with pytest.raises(OSError, match="too large"):
            buffered.recv(1)

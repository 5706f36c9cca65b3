"""The packets that we make and take out ourselves, held against paho's own reading and writing of them."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import MQTTProtocolVersion

from connector.mesh.buffered import BufferedSocket
from connector.mesh.client import publish_properties
from connector.mesh.packets import Puback, header, publish

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
OTHERS = st.builds(_packet, st.sampled_from([0x20, 0x30, 0x32, 0x90, 0xD0, 0xE0]), st.binary(max_size=400))


def _bytes_of(item: Puback | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    # A code of success may be left out, with the properties behind it.
    code = bytes((item.code, 0)) if item.code else b""
    return _packet(0x40, item.packet_id.to_bytes(2, "big") + code)


@contextmanager
def _connected() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        yield BufferedSocket(ours), theirs


@given(st.lists(ACKNOWLEDGED | OTHERS, max_size=30), st.lists(st.integers(1, 60), min_size=1, max_size=60), st.data())
def test_acknowledgements_are_taken_out_wherever_the_stream_is_cut(
    items: Sequence[Puback | bytes], cuts: Sequence[int], data: st.DataObject
) -> None:
    """The library reads the other packets whole and in order; nothing is lost at a border of two reads."""
    stream = b"".join(map(_bytes_of, items))
    taken: list[Puback] = []
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
                    acknowledged = buffered.acknowledgements()
                    taken += acknowledged
                    if not acknowledged and not buffered.pending():
                        break
                else:
                    assert piece
                    read += piece
        assert buffered.acknowledgements() == []
    assert taken == [item for item in items if isinstance(item, Puback)]
    assert bytes(read) == b"".join(item for item in items if isinstance(item, bytes))


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


def test_an_acknowledgement_without_end_breaks_the_connection() -> None:
    """It would be kept in memory until it is all there: up to 256 MB."""
    with _connected() as (buffered, broker):
        broker.sendall(b"\x40\xff\xff\xff\x7f\x00\x07")
        with pytest.raises(OSError, match="too large"):
            buffered.recv(1)

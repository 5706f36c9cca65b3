"""A wire that can be cut, slowed and silenced; that between the daemon and the broker remembers what went over it.

What a subscriber receives depends on the broker's memory as well; what the daemon published and the broker acknowledged
does not. So this is where the promise "every change reaches the mesh" is held against.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

_CONNECT, _PUBLISH, _PUBACK, _SUBACK = 1, 3, 4, 9
_MQTT5 = 5
_CHUNK_BYTES = 65_536

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Feed = Callable[[bytes], None]
Take = Callable[[int, int, bytes], None]
"""Gets a packet: its type, flags and body."""


@dataclass(slots=True)
class Sent:
    """One PUBLISH of the daemon.

    Attributes:
        acknowledged: The PUBACK for it passed on to the daemon.
    """

    topic: str
    payload: bytes
    acknowledged: bool = False


class PlainWire:
    """A TCP proxy on a port of its own.

    Attributes:
        delay_s: Each piece waits so long.
    """

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port`: of the far end."""
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0
        self.delay_s = 0.0

    async def start(self) -> None:
        """Listen; on the same port every time."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        if self._flows:
            await asyncio.wait(self._flows)

    def cut(self) -> None:
        """Break every connection; what is on its way is lost."""
        for flow in self._flows:
            if not flow.cancelling():
                flow.cancel()

    def silence(self) -> None:
        """Half-open from now on: connections stand, nothing passes."""
        self._open.clear()

    def restore(self) -> None:
        """All is well again."""
        self.delay_s = 0.0
        self._open.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = asyncio.current_task()
        assert flow is not None
        self._flows.add(flow)
        try:
            # Cut, or nobody there.
            with contextlib.suppress(asyncio.CancelledError, OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                await self._both_ways((reader, writer), (far_reader, far_writer))
        finally:
            writer.transport.abort()
            self._flows.discard(flow)

    async def _both_ways(self, near: _Ends, far: _Ends) -> None:
        up, down = self._read_along()
        ways = (self._pass(near[0], far[1], up), self._pass(far[0], near[1], down))
        passing = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in passing:
                way.cancel()
            await asyncio.wait(passing)
            far[1].transport.abort()

    def _read_along(self) -> tuple[Feed, Feed]:
        """Who is shown what passes on a new connection, up and down."""
        return (lambda _: None), (lambda _: None)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, show: Feed) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._open.wait()
                writer.write(data)
                show(data)
                await writer.drain()


class Wire(PlainWire):
    """The wire to the broker.

    Attributes:
        sent: Every PUBLISH of the daemon in the order of the wire.
        subscribed: The broker has taken the daemon's subscriptions at least once.
    """

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port`: of the broker."""
        super().__init__(host, port)
        self.sent: list[Sent] = []
        self.subscribed = False

    def _read_along(self) -> tuple[Feed, Feed]:
        meter = _Meter(self.sent, self._subscribed)
        return meter.up.feed, meter.down.feed

    def _subscribed(self) -> None:
        self.subscribed = True


class _Meter:
    """Reads along on one connection."""

    def __init__(self, sent: list[Sent], subscribed: Callable[[], None]) -> None:
        self._sent = sent
        self._subscribed = subscribed
        self._waiting: dict[int, Sent] = {}
        self._mqtt5 = False
        self.up = _Frames(self._upward)
        self.down = _Frames(self._downward)

    def _upward(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _CONNECT:
            # The protocol's name with its length, then its level.
            self._mqtt5 = body[2 + int.from_bytes(body[:2])] == _MQTT5
        elif kind == _PUBLISH:
            end = 2 + int.from_bytes(body[:2])
            sent = Sent(body[2:end].decode(), b"")
            if flags & 0b110:
                self._waiting[int.from_bytes(body[end : end + 2])] = sent
                end += 2
            if self._mqtt5:
                length, used = _varint(body, end)
                end += used + length
            sent.payload = body[end:]
            self._sent.append(sent)

    def _downward(self, kind: int, _flags: int, body: bytes) -> None:
        if kind == _PUBACK:
            sent = self._waiting.pop(int.from_bytes(body[:2]), None)
            if sent is not None:
                sent.acknowledged = True
        elif kind == _SUBACK:
            self._subscribed()


class _Frames:
    """Cuts a byte stream into MQTT packets.

    Source: MQTT Version 5.0, section 2.1, "Structure of an MQTT Control Packet".
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._data += data
        while (frame := self._whole()) is not None:
            start, end = frame
            self._take(self._data[0] >> 4, self._data[0] & 0x0F, bytes(self._data[start:end]))
            del self._data[:end]

    def _whole(self) -> tuple[int, int] | None:
        try:
            length, used = _varint(self._data, 1)
        except IndexError:
            return None
        end = 1 + used + length
        return (1 + used, end) if len(self._data) >= end else None


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """A variable byte integer and how many bytes it takes. Raises IndexError where it is not all there."""
    value, used = 0, 0
    while True:
        byte = data[at + used]
        value |= (byte & 0x7F) << (7 * used)
        used += 1
        if not byte & 0x80:
            return value, used

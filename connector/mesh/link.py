"""One connection to the broker, from CONNECT to its end: paho driven inside the asyncio loop, without a thread.

A link is used once. paho's own resending is not: whoever publishes gets LinkDown and decides, so that nothing is sent
behind the caller's back and order stays the caller's. The session (subscriptions, unacknowledged deliveries) is the
broker's and outlives the link.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from connector.errors import BrokerRefused, LinkDown, PoisonError
from connector.mesh.buffered import BufferedSocket
from connector.mesh.client import LinkSettings, content_type, paho_client, publish_properties
from connector.mesh.outgoing import Outcome, Outgoing
from connector.mesh.packets import Published, publish
from connector.model.message import Delivery, Message

log = structlog.get_logger()

# More in flight gains nothing measurable and makes one pass over the socket long.
PUBLISH_WINDOW = 500
_CLOSE_TIMEOUT_S = 2.0
# CONNACK codes that a person must act on: protocol, client id, credentials, authorisation, ban, method.
_REFUSED_FOR_GOOD = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
# PUBACK codes that another try cannot change: not authorised, topic invalid, too large, payload format.
_POISON = frozenset({0x87, 0x90, 0x95, 0x99})
# PUBLISH: fixed header, topic length, packet id and the properties we set take less than this beside their content.
_PACKET_OVERHEAD_BYTES = 64
# Packet ids of our messages; those below are for the subscriptions, which paho numbers.
_FIRST_ID, _LAST_ID = 256, 65_535
_FAILED = 0x80


class _Pending(NamedTuple):
    """A publish that the broker has not acknowledged yet: the message at this place of these."""

    of: Outgoing
    place: int
    sent_s: float


@dataclass(slots=True, eq=False)
class Received:
    """A delivery that we have not acknowledged yet; the token of `Delivery`."""

    link: "Link"
    packet_id: int
    finished: bool = False


class Link:
    """One connection: `open` it once; `ended` is set when it is over, with `reason`.

    Attributes:
        heard_s: When the broker last sent something, by the loop's clock; it answers a ping per keepalive at least.
    """

    def __init__(self, settings: LinkSettings, received: Callable[[Delivery, int], bool]) -> None:
        """`received` takes a delivery and its QoS; it answers False where nothing more should come until `resume`."""
        self._settings = settings
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._client = self._wired()
        self._connack: asyncio.Future[ConnectFlags] = self._loop.create_future()
        self._suback: asyncio.Future[Sequence[ReasonCode]] | None = None
        self._pending: dict[int, _Pending] = {}
        self._waiting: deque[Outgoing] = deque()
        self._last_id = _LAST_ID
        self._unacknowledged: deque[Received] = deque()
        self._window = PUBLISH_WINDOW
        self._max_packet_bytes: int | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._attached = False
        self._socket: BufferedSocket | None = None
        self._paused = False
        self.session_present = False
        self.ended = asyncio.Event()
        self.reason = ""
        self.heard_s = self._loop.time()

    # --- opening and closing

    async def open(self, dialer: Executor) -> None:
        """Connect; `dialer` runs the blocking part (name look-up, TCP, TLS).

        Raises:
            LinkDown: No connection within the time-out, or the broker cannot serve now.
            BrokerRefused: The broker refuses us for good.
        """
        await self._dial(dialer)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                flags = await self._connack
        except TimeoutError as error:
            self.drop("no CONNACK in time")
            raise LinkDown("the broker did not answer CONNECT in time") from error
        except BaseException:
            self.drop("not opened")
            raise
        self.session_present = flags.session_present

    async def subscribe(self, filters: Sequence[str]) -> Sequence[str]:
        """Subscribe with QoS 1; answers the filters that the broker refuses.

        Raises:
            LinkDown: The link broke, or the broker did not answer in time.
        """
        self._suback = self._loop.create_future()
        # retainAsPublished: a live message sent with the retain flag keeps it, and is not acted on either.
        # retainHandling 1: what is retained comes once per session, not with every renewed subscription.
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=1)
        if self._settings.mqtt5:
            code, _ = self._client.subscribe([(f, options) for f in filters])
        else:
            code, _ = self._client.subscribe([(f, 1) for f in filters])
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDown("the connection to the broker is closed")
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                granted = await self._suback
        except TimeoutError as error:
            self.drop("no SUBACK in time")
            raise LinkDown("the broker did not answer SUBSCRIBE in time") from error
        return [f for f, reason in zip(filters, granted, strict=True) if reason.is_failure]

    async def close(self) -> None:
        """Send DISCONNECT and end the link, in bounded time."""
        if not self.ended.is_set():
            self._client.disconnect()
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self.ended.wait()
            except TimeoutError:
                self.drop("no orderly end in time")

    def drop(self, reason: str) -> None:
        """End the link at once, without DISCONNECT: the broker will publish the will."""
        # The documented way to end a connection immediately; what it prepares is never begun.
        self._client.connect_async(self._settings.host, self._settings.port)
        self._end(reason)

    # --- publishing

    async def publish(self, outgoing: Outgoing) -> None:
        """Return once the outcome of each message is known.

        Raises:
            LinkDown: Nothing was sent: the link has ended.
        """
        if self.ended.is_set():
            raise LinkDown("not connected to the broker")
        self._waiting.append(outgoing)
        self._pump()
        await outgoing.done

    def acknowledge(self, received: Received) -> None:
        """Send the PUBACK, once everything that arrived before has been acknowledged too: MQTT wants that order."""
        received.finished = True
        while self._unacknowledged and self._unacknowledged[0].finished and not self.ended.is_set():
            self._client.ack(self._unacknowledged.popleft().packet_id, 1)

    def resume(self) -> None:
        """There is room for deliveries again."""
        if self._paused and self._attached and self._socket is not None:
            self._paused = False
            self._loop.add_reader(self._socket, self._readable)
            self._loop.call_soon(self._readable)

    def _pause(self) -> None:
        """Leave what the broker sends in the socket.

        The broker's own window does not do it: Mosquitto 2.0.11 sends its whole queue once a first PUBACK has come.
        PUBACKs for us wait there as well, so this must not last; beyond twice the keepalive the link ends.
        """
        if self._attached and not self._paused and self._socket is not None:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def _is_too_large(self, message: Message) -> bool:
        if self._max_packet_bytes is None:
            return False
        content = len(message.payload) + len(message.topic.encode()) + len(message.content_type)
        return content + len(message.correlation or b"") + _PACKET_OVERHEAD_BYTES > self._max_packet_bytes

    def _pump(self) -> None:
        """Send what waits, as far as the window has room for it."""
        now_s = self._loop.time()
        while self._waiting and not self.ended.is_set():
            outgoing = self._waiting[0]
            if outgoing.begun == len(outgoing.messages) or outgoing.done.done():  # its publisher was cancelled
                self._waiting.popleft()
            elif len(self._pending) < self._window:
                place, outgoing.begun = outgoing.begun, outgoing.begun + 1
                self._put(outgoing, place, now_s)
            else:
                break
        self._flush()

    def _put(self, outgoing: Outgoing, place: int, now_s: float) -> None:
        """Hand one message to the socket, or settle it where that cannot be."""
        message = outgoing.messages[place]
        if self._socket is None:
            outgoing.settle(place, LinkDown("the connection to the broker is closed"))
        elif self._is_too_large(message):
            limit = self._max_packet_bytes
            outgoing.settle(place, PoisonError(f"larger than the broker's maximum packet of {limit} bytes"))
        else:
            packet_id = self._free_id()
            try:
                self._socket.put(self._packet(message, packet_id))
            except ValueError as error:  # the topic has a wildcard or is too long
                outgoing.settle(place, PoisonError(f"cannot be published: {error}"))
            else:
                self._pending[packet_id] = _Pending(outgoing, place, now_s)

    def _free_id(self) -> int:
        """A packet id that no message under way has; the window is far smaller than their number."""
        while True:
            self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else _FIRST_ID
            if self._last_id not in self._pending:
                return self._last_id

    def _packet(self, message: Message, packet_id: int) -> bytes:
        if message.qos != 1:
            raise ValueError("the quality of service is not 1")
        properties = b""
        if self._settings.mqtt5 and message.correlation is None:
            properties = content_type(message.content_type)
        elif self._settings.mqtt5:
            properties = publish_properties(message.content_type, message.correlation)
        return publish(message.topic, packet_id, message.payload, retain=message.retain, properties=properties)

    def _take_acknowledgements(self) -> None:
        """Settle what the broker has acknowledged, and send what that made room for."""
        acknowledged = [] if self._socket is None else self._socket.acknowledgements()
        for packet_id, code in acknowledged:
            pending = self._pending.pop(packet_id, None)
            if pending is not None:
                pending.of.settle(pending.place, None if code < _FAILED else _outcome(code))
        if acknowledged:
            self._pump()

    # --- paho's callbacks: they run inside the loop, from `_readable`, `_writable` and `_tick`

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, code: ReasonCode, props: Properties | None
    ) -> None:
        if self._connack.done():
            return
        if not code.is_failure:
            self._window = min(PUBLISH_WINDOW, getattr(props, "ReceiveMaximum", PUBLISH_WINDOW))
            self._max_packet_bytes = getattr(props, "MaximumPacketSize", None)
            self._connack.set_result(flags)
        elif code.value in _REFUSED_FOR_GOOD:
            self._connack.set_exception(BrokerRefused(f"the broker refuses the connection: {code}"))
        else:
            self._connack.set_exception(LinkDown(f"the broker cannot take the connection now: {code}"))

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _props: Properties | None
    ) -> None:
        self._end(f"{'the broker ended it' if flags.is_disconnect_packet_from_server else 'lost'}: {code}")

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        if self._suback is not None and not self._suback.done():
            self._suback.set_result(codes)

    def _take_messages(self) -> None:
        """Hand on what has come with QoS 1, unless there is no room for it."""
        messages = self._socket.messages if self._socket is not None else ()
        while messages and not self._paused and not self.ended.is_set():
            self._hand_on(messages.popleft())

    def _hand_on(self, message: Published) -> None:
        token = Received(self, message.packet_id)
        self._unacknowledged.append(token)
        delivery = Delivery(
            topic=message.topic,
            payload=message.payload[: self._settings.max_payload_bytes + 1],
            retained=message.retained,
            duplicate=message.duplicate,
            packet_id=message.packet_id,
            token=token,
            response_topic=message.response_topic,
            correlation=message.correlation,
        )
        if not self._received(delivery, 1):
            self._pause()

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        """One that is paho's: without QoS 1, or large, or malformed in a way that paho has let pass."""
        while self._socket is not None and self._socket.messages:  # they have come before it
            self._hand_on(self._socket.messages.popleft())
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("mesh.delivery_dropped", reason="the topic is not UTF-8", bytes=len(message.payload))
            client.ack(message.mid, message.qos)
            return
        token = Received(self, message.mid, finished=message.qos == 0)
        delivery = Delivery(
            topic=topic,
            payload=bytes(message.payload[: self._settings.max_payload_bytes + 1]),
            retained=message.retain,
            duplicate=message.dup,
            packet_id=message.mid,
            token=token,
            response_topic=getattr(message.properties, "ResponseTopic", None),
            correlation=getattr(message.properties, "CorrelationData", None),
        )
        if message.qos:
            self._unacknowledged.append(token)
        if not self._received(delivery, message.qos):
            self._pause()

    def _wired(self) -> Client:
        client = paho_client(self._settings)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_register_write = self._on_socket_write
        client.on_socket_unregister_write = self._on_socket_idle
        return client

    # --- the loop's side

    async def _dial(self, dialer: Executor) -> None:
        dialled = self._loop.run_in_executor(dialer, self._client.reconnect)
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout_s):
                await asyncio.shield(dialled)
        except TimeoutError as error:
            dialled.add_done_callback(self._abandon)
            raise LinkDown(f"{self._where()}: no connection in time") from error
        except asyncio.CancelledError:
            dialled.add_done_callback(self._abandon)
            raise
        except (OSError, ValueError) as error:
            # A certificate that is not trusted may be a clock not set yet: waited out, with the reason in the log.
            raise LinkDown(f"{self._where()}: {error}") from error
        self._attach()

    def _abandon(self, dialled: "asyncio.Future[MQTTErrorCode]") -> None:
        dialled.cancelled() or dialled.exception()
        self.drop("given up")

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _attach(self) -> None:
        """Hand the open socket to the loop; until here paho was in the dialling thread alone."""
        sock = self._client.socket()
        if not isinstance(sock, BufferedSocket):
            raise LinkDown(f"{self._where()}: closed at once")
        # Small messages one after the other: Nagle would hold each back for the last one's TCP acknowledgement.
        sock.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._attached, self._socket = True, sock
        self._loop.add_reader(sock, self._readable)
        self._client.on_socket_close = self._on_socket_close
        self._loop.add_writer(sock, self._writable)
        self._tick()

    def _on_socket_write(self, _client: Client, _data: Any, sock: Any) -> None:
        if self._attached:
            self._loop.add_writer(sock, self._writable)

    def _on_socket_idle(self, _client: Client, _data: Any, sock: Any) -> None:
        if self._attached and not sock.unsent:
            self._loop.remove_writer(sock)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        self._attached = False
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _readable(self) -> None:
        if self._paused:
            return
        self.heard_s = self._loop.time()
        self._guarded(self._client.loop_read)
        self._take_acknowledgements()
        self._take_messages()
        # What has been taken out of the socket already makes it ready no more.
        if self._attached and self._socket is not None and self._socket.pending():
            self._loop.call_soon(self._readable)

    def _writable(self) -> None:
        self._guarded(self._client.loop_write)
        if self._flush() and self._attached and self._socket is not None and not self._client.want_write():
            self._loop.remove_writer(self._socket)

    def _flush(self) -> bool:
        """Send what was written; False if the loop must tell when there is room for the rest."""
        if not self._attached or self._socket is None:
            return False
        try:
            self._socket.flush()
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._loop.add_writer(self._socket, self._writable)
            return False
        except OSError as error:
            self.drop(f"lost: {error.strerror}")
            return False
        return True

    def _guarded(self, step: Callable[[], MQTTErrorCode]) -> None:
        if self.ended.is_set():
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever paho raises on garbage ends this connection, no more
            log.warning("mesh.protocol_broken", error=type(error).__name__)
            self.drop("the broker does not speak MQTT")

    def _tick(self) -> None:
        self._guarded(self._client.loop_misc)
        if self.ended.is_set():
            return
        oldest = next(iter(self._pending.values()), None)
        late = oldest is not None and self._loop.time() - oldest.sent_s > 2 * self._settings.keepalive_s
        if late and not self._paused:
            self.drop("no PUBACK in time")
            return
        self._ticker = self._loop.call_later(min(1.0, self._settings.keepalive_s / 4), self._tick)

    def _end(self, reason: str) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        self.reason = reason
        if self._ticker is not None:
            self._ticker.cancel()
        error = LinkDown(f"the connection to the broker is closed: {reason}")
        unsettled = [(p.of, p.place) for p in self._pending.values()]
        unsettled += [(waiting, at) for waiting in self._waiting for at in range(waiting.begun, len(waiting.messages))]
        self._pending.clear()
        self._waiting.clear()
        for outgoing, place in unsettled:
            outgoing.settle(place, error)
        for future in (self._connack, *([self._suback] if self._suback else ())):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever still waits gets it; nobody has to


def _outcome(code: int) -> Outcome:
    """What a PUBACK's reason code, which is one of a failure, says about its message."""
    try:
        told = str(ReasonCode(PacketTypes.PUBACK, identifier=code))
    except KeyError:
        told = f"reason code {code}"
    if code in _POISON:
        return PoisonError(f"the broker refuses the message: {told}")
    return LinkDown(f"the broker cannot take the message now: {told}")

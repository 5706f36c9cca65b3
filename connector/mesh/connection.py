"""The connection to the mesh, kept up: `ports.Publisher` and `ports.Inbox` over one broker.

One link after the other (`link.py`), each with a fresh paho client; what lasts is the broker's session under our
fixed client id, so that commands sent while we are away wait there, and the queue of deliveries not handled yet.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog

from connector.errors import ConfigError, LinkDown, PoisonError
from connector.mesh.client import RECEIVE_MAXIMUM, LinkSettings
from connector.mesh.link import Link, Received
from connector.mesh.outgoing import Outgoing
from connector.mesh.roles import Role
from connector.mesh.topics import Topics
from connector.model.message import Delivery, Message
from connector.settings import MqttSettings, Secrets

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 10.0
BACKOFF_FIRST_S = 0.5
# A connection that lasted this long starts the back-off anew.
HEALTHY_AFTER_S = 10.0
# With so many deliveries waiting in memory (those of the present link and what earlier ones left unhandled) no more are
# read from the connection, until half of them are handled. One pass over the socket may go beyond it.
INBOX_LIMIT = 2 * RECEIVE_MAXIMUM
# QoS 0 is not bounded by the receive maximum: beyond this it is dropped, so that it never crowds out the rest.
INBOX_LIMIT_QOS0 = RECEIVE_MAXIMUM // 2
_LAST_MESSAGE_TIMEOUT_S = 2.0
# Where a broker tells what it is, if it does and lets us read it. Source: mosquitto(8), "BROKER STATUS".
_VERSION_TOPIC = "$SYS/broker/version"
_VERSION_CHARACTERS = 100
# What dialling, subscribing and the birth message may take beyond their own time-outs on a machine under load.
_PATIENCE_S = 60.0


class MeshConnection:
    """Publisher and inbox; `run` keeps it connected, leaving the context sends the offline message.

    Attributes:
        refused: Subscriptions and topics of our own that the broker does not allow us; empty if all is well.
        on_connected: Called after every connection is up, subscriptions and birth message included, with True if
            the broker had forgotten our session: then it may have forgotten retained messages too.
        on_disconnected: Called when a connection has ended.
    """

    def __init__(
        self,
        settings: MqttSettings,
        secrets: Secrets,
        role: Role,
        *,
        now_ms: Callable[[], int],
        rng: random.Random,
        backoff_max_s: float = 60.0,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._role = role
        self._now_ms = now_ms
        self._rng = rng
        self._backoff_max_s = backoff_max_s
        self._link: Link | None = None
        self._newest: Link | None = None  # it may bring deliveries before it is ready to publish
        self._dialer: ThreadPoolExecutor | None = None
        self._tls: ssl.SSLContext | None = None
        self._inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._up = asyncio.Event()
        self._since_ms: int | None = None
        self._tried_s = 0.0
        self.refused: tuple[str, ...] = ()
        self.on_connected: list[Callable[[bool], None]] = []
        self.on_disconnected: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """True while the broker takes messages."""
        return self._up.is_set()

    @property
    def since_ms(self) -> int | None:
        """Since when `connected` is as it is, milliseconds since the Unix epoch, UTC; None before the first try."""
        return self._since_ms

    def hangs(self) -> bool:
        """True if the connection neither lives nor is tried: nothing has moved for longer than either allows."""
        keepalive_s = self._settings.keepalive.total_seconds()
        heard_s = 0.0 if self._link is None else self._link.heard_s
        silent_s = asyncio.get_running_loop().time() - max(heard_s, self._tried_s)
        return silent_s > self._backoff_max_s + 2 * keepalive_s + 4 * CONNECT_TIMEOUT_S + _PATIENCE_S

    @property
    def max_payload_bytes(self) -> int:
        """A delivery longer than this is too large; it arrives cut to one byte more, so that it can be answered."""
        return self._role.max_payload_bytes

    async def __aenter__(self) -> Self:
        """Prepare; does not connect.

        Raises:
            ConfigError: `mqtt.ca_file` cannot be read.
        """
        self._stirs()
        self._tls = await asyncio.to_thread(tls_context, self._settings)
        self._dialer = ThreadPoolExecutor(1, thread_name_prefix="mesh-dial")
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        link, self._link = self._link, None
        self._set_up(up=False)
        if link is not None and not link.ended.is_set():
            try:
                async with asyncio.timeout(_LAST_MESSAGE_TIMEOUT_S):
                    await _publish(link, self._role.presence("offline", self._now_ms()))
            except (TimeoutError, LinkDown, PoisonError) as error:
                log.warning("mesh.offline_message_lost", error=str(error))
            await link.close()
        if self._dialer is not None:
            self._dialer.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Keep the connection up; does not end by itself.

        Raises:
            BrokerRefused: The broker refuses us for good (credentials, client id, protocol).
        """
        wait_s = BACKOFF_FIRST_S
        while True:
            self._stirs()
            try:
                if await self._once() >= HEALTHY_AFTER_S:
                    wait_s = BACKOFF_FIRST_S
            except LinkDown as error:
                log.warning("mesh.connect_failed", error=str(error), retry_in_s=round(wait_s, 1))
            self._stirs()
            await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, self._backoff_max_s)

    async def wait_connected(self) -> None:
        """Return once the broker takes messages."""
        await self._up.wait()

    async def publish(self, message: Message) -> None:
        """Publish; see `ports.Publisher`."""
        if self._link is None:
            raise LinkDown("not connected to the broker")
        await _publish(self._link, message)

    async def publish_all(
        self, messages: Sequence[Message], acknowledged: Callable[[int], None]
    ) -> Sequence[LinkDown | PoisonError | None]:
        """Publish; see `ports.BatchPublisher`."""
        if self._link is None:
            raise LinkDown("not connected to the broker")
        outgoing = Outgoing(messages, acknowledged)
        await self._link.publish(outgoing)
        return outgoing.outcomes

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield what was received; see `ports.Inbox`."""
        while True:
            delivery = await self._inbox.get()
            if self._inbox.qsize() <= INBOX_LIMIT // 2 and not self._room.is_set():
                self._room.set()
                if self._newest is not None:
                    self._newest.resume()
            yield delivery

    def acknowledge(self, delivery: Delivery) -> None:
        """Send the PUBACK; nothing happens if its connection has ended: the broker will deliver it again."""
        if isinstance(delivery.token, Received):
            delivery.token.link.acknowledge(delivery.token)

    async def _once(self) -> float:
        """Connect, stay until the link ends; answers how many seconds it was up."""
        # Every connection may bring another window of deliveries: first handle what the last ones left.
        await self._room.wait()
        link = await self._opened()
        began_s = asyncio.get_running_loop().time()
        self._link = link
        self._set_up(up=True)
        log.info("mesh.connected", session_present=link.session_present, tls=self._tls is not None)
        for connected in self.on_connected:
            connected(not link.session_present)
        await link.ended.wait()
        self._link = None
        self._set_up(up=False)
        log.warning("mesh.disconnected", reason=link.reason)
        for disconnected in self.on_disconnected:
            disconnected()
        return asyncio.get_running_loop().time() - began_s

    async def _opened(self) -> Link:
        if self._dialer is None:
            raise RuntimeError("used outside its context")
        link = self._newest = Link(self._link_settings(), self._received)
        await link.open(self._dialer)
        try:
            refused = list(await link.subscribe(self._role.filters))
            await self._birth(link, refused)
        except BaseException:
            link.drop("not ready")
            raise
        # Changes still go out: a person must act, but stopping would make it worse.
        self.refused = tuple(refused)
        if refused:
            log.error("mesh.access_refused", topics=refused)
        return link

    async def _birth(self, link: Link, refused: list[str]) -> None:
        birth = self._role.presence("online", self._now_ms())
        try:
            await _publish(link, birth)
        except PoisonError:
            refused.append(birth.topic)

    def _received(self, delivery: Delivery, qos: int) -> bool:
        waiting = self._inbox.qsize()
        if not qos and waiting >= INBOX_LIMIT_QOS0:
            log.warning("mesh.inbox_full", waiting=waiting, qos=qos)
            return waiting < INBOX_LIMIT
        self._inbox.put_nowait(delivery)
        if waiting >= INBOX_LIMIT // 2:
            self._room.clear()
        return waiting < INBOX_LIMIT

    def _stirs(self) -> None:
        self._tried_s = asyncio.get_running_loop().time()

    def _set_up(self, *, up: bool) -> None:
        if up:
            self._up.set()
        else:
            self._up.clear()
        self._since_ms = self._now_ms()

    def _link_settings(self) -> LinkSettings:
        return replace(
            link_settings(self._settings, self._secrets, self._role.client_id, self._tls),
            clean=not self._role.lasting,
            max_payload_bytes=self._role.max_payload_bytes,
            will=self._role.presence("offline", None),
        )


@dataclass(frozen=True, slots=True)
class Visit:
    """What a short visit to a broker has shown.

    Attributes:
        refused: Topics and filters of the daemon's that the broker refuses.
        version: What the broker says it is; None: nothing.
    """

    refused: Sequence[str] = ()
    version: str | None = None


async def probe(settings: MqttSettings, secrets: Secrets, client_id: str, *, topics: Topics | None = None) -> Visit:
    """Connect and leave again, without a session or a trace on the status topic.

    Args:
        settings: Name the broker.
        secrets: What opens it.
        client_id: Of this visit.
        topics: Try to subscribe to what the daemon takes, and to publish an empty reply that nobody asked for; the
            visit names what the broker refuses. None: only connect.

    Raises:
        LinkDown: The broker cannot be reached.
        BrokerRefused: It refuses us.
        ConfigError: `mqtt.ca_file` cannot be read.
    """
    tls = await asyncio.to_thread(tls_context, settings)
    dialer = ThreadPoolExecutor(1, thread_name_prefix="mesh-dial")
    try:
        told: list[str] = []

        def received(delivery: Delivery, _qos: int) -> bool:
            if delivery.topic == _VERSION_TOPIC:
                told.append(delivery.payload[:_VERSION_CHARACTERS].decode(errors="replace"))
            return True

        link = Link(link_settings(settings, secrets, client_id, tls), received)
        await link.open(dialer)
        refused = [] if topics is None else await _refused(link, topics)
        await link.close()
        return Visit(refused, told[0] if told else None)
    finally:
        dialer.shutdown(wait=False, cancel_futures=True)


async def _publish(link: Link, message: Message) -> None:
    outgoing = Outgoing([message])
    await link.publish(outgoing)
    if outgoing.outcomes[0] is not None:
        raise outgoing.outcomes[0]


async def _refused(link: Link, topics: Topics) -> list[str]:
    # What the broker retains there comes before its answer to the message below.
    await link.subscribe([_VERSION_TOPIC])
    refused = list(await link.subscribe(topics.subscriptions()))
    reply = Message(topic=topics.reply("doctor"), payload=b"")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _publish(link, reply)
    except PoisonError:
        refused.append(reply.topic)
    except TimeoutError as error:
        raise LinkDown("the broker did not acknowledge a message in time") from error
    return refused


def link_settings(settings: MqttSettings, secrets: Secrets, client_id: str, tls: ssl.SSLContext | None) -> LinkSettings:
    """Of a short visit: clean, without a will."""
    return LinkSettings(
        host=settings.host,
        port=settings.port,
        client_id=client_id,
        mqtt5=settings.protocol == "5",
        clean=True,
        keepalive_s=max(1, round(settings.keepalive.total_seconds())),
        connect_timeout_s=CONNECT_TIMEOUT_S,
        max_payload_bytes=int(settings.max_payload),
        username=secrets.mqtt_username or None,
        password=secrets.mqtt_password.get_secret_value() or None,
        tls=tls,
        will=None,
    )


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """The TLS settings, None without TLS; reads files.

    Raises:
        ConfigError: `mqtt.ca_file` cannot be read.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        raise ConfigError(f"mqtt.ca_file = {settings.ca_file!r}: {error}") from error
    context.sslsocket_class = _TidySocket
    return context


class _TidySocket(ssl.SSLSocket):
    """Closes itself where the handshake fails; paho would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, or close."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

"""The calls of the Pub/Sub API that a stream needs, over a connection of their own, with our errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import grpc

from connector.errors import LinkDown
from connector.eventbus.pubsub_api_pb2 import (
    FetchRequest,
    FetchResponse,
    ReplayPreset,
    SchemaRequest,
    TopicRequest,
)
from connector.eventbus.pubsub_api_pb2_grpc import PubSubStub
from connector.model.change import OLDEST_KEPT, ReplayId
from connector.salesforce.login_answers import Token
from connector.salesforce.pubsub_errors import of_rpc, reaction

T = TypeVar("T")

_MAX_RESPONSE_BYTES = 16 * 1024 * 1024
# The headers of a refusal come just before the refusal.
_REFUSAL_FOLLOWS_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class PubSubLimits:
    """Times and sizes of a session.

    Attributes:
        window: Events asked for and not yet applied, at most, but for a transaction that has more. The org takes no
            more than 100.
        hold_s: Within this time the org sends something, be it empty.
        margin_s: On top of it, before silence is taken for a dead connection.
        ping_s: The connection is asked whether it lives, so often and so long.
        request_s: Of every unary call.
        settle_s: A subscription that has neither been refused nor answered for so long stands.
        reached_every_s: Positions without an event are told at most so often.
        healthy_s: A session that lasted so long may be followed by the next at once.
    """

    window: int = 100
    hold_s: float = 270.0
    margin_s: float = 30.0
    ping_s: float = 60.0
    request_s: float = 30.0
    settle_s: float = 3.0
    reached_every_s: float = 60.0
    healthy_s: float = 30.0


class PubSubCalls:
    """One connection, with one token; `async with` opens and closes it, in bounded time.

    Raises, from every method:
        ConnectorError: As `pubsub_errors` tells.
    """

    def __init__(self, url: str, token: Token, limits: PubSubLimits) -> None:
        self._limits = limits
        parts = urlsplit(url)
        target = f"{parts.hostname}:{parts.port or 443}"
        options = _options(limits)
        # Plain text is for the local org: the settings allow it for this machine alone.
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if parts.scheme == "http"
            else grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
        )
        self._stub = PubSubStub(self._channel)
        self._metadata = (
            ("accesstoken", token.value),
            ("instanceurl", token.instance_url),
            ("tenantid", token.org_id),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def may_subscribe(self, topic: str) -> bool:
        """Whether the user may subscribe to the topic."""
        request = TopicRequest(topic_name=topic)
        info = await _told(self._stub.GetTopic(request, timeout=self._limits.request_s, metadata=self._metadata))
        return info.can_subscribe

    async def schema(self, schema_id: str) -> str:
        """The Avro schema with that id, as JSON text."""
        request = SchemaRequest(schema_id=schema_id)
        info = await _told(self._stub.GetSchema(request, timeout=self._limits.request_s, metadata=self._metadata))
        return info.schema_json

    @asynccontextmanager
    async def subscribe(self, topic: str, after: ReplayId | None) -> "AsyncIterator[Fetching]":
        """A subscription that stands: the org has answered, or not refused it for a while."""
        fetching = Fetching(self._stub.Subscribe(metadata=self._metadata), self._limits)
        await fetching.begin(topic, after)
        asking = asyncio.create_task(fetching.keep_asking(), name="source.ask")
        try:
            yield fetching
        finally:
            asking.cancel()
            await asyncio.wait((asking,))


class Fetching:
    """One Subscribe call."""

    def __init__(self, call: Any, limits: PubSubLimits) -> None:
        self._call = call
        self._limits = limits
        self._ahead: asyncio.Future[Any] | None = None
        self._credit = limits.window  # events that the org may still send
        self._unasked = 0  # of them
        self._asking = asyncio.Event()

    @property
    def exhausted(self) -> bool:
        """True while the org may send nothing until more is asked for."""
        return self._credit <= 0

    async def begin(self, topic: str, after: ReplayId | None) -> None:
        """Ask for the first events."""
        if after is None:
            place = FetchRequest(replay_preset=ReplayPreset.LATEST)
        elif after == OLDEST_KEPT:
            place = FetchRequest(replay_preset=ReplayPreset.EARLIEST)
        else:
            place = FetchRequest(replay_preset=ReplayPreset.CUSTOM, replay_id=after)
        place.topic_name, place.num_requested = topic, self._limits.window
        await self._send(place)
        self._ahead = asyncio.ensure_future(self._read())
        headers = asyncio.ensure_future(self._call.initial_metadata())
        try:
            await asyncio.wait((self._ahead, headers), timeout=self._limits.settle_s, return_when="FIRST_COMPLETED")
            await asyncio.wait((self._ahead,), timeout=_REFUSAL_FOLLOWS_S)
        finally:
            headers.cancel()
        if self._ahead.done():
            self._ahead.result()

    def more(self, events: int) -> None:
        """Ask for so many more events, soon."""
        self._credit += events
        self._unasked += events
        self._asking.set()

    async def keep_asking(self) -> None:
        """Send what is asked for; does not end by itself."""
        while True:
            await self._asking.wait()
            self._asking.clear()
            count, self._unasked = self._unasked, 0
            await self._send(FetchRequest(num_requested=count))

    async def next(self) -> FetchResponse:
        """The next response, empty or not.

        Raises:
            ConnectorError: The stream ended, or nothing came for longer than the org may take.
        """
        ahead, self._ahead = self._ahead, None
        try:
            async with asyncio.timeout(self._limits.hold_s + self._limits.margin_s):
                return await (ahead or self._read())
        except TimeoutError:
            raise LinkDown("the stream fell silent") from None

    async def _read(self) -> FetchResponse:
        response = await _told(self._call.read())
        if not isinstance(response, FetchResponse):
            raise LinkDown("the org ended the stream")
        self._credit -= len(response.events)
        return response

    async def _send(self, request: FetchRequest) -> None:
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call is over; why is told by what is read next.
            return


async def _told(answer: Awaitable[T]) -> T:
    """What an RPC answers.

    Raises:
        ConnectorError: It failed.
    """
    try:
        return await answer
    except grpc.aio.AioRpcError as error:
        raise of_rpc(error) from error
    except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
        raise reaction(grpc.StatusCode.UNAVAILABLE, "", "the call is over") from error


def _options(limits: PubSubLimits) -> list[tuple[str, int]]:
    ping_ms = round(limits.ping_s * 1000)
    return [
        ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
        ("grpc.keepalive_time_ms", ping_ms),
        ("grpc.keepalive_timeout_ms", ping_ms),
        # The other one alone does not end a connection that has a minute of its own for every ping.
        ("grpc.http2.ping_timeout_ms", ping_ms),
        ("grpc.http2.max_pings_without_data", 0),
        # Every session connects anew and by itself: nothing is left of the last one's failures.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        # As every other request: a proxy of the environment is not asked.
        ("grpc.enable_http_proxy", 0),
    ]

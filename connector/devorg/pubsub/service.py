"""The RPCs of the Pub/Sub API that a subscriber needs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import orjson

from connector.devorg.context import Context
from connector.devorg.events.avro_writer import EventWriter
from connector.devorg.events.channels import Channel, channel_named
from connector.devorg.pubsub.access import admit
from connector.devorg.pubsub.refusals import (
    DELIVERIES_SPENT,
    SCHEMA_INVALID,
    TOO_MANY_CLIENTS,
    TOPIC_EMPTY,
    TOPIC_UNKNOWN,
    Refused,
)
from connector.devorg.pubsub.strikes import Ended, Strike
from connector.devorg.pubsub.subscription import Subscription
from connector.eventbus.pubsub_api_pb2 import (
    FetchRequest,
    FetchResponse,
    SchemaInfo,
    SchemaRequest,
    TopicInfo,
    TopicRequest,
)

T = TypeVar("T")
Call = Any
"""`grpc.aio.ServicerContext`, whose published types know no call without request and response types."""

SERVICE = "eventbus.v1.PubSub"


class PubSubService:
    """GetTopic, GetSchema and Subscribe; publishing and managed subscriptions are UNIMPLEMENTED.

    Change event topics cannot be published, so that nothing is missing for them.

    Source: the published pubsub_api.proto; Pub/Sub API Developer Guide.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._strike = Strike(context.faults)
        self._writers: dict[str, EventWriter] = {}
        self._streams = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        """The RPCs by their names; gRPC answers the others."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetTopic": grpc.unary_unary_rpc_method_handler(
                    self.get_topic, TopicRequest.FromString, TopicInfo.SerializeToString
                ),
                "GetSchema": grpc.unary_unary_rpc_method_handler(
                    self.get_schema, SchemaRequest.FromString, SchemaInfo.SerializeToString
                ),
                "Subscribe": grpc.stream_stream_rpc_method_handler(
                    self.subscribe, FetchRequest.FromString, FetchResponse.SerializeToString
                ),
            },
        )

    async def get_topic(self, request: TopicRequest, context: Call) -> TopicInfo:
        """What a topic is."""

        async def answer() -> TopicInfo:
            await self._admit(context, "pubsub:topic", request.topic_name)
            channel = self._topic(request.topic_name)
            entities = channel.entities or ()
            return TopicInfo(
                topic_name=channel.name,
                tenant_guid=self._context.tokens.org_id,
                can_publish=False,
                can_subscribe=True,
                # Of several objects there is no one schema.
                schema_id=self._context.bus.schemas.current(entities[0]) if len(entities) == 1 else "",
            )

        return await _answered(context, answer)

    async def get_schema(self, request: SchemaRequest, context: Call) -> SchemaInfo:
        """The schema with an id."""

        async def answer() -> SchemaInfo:
            await self._admit(context, "pubsub:schema", request.schema_id)
            body = self._context.bus.schemas.body(request.schema_id)
            if body is None:
                raise Refused(SCHEMA_INVALID, "The schema id is not one of the org's.")
            return SchemaInfo(schema_json=body, schema_id=request.schema_id)

        return await _answered(context, answer)

    async def subscribe(self, requests: AsyncIterator[FetchRequest], context: Call) -> AsyncIterator[FetchResponse]:
        """Events of a topic."""
        self._streams += 1
        try:
            async for response in self._subscribed(requests, context):
                yield response
        except Refused as refused:
            await refused.abort(context)
        except Ended:
            return
        finally:
            self._streams -= 1

    async def _subscribed(self, requests: AsyncIterator[FetchRequest], context: Call) -> AsyncIterator[FetchResponse]:
        first = await self._first(requests)
        token = await self._admit(context, "pubsub:subscribe", first.topic_name)
        settings, usage = self._context.settings, self._context.usage
        if self._streams > settings.max_pubsub_streams:
            raise Refused(TOO_MANY_CLIENTS, "The maximum number of concurrent clients has been exceeded.")
        if usage.delivered.used() >= settings.delivered_event_limit:
            raise Refused(DELIVERIES_SPENT, "You have exceeded the event delivery limit for your org.")
        channel = self._topic(first.topic_name)
        subscription = Subscription(self._context, channel, token, self._writer, self._strike)
        subscription.start(first)
        if settings.pubsub_early_headers:
            await context.send_initial_metadata(())
        reading = asyncio.create_task(subscription.read(requests), name="devorg.pubsub.read")
        try:
            async for response in subscription.responses():
                yield response
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _first(self, requests: AsyncIterator[FetchRequest]) -> FetchRequest:
        """The request that opens a stream; a stream without one is ended like an idle one."""
        try:
            async with asyncio.timeout(self._context.settings.pubsub_idle_s):
                return await anext(aiter(requests))
        except (TimeoutError, StopAsyncIteration):
            raise Ended from None

    async def _admit(self, context: Call, kind: str, path: str) -> str:
        """The caller's token, once no fault stands in the way."""
        await self._strike.before("pubsub", kind, path=path)
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        return admit(self._context, metadata)

    def _topic(self, name: str) -> Channel:
        if not name:
            raise Refused(TOPIC_EMPTY, "The topic name is blank.")
        bus = self._context.bus
        channel = channel_named(name, self._context.schema, bus.custom_channels, bus.channel_filters)
        if channel is None:
            raise Refused(TOPIC_UNKNOWN, f"The topic does not exist: {name}")
        return channel

    def _writer(self, schema_id: str) -> EventWriter | None:
        """The writer of a schema; at most one per schema that events were ever logged with."""
        if schema_id not in self._writers:
            body = self._context.bus.schemas.body(schema_id)
            if body is None:
                return None
            self._writers[schema_id] = EventWriter(orjson.loads(body))
        return self._writers[schema_id]


async def _answered(context: Call, answer: Callable[[], Awaitable[T]]) -> T:
    """The answer of a unary RPC, or its error."""
    try:
        return await answer()
    except Refused as refused:
        await refused.abort(context)
    except Ended:
        await context.abort(grpc.StatusCode.CANCELLED, "As ordered.")
        raise

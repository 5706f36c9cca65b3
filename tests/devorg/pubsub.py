"""A Pub/Sub subscriber spoken by hand: the published stub, and Avro read by the schema that the org serves."""

import asyncio
import json
from collections.abc import Sequence
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import fastavro
import grpc
import pytest

from connector.devorg.server import DevOrg
from connector.eventbus.pubsub_api_pb2 import (
    ConsumerEvent,
    FetchRequest,
    FetchResponse,
    ReplayPreset,
    SchemaRequest,
    TopicInfo,
    TopicRequest,
)
from connector.eventbus.pubsub_api_pb2_grpc import PubSubStub

ALL = "/data/ChangeEvents"
PATIENCE_S = 10


class PubSubClient:
    """One connection to the org's Pub/Sub API."""

    def __init__(self, org: DevOrg) -> None:
        self._channel = grpc.aio.insecure_channel(
            org.ctx.pubsub_url.removeprefix("http://"), [("grpc.use_local_subchannel_pool", 1)]
        )
        self.stub = PubSubStub(self._channel)
        self.metadata = {
            "accesstoken": org.ctx.tokens.default_access_token,
            "instanceurl": org.url,
            "tenantid": org.ctx.tokens.org_id,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    def sent(self, **metadata: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a call, with changes."""
        return tuple((self.metadata | metadata).items())

    async def topic(self, name: str, **metadata: str) -> TopicInfo:
        return await self.stub.GetTopic(
            TopicRequest(topic_name=name), timeout=PATIENCE_S, metadata=self.sent(**metadata)
        )

    async def schema(self, schema_id: str) -> dict[str, Any]:
        request = SchemaRequest(schema_id=schema_id)
        info = await self.stub.GetSchema(request, timeout=PATIENCE_S, metadata=self.sent())
        assert info.schema_id == schema_id
        schema: dict[str, Any] = json.loads(info.schema_json)
        return schema

    async def read(self, event: ConsumerEvent) -> dict[str, Any]:
        """The members of an event that are not null."""
        schema = fastavro.parse_schema(await self.schema(event.event.schema_id))
        found = fastavro.schemaless_reader(BytesIO(event.event.payload), schema, None)
        assert isinstance(found, dict)
        return {name: value for name, value in found.items() if value is not None}

    async def subscribe(self, topic: str = ALL, count: int = 100, **place: Any) -> "Fetch":
        """A subscription that stands."""
        fetch = Fetch(self.stub.Subscribe(metadata=self.sent()))
        await fetch.ask(count, topic_name=topic, **place)
        async with asyncio.timeout(PATIENCE_S):
            await fetch.call.initial_metadata()
        return fetch

    async def behind(self, replay_id: bytes, topic: str = ALL, count: int = 100) -> "Fetch":
        """A subscription behind a position."""
        return await self.subscribe(topic, count, replay_preset=ReplayPreset.CUSTOM, replay_id=replay_id)


class Fetch:
    """One Subscribe call."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def ask(self, count: int, **members: Any) -> None:
        await self.call.write(FetchRequest(num_requested=count, **members))

    async def response(self) -> FetchResponse:
        async with asyncio.timeout(PATIENCE_S):
            answer = await self.call.read()
        assert isinstance(answer, FetchResponse), "the stream has ended"
        return answer

    async def events(self, count: int) -> Sequence[ConsumerEvent]:
        """So many events, of as many responses as it takes."""
        found: list[ConsumerEvent] = []
        while len(found) < count:
            found += (await self.response()).events
        return found

    async def ended(self) -> bool:
        """True where the stream ends without an error."""
        async with asyncio.timeout(PATIENCE_S):
            answer: object = await self.call.read()
        return answer is grpc.aio.EOF


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and code, without what all codes begin with, of an RPC that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await call
    error = caught.value
    trailers = dict(error.trailing_metadata() or ())
    assert trailers["rpc-id"] in (error.details() or "")
    return error.code(), str(trailers["error-code"]).removeprefix("sfdc.platform.eventbus.grpc.")

"""The same feed over the Pub/Sub API: responses put together from events that are Avro already.

`python -m tests.bench.feed_pubsub --org URL --port P --pubsub-port Q` takes the orders of `feed.py` at P and is the
Pub/Sub API at Q. Schema and flow control are as documented: no more events are sent than were asked for.

Source: Pub/Sub API Developer Guide, "Subscribe RPC Method", "Pull Subscription and Flow Control".
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import fastavro
import grpc
import orjson
from aiohttp import web

from connector.eventbus.pubsub_api_pb2 import (
    ConsumerEvent,
    FetchRequest,
    FetchResponse,
    ProducerEvent,
    ReplayPreset,
    SchemaInfo,
    SchemaRequest,
    TopicInfo,
    TopicRequest,
)
from tests.bench.feed import EVENTS_PER_ANSWER, FIRST_REPLAY_ID, SCHEMA_ID, Feed, payload_of, serve

_TEXTS = {"type": "array", "items": "string"}
_TYPES = ["CREATE", "UPDATE", "DELETE", "UNDELETE"]
_HEADER: list[tuple[str, Any]] = [
    ("entityName", "string"),
    ("recordIds", _TEXTS),
    ("changeType", {"type": "enum", "name": "ChangeType", "symbols": _TYPES}),
    ("changeOrigin", "string"),
    ("transactionKey", "string"),
    ("sequenceNumber", "int"),
    ("commitTimestamp", "long"),
    ("commitNumber", "long"),
    ("commitUser", "string"),
    ("nulledFields", _TEXTS),
    ("diffFields", _TEXTS),
    ("changedFields", _TEXTS),
]
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "ContactChangeEvent",
    "namespace": "com.sforce.eventbus",
    "fields": [
        {
            "name": "ChangeEventHeader",
            "type": {
                "type": "record",
                "name": "ChangeEventHeader",
                "fields": [{"name": name, "type": kind} for name, kind in _HEADER],
            },
        },
        {"name": "Phone", "type": ["null", "string"], "default": None},
        {"name": "LastModifiedDate", "type": ["null", "long"], "default": None},
    ],
}
_BOTH_FIELDS = "0x06"
_PARSED = fastavro.parse_schema(SCHEMA)


class PubSubFeed(Feed):
    """Events made and not sent, the log of those that may be sent, and one subscriber that reads it."""

    _credit = 0

    def event(self, number: int, record_id: str) -> bytes:
        """A ConsumerEvent with the position behind it."""
        payload = payload_of(number, record_id)
        payload["ChangeEventHeader"]["changedFields"] = [_BOTH_FIELDS]
        payload["LastModifiedDate"] = payload["ChangeEventHeader"]["commitTimestamp"] // 1000 * 1000
        out = BytesIO()
        fastavro.schemaless_writer(out, _PARSED, payload)
        produced = ProducerEvent(id=str(number), schema_id=SCHEMA_ID, payload=out.getvalue())
        replay_id = (FIRST_REPLAY_ID + number).to_bytes(8)
        return ConsumerEvent(event=produced, replay_id=replay_id).SerializeToString()

    def handlers(self) -> grpc.GenericRpcHandler:
        """GetTopic, GetSchema, Subscribe."""
        return grpc.method_handlers_generic_handler(
            "eventbus.v1.PubSub",
            {
                "GetTopic": grpc.unary_unary_rpc_method_handler(
                    _topic, TopicRequest.FromString, TopicInfo.SerializeToString
                ),
                "GetSchema": grpc.unary_unary_rpc_method_handler(
                    _schema, SchemaRequest.FromString, SchemaInfo.SerializeToString
                ),
                "Subscribe": grpc.stream_stream_rpc_method_handler(self._subscribe, FetchRequest.FromString, None),
            },
        )

    async def _subscribe(self, requests: AsyncIterator[FetchRequest], context: Any) -> AsyncIterator[bytes]:
        first = await anext(aiter(requests))
        custom = first.replay_preset == ReplayPreset.CUSTOM
        self._at = int.from_bytes(first.replay_id) - FIRST_REPLAY_ID + 1 if custom else len(self._log)
        self._credit = first.num_requested
        await context.send_initial_metadata(())
        reading = asyncio.create_task(self._read(requests))
        try:
            while True:
                while not self._credit or self._at >= len(self._log):
                    self._more.clear()
                    await self._more.wait()
                yield self._response()
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[FetchRequest]) -> None:
        async for request in requests:
            self._credit += request.num_requested
            self._more.set()

    def _response(self) -> bytes:
        """A FetchResponse of events that are bytes already: field 1, length-delimited, once for each."""
        events = self._take(min(self._credit, EVENTS_PER_ANSWER))
        self._credit -= len(events)
        told = FetchResponse(latest_replay_id=b"", rpc_id="feed", pending_num_requested=self._credit)
        return b"".join(b"\x0a" + _varint(len(event)) + event for event in events) + told.SerializeToString()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def _topic(request: TopicRequest, _context: Any) -> TopicInfo:
    return TopicInfo(topic_name=request.topic_name, can_subscribe=True)


async def _schema(request: SchemaRequest, _context: Any) -> SchemaInfo:
    return SchemaInfo(schema_id=request.schema_id, schema_json=orjson.dumps(SCHEMA).decode())


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org", required=True, help="address of the local org")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pubsub-port", type=int, required=True)
    given = parser.parse_args()
    feed = PubSubFeed()

    async def beside(_app: web.Application) -> AsyncIterator[None]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((feed.handlers(),))
        server.add_insecure_port(f"127.0.0.1:{given.pubsub_port}")
        await server.start()
        yield
        await server.stop(None)

    serve(feed, given.org, given.port, beside=beside)


if __name__ == "__main__":
    main()

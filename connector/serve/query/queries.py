"""Takes queries from the mesh and publishes their answers: so many at once, so many waiting, each with a time limit."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import structlog

from connector.errors import (
    ConnectorError,
    LinkDown,
    PoisonError,
    QueryTooSlow,
    StoreFull,
    StoreUnusable,
    TransientError,
)
from connector.model.change import Change
from connector.model.message import Delivery, Message
from connector.ports import Publisher, Reader, Snapshot
from connector.serve.query.answer import Freshness, Question, answer
from connector.serve.query.payload import validated
from connector.serve.request import Asker, Refused, ReplyRules, asker_of, parsed

log = structlog.get_logger()

# Queries answered at once. More would only take turns at the same processors.
WORKERS = 4
MAX_WAITING = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRules:
    """What of the settings concerns queries.

    Attributes:
        max_page: Records in a reply at most.
        timeout_s: Of one query, from when its turn comes.
    """

    max_page: int
    timeout_s: float
    max_payload_bytes: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    object: str
    asker: Asker
    fields: Mapping[str, Any]
    problem: str | None


class Queries:
    """Handles query messages. They are acknowledged when they wait their turn: whoever gets no reply asks again."""

    def __init__(
        self,
        *,
        reader: Reader,
        publisher: Publisher,
        addresses: ReplyRules,
        change_data: Callable[[Change], Mapping[str, Any]],
        freshness: Callable[[str], Freshness],
        loaded: Callable[[Snapshot, str], str | None],
        rules: QueryRules,
        now_ms: Callable[[], int],
    ) -> None:
        """`freshness` tells how far an object, or `_all`, can be trusted now, `loaded` which load its rows are of."""
        self._reader = reader
        self._publisher = publisher
        self._addresses = addresses
        self._change_data = change_data
        self._freshness = freshness
        self._loaded = loaded
        self._rules = rules
        self._now_ms = now_ms
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)

    async def handle(self, object_name: str, verb: str, delivery: Delivery) -> None:
        """Let one query wait its turn; where too many wait, answer that.

        Raises:
            PoisonError: The reply address must not be used, or there is none: report the message as rejected.
        """
        fields, problem = parsed(delivery.payload, self._rules.max_payload_bytes)
        one = _Waiting(object_name, asker_of(verb, delivery, fields, self._addresses, None), fields, problem)
        if self._waiting.full():
            await self._reply(one, _refusal(one, "busy", f"{MAX_WAITING} queries are waiting already; ask again later"))
        else:
            self._waiting.put_nowait(one)

    async def run(self) -> None:
        """Answer until cancelled.

        Raises:
            StoreUnusable, StoreFull: The replica cannot be read.
        """
        try:
            async with asyncio.TaskGroup() as workers:
                for number in range(WORKERS):
                    workers.create_task(self._work(), name=f"query.{number}")
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _work(self) -> None:
        while True:
            one = await self._waiting.get()
            await self._reply(one, await self._answered(one))

    async def _answered(self, one: _Waiting) -> bytes:
        try:
            return await self._answer(one)
        except Refused as refused:
            return _refusal(one, refused.code, str(refused))
        except QueryTooSlow as error:
            return _refusal(one, "timed_out", str(error))
        except (StoreUnusable, StoreFull):
            raise
        except TransientError as error:
            return _refusal(one, "unavailable", str(error))
        except ConnectorError as error:
            # A statement that SQLite refuses is a fault of ours, but one of this query alone.
            log.error("query.failed", verb=one.asker.verb, object=one.object, error=str(error))  # noqa: TRY400 - the reason says it all
        except Exception:
            log.exception("query.failed", verb=one.asker.verb, object=one.object)
        return _refusal(one, "failed", "the connector failed to answer this query")

    async def _answer(self, one: _Waiting) -> bytes:
        asked = Question(
            object=one.object,
            verb=one.asker.verb,
            payload=validated(one.asker.verb, one.fields, one.problem),
            correlation=one.asker.correlation,
            max_page=self._rules.max_page,
            freshness=self._freshness(one.object),
            change_data=self._change_data,
            loaded=self._loaded,
        )
        return await self._reader.read(
            partial(answer, asked=asked, now_ms=self._now_ms()), timeout_s=self._rules.timeout_s
        )

    async def _reply(self, one: _Waiting, payload: bytes) -> None:
        message = Message(topic=one.asker.topic, payload=payload, correlation=one.asker.correlation_data)
        try:
            await self._publisher.publish(message)
        except (LinkDown, PoisonError) as error:
            log.warning("query.reply_lost", verb=one.asker.verb, bytes=len(payload), error=str(error))


def _refusal(one: _Waiting, code: str, message: str) -> bytes:
    log.info("query.refused", verb=one.asker.verb, object=one.object, code=code)
    return orjson.dumps(
        {
            "ok": False,
            "object": one.object,
            "verb": one.asker.verb,
            "error": {"code": code, "message": message},
            "correlation": one.asker.correlation,
        }
    )

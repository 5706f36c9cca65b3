"""Questions to the connector over the mesh, each with its answer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson
import structlog

from connector.errors import LinkDown, PoisonError, TransientError
from connector.mirror.messages import Refusal, Reply, answer, document
from connector.model.message import Message
from connector.ports import Publisher

log = structlog.get_logger()

ANSWER_TIMEOUT_S = 15.0
_ASK_AGAIN = frozenset({"busy", "unavailable", "timed_out"})


class Addresses(Protocol):
    """Where questions go."""

    def query(self, object_name: str, verb: str) -> str:
        """A query."""
        ...


class Refused(PoisonError):
    """The connector does not answer this question.

    Attributes:
        code: As in the reply.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Questions:
    """Asks; `take` gets what arrives on the reply address.

    Address and correlation stand in the payload: MQTT 5 properties may be lost on the way over a bridge.
    """

    def __init__(self, publisher: Publisher, addresses: Addresses, inbox: str, now_ms: Callable[[], int]) -> None:
        """`inbox`: the reply address, which is ours alone."""
        self._publisher = publisher
        self._addresses = addresses
        self._inbox = inbox
        # What an earlier process was answered late is not ours.
        self._prefix = f"{now_ms()}-"
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    def take(self, payload: bytes) -> None:
        """A reply came; one that nobody waits for is dropped."""
        try:
            told = document(payload)
        except PoisonError as error:
            log.warning("mirror.reply_unreadable", bytes=len(payload), error=str(error))
            return
        waiting = self._waiting.get(str(told.get("correlation")))
        if waiting is not None and not waiting.done():
            waiting.set_result(told)

    def give_up(self, reason: str) -> None:
        """What was asked will not be answered any more."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LinkDown(f"no answer: {reason}"))

    async def ask(self, object_name: str, verb: str, query: Mapping[str, Any]) -> Reply:
        """The connector's answer.

        Raises:
            Refused: It says no.
            TransientError: Nobody answered, or not now.
            PoisonError: What was answered cannot be read.
        """
        self._asked += 1
        correlation = f"{self._prefix}{self._asked}"
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = waiting
        payload = orjson.dumps({**query, "reply_to": self._inbox, "correlation": correlation})
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._publisher.publish(Message(topic=self._addresses.query(object_name, verb), payload=payload))
                told = await waiting
        except TimeoutError:
            raise TransientError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s: does the connector run?") from None
        finally:
            del self._waiting[correlation]
        found = answer(told)
        if isinstance(found, Refusal):
            problem = found.error
            if problem.code in _ASK_AGAIN:
                raise TransientError(f"{problem.code}: {problem.message}")
            raise Refused(problem.code, problem.message)
        return found

"""Control messages: `{root}/control/{verb}` in, replies out; section 5 of the interface.

Replies go through the outbox, so that they survive a broken link. `sync` and `verify` run one after the other in
`run`; a restart between `started` and `done` leaves a request without its `done`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connector.errors import PoisonError, TransientError
from connector.model.message import Delivery, Message

log = structlog.get_logger()

MAX_WAITING = 16


class ReplyTopics(Protocol):
    """Where replies go."""

    def reply(self, verb: str) -> str:
        """For a message that named no reply address."""
        ...

    def reply_problem(self, address: str) -> str | None:
        """Why a reply address must not be used, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What control messages set off. A PoisonError or TransientError becomes an error reply with its text.

    Attributes:
        objects: Names of the synced objects now.
        sync: Catch up now (None: every object); answers the reply's data when it is done.
        status: The health document.
        command: The stored result of a command, or None.
        verify: Compare with the org and repair; None: not available.
        schema: JSON Schemas of messages and objects; None: not available.
    """

    objects: Callable[[], Collection[str]]
    sync: Callable[[Sequence[str] | None], Awaitable[Mapping[str, Any]]]
    pause: Callable[[], Awaitable[None]]
    resume: Callable[[], Awaitable[None]]
    status: Callable[[], Awaitable[Mapping[str, Any]]]
    command: Callable[[str], Awaitable[Mapping[str, Any] | None]]
    verify: Callable[[Sequence[str] | None], Awaitable[Mapping[str, Any]]] | None = None
    schema: Callable[[], Awaitable[Mapping[str, Any]]] | None = None


class _Request(BaseModel):
    """What every control message may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reply_to: str | None = None
    correlation: str | None = Field(None, max_length=1024)


class _ObjectsRequest(_Request):
    objects: list[str] | None = Field(None, min_length=1, max_length=1000)


class _CommandRequest(_Request):
    command_id: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")


_REQUESTS: Mapping[str, type[_Request]] = {
    "sync": _ObjectsRequest,
    "verify": _ObjectsRequest,
    "pause": _Request,
    "resume": _Request,
    "status": _Request,
    "command": _CommandRequest,
    "schema": _Request,
}


@dataclass(frozen=True, slots=True)
class _Asker:
    """Where a reply goes and what it carries."""

    verb: str
    topic: str
    correlation: str | None = None
    correlation_data: bytes | None = None


class _Refused(Exception):
    """The request cannot be served; the reply says so."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Job:
    """Long work, with the asker of its `done`; None for a signal's."""

    verb: str
    work: Callable[[], Awaitable[Mapping[str, Any]]]
    asker: _Asker | None


class Control:
    """Handles control messages; one at a time, in order."""

    def __init__(
        self,
        topics: ReplyTopics,
        actions: Actions,
        *,
        send: Callable[[Message], Awaitable[None]],
        max_payload_bytes: int,
    ) -> None:
        """`send` returns once the message is on disk."""
        self._topics = topics
        self._actions = actions
        self._send = send
        self._max_payload_bytes = max_payload_bytes
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(MAX_WAITING)

    async def handle(self, verb: str, delivery: Delivery) -> None:
        """Serve one message; returns once its reply is on disk.

        Raises:
            PoisonError: The reply address must not be used: report the message as rejected.
            StoreBusy, StoreFull, StoreUnusable: The reply is not on disk.
        """
        fields, problem = _parsed(delivery.payload, self._max_payload_bytes)
        asker = self._asker(verb, delivery, fields)
        try:
            await self._serve(asker, _validated(verb, fields, problem))
        except _Refused as refused:
            log.info("control.refused", verb=verb[:40], code=refused.code)
            await self._reply_error(asker, refused.code, str(refused))

    async def sync_signalled(self) -> None:
        """A signal asked for a catch-up: nobody to reply to."""
        if self._jobs.full():
            log.info("control.signal_ignored", waiting=self._jobs.qsize())
            return
        await self._jobs.put(_Job("sync", partial(self._actions.sync, None), None))

    async def run(self) -> None:
        """Do the long work, one after the other, until cancelled."""
        while True:
            job = await self._jobs.get()
            try:
                data = await job.work()
            except (TransientError, PoisonError) as error:
                log.warning("control.work_failed", verb=job.verb, error=str(error))
                if job.asker is not None:
                    await self._reply_error(job.asker, _code(error), str(error))
            else:
                if job.asker is not None:
                    await self._reply(job.asker, "done", data)

    async def _serve(self, asker: _Asker, request: _Request) -> None:
        if asker.verb in ("sync", "verify"):
            await self._serve_long(asker, request)
            return
        try:
            data = await self._act(asker.verb, request)
        except PoisonError as error:
            raise _Refused("failed", str(error)) from error
        await self._reply(asker, "done", data)

    async def _act(self, verb: str, request: _Request) -> Mapping[str, Any]:
        match verb:
            case "pause":
                await self._actions.pause()
            case "resume":
                await self._actions.resume()
            case "status":
                return await self._actions.status()
            case "command" if isinstance(request, _CommandRequest):
                result = await self._actions.command(request.command_id)
                if result is None:
                    raise _Refused("unknown_command", f"no command {request.command_id} is stored")
                return result
            case _ if self._actions.schema is not None:
                return await self._actions.schema()
            case _:
                raise _Refused("not_available", f"{verb} is not available in this version")
        return {}

    async def _serve_long(self, asker: _Asker, request: _Request) -> None:
        action = self._actions.sync if asker.verb == "sync" else self._actions.verify
        if action is None:
            raise _Refused("not_available", f"{asker.verb} is not available in this version")
        objects = request.objects if isinstance(request, _ObjectsRequest) else None
        unknown = sorted(set(objects or ()) - set(self._actions.objects()))
        if unknown:
            raise _Refused("unknown_object", f"not synced: {', '.join(name[:80] for name in unknown[:20])}")
        if self._jobs.full():
            raise _Refused("busy", f"{MAX_WAITING} requests are waiting already")
        # Answered first: if the answer cannot be stored the message comes again, and must not start the work twice.
        await self._reply(asker, "started", {})
        await self._jobs.put(_Job(asker.verb, partial(action, objects), asker))

    def _asker(self, verb: str, delivery: Delivery, fields: Mapping[str, Any]) -> _Asker:
        named, told = fields.get("reply_to"), fields.get("correlation")
        address = delivery.response_topic or (named if isinstance(named, str) else None)
        if address is not None:
            problem = self._topics.reply_problem(address)
            if problem is not None:
                raise PoisonError(problem)
        correlation = told if isinstance(told, str) else None
        if delivery.correlation is not None:
            correlation = delivery.correlation.decode("utf-8", "replace")
        return _Asker(verb, address or self._topics.reply(verb), correlation, delivery.correlation)

    async def _reply(self, asker: _Asker, state: str, data: Mapping[str, Any]) -> None:
        await self._answer(
            asker, {"ok": True, "verb": asker.verb, "state": state, "data": data, "correlation": asker.correlation}
        )

    async def _reply_error(self, asker: _Asker, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        await self._answer(asker, {"ok": False, "verb": asker.verb, "error": error, "correlation": asker.correlation})

    async def _answer(self, asker: _Asker, document: Mapping[str, Any]) -> None:
        payload = orjson.dumps(document)
        await self._send(Message(topic=asker.topic, payload=payload, correlation=asker.correlation_data))


def _parsed(payload: bytes, max_bytes: int) -> tuple[Mapping[str, Any], str | None]:
    """The members of a payload (none if it is empty), or what is wrong with it."""
    if not payload:
        return {}, None
    if len(payload) > max_bytes:
        return {}, f"the payload has more than {max_bytes} bytes"
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}, "the payload is not JSON"
    if not isinstance(document, dict):
        return {}, "the payload is not a JSON object"
    return document, None


def _validated(verb: str, fields: Mapping[str, Any], problem: str | None) -> _Request:
    model = _REQUESTS.get(verb)
    if model is None:
        raise _Refused("unknown_verb", f"no such verb; there are {', '.join(_REQUESTS)}")
    if problem is not None:
        raise _Refused("invalid_request", problem)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, item['loc']))[:100]}: {item['msg']}" for item in error.errors(include_url=False)[:20]
        )
        raise _Refused("invalid_request", "; ".join(problems)) from None


def _code(error: Exception) -> str:
    return "unavailable" if isinstance(error, TransientError) else "failed"

"""Control messages: `{root}/control/{verb}` in, replies out; section 5 of the interface.

Replies go through the outbox, so that they survive a broken link. `sync` and `verify` run one after the other in
`run`; a restart between `started` and `done` leaves a request without its `done`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson
import structlog
from pydantic import ValidationError

from connector.errors import PoisonError, TransientError
from connector.model.message import Delivery, Message
from connector.serve.control_payload import CONTROLS, CommandRequest, SyncRequest, VerifyRequest
from connector.serve.request import Asker, Refused, ReplyRules, Request, asker_of, invalid, parsed

log = structlog.get_logger()

MAX_WAITING = 16


class ReplyTopics(ReplyRules, Protocol):
    """Where replies go."""

    def reply(self, verb: str) -> str:
        """For a message that named no reply address."""
        ...


@dataclass(frozen=True, slots=True)
class Verification:
    """A comparison that is asked for.

    Attributes:
        objects: None: every object.
        repair: Put right what differs.
        allow_deletions: Objects of which the org may have lost however many records.
    """

    objects: Sequence[str] | None
    repair: bool
    allow_deletions: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What control messages set off. A PoisonError or TransientError becomes an error reply with its text.

    Attributes:
        objects: Names of the synced objects now.
        sync: Catch up now (None: every object); answers the reply's data when it is done.
        status: The health document.
        command: The stored result of a command, or None.
        verify: Compare with the org; None: not available.
        schema: JSON Schemas of messages and objects.
    """

    objects: Callable[[], Collection[str]]
    sync: Callable[[Sequence[str] | None], Awaitable[Mapping[str, Any]]]
    pause: Callable[[], Awaitable[None]]
    resume: Callable[[], Awaitable[None]]
    status: Callable[[], Awaitable[Mapping[str, Any]]]
    command: Callable[[str], Awaitable[Mapping[str, Any] | None]]
    verify: Callable[[Verification], Awaitable[Mapping[str, Any]]] | None = None
    schema: Callable[[], Awaitable[Mapping[str, Any]]] | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """Long work, with the asker of its `done`; None for a signal's."""

    verb: str
    work: Callable[[], Awaitable[Mapping[str, Any]]]
    asker: Asker | None


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
        fields, problem = parsed(delivery.payload, self._max_payload_bytes)
        asker = asker_of(verb, delivery, fields, self._topics, self._topics.reply(verb))
        try:
            await self._serve(asker, validated(verb, fields, problem))
        except Refused as refused:
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

    async def _serve(self, asker: Asker, request: Request) -> None:
        if asker.verb in ("sync", "verify"):
            await self._serve_long(asker, request)
            return
        try:
            data = await self._act(asker.verb, request)
        except PoisonError as error:
            raise Refused("failed", str(error)) from error
        await self._reply(asker, "done", data)

    async def _act(self, verb: str, request: Request) -> Mapping[str, Any]:
        match verb:
            case "pause":
                await self._actions.pause()
            case "resume":
                await self._actions.resume()
            case "status":
                return await self._actions.status()
            case "command" if isinstance(request, CommandRequest):
                result = await self._actions.command(request.command_id)
                if result is None:
                    raise Refused("unknown_command", f"no command {request.command_id} is stored")
                return result
            case _ if self._actions.schema is not None:
                return await self._actions.schema()
            case _:
                raise Refused("not_available", f"{verb} is not available in this version")
        return {}

    async def _serve_long(self, asker: Asker, request: Request) -> None:
        work = self._long_work(request)
        if work is None:
            raise Refused("not_available", f"{asker.verb} is not available in this version")
        if self._jobs.full():
            raise Refused("busy", f"{MAX_WAITING} requests are waiting already")
        # Answered first: if the answer cannot be stored the message comes again, and must not start the work twice.
        await self._reply(asker, "started", {})
        await self._jobs.put(_Job(asker.verb, work, asker))

    def _long_work(self, request: Request) -> Callable[[], Awaitable[Mapping[str, Any]]] | None:
        objects = request.objects if isinstance(request, SyncRequest) else None
        if not isinstance(request, VerifyRequest):
            self._check(objects or ())
            return partial(self._actions.sync, objects)
        self._check((*(objects or ()), *request.allow_deletions))
        if request.allow_deletions and not request.repair:
            raise Refused("invalid_request", "allow_deletions: only where differences are repaired")
        if objects is not None and not set(request.allow_deletions) <= set(objects):
            raise Refused("invalid_request", "allow_deletions: not among objects")
        verify = self._actions.verify
        if verify is None:
            return None
        return partial(verify, Verification(objects, request.repair, request.allow_deletions))

    def _check(self, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(self._actions.objects()))
        if unknown:
            raise Refused("unknown_object", f"not synced: {', '.join(name[:80] for name in unknown[:20])}")

    async def _reply(self, asker: Asker, state: str, data: Mapping[str, Any]) -> None:
        await self._answer(
            asker, {"ok": True, "verb": asker.verb, "state": state, "data": data, "correlation": asker.correlation}
        )

    async def _reply_error(self, asker: Asker, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        await self._answer(asker, {"ok": False, "verb": asker.verb, "error": error, "correlation": asker.correlation})

    async def _answer(self, asker: Asker, document: Mapping[str, Any]) -> None:
        payload = orjson.dumps(document)
        await self._send(Message(topic=asker.topic, payload=payload, correlation=asker.correlation_data))


def validated(verb: str, fields: Mapping[str, Any], problem: str | None) -> Request:
    """The control message that a payload is; `problem` is what is wrong with it as JSON.

    Raises:
        Refused: With every wrong member, or because there is no such verb.
    """
    model = CONTROLS.get(verb)
    if model is None:
        raise Refused("unknown_verb", f"no such verb; there are {', '.join(CONTROLS)}")
    if problem is not None:
        raise Refused("invalid_request", problem)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from None


def _code(error: Exception) -> str:
    return "unavailable" if isinstance(error, TransientError) else "failed"

"""Takes commands from the mesh: validated, stored and answered before the broker gets its PUBACK."""

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import structlog

from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.ids import RecordId
from connector.model.message import Delivery, Message
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec
from connector.outbound.admit import Admission, Asker, Catalog, Request, not_synced
from connector.outbound.payload import COMMAND_ID, parse_payload, validate_payload
from connector.outbound.rules import OutboundRules
from connector.outbound.shown import Shown
from connector.ports import Replica, Unit

log = structlog.get_logger()

# A broker redelivers what it had no PUBACK for at the next connection; older than this it is a new message.
REDELIVERY_WINDOW_MS = 24 * 3600 * 1000

_REHEARSED_NOTHING: Mapping[str, Any] = {
    "sends": False,
    "operation": None,
    "id": None,
    "external_id": None,
    "fields": None,
}


Arrived = tuple[str, str, Delivery]
"""Object name and operation of the topic, and the message."""


Note = str | Callable[[], None]
"""The id of a command that was accepted; or logs what else was done with a message, once that is on disk."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with a message inside a unit.

    Attributes:
        run: Does it.
        about: The object and the record that it will look at, if it is known already.
    """

    run: Callable[[Unit, Shown], Note]
    about: tuple[ObjectSpec, RecordId] | None = None


class Answers(Protocol):
    """Builds the messages that answer commands."""

    def result(self, command: Command, dry_run: Mapping[str, Any] | None = None) -> Sequence[Message]:
        """The command's result for its result topic and its reply address; `dry_run`: what would be sent."""
        ...

    def rejected(self, topic: str, reason: str, payload: bytes) -> Message:
        """A message that could not be accepted and named no usable reply topic."""
        ...

    def usable_reply_address(self, topic: str) -> bool:
        """May the connector publish there on a service's behalf?"""
        ...


class CommandIntake:
    """Handles one delivery on a command topic at a time; a crash before its unit leaves the message unacknowledged."""

    def __init__(
        self,
        *,
        replica: Replica,
        catalog: Catalog,
        answers: Answers,
        rules: OutboundRules,
        now_ms: Callable[[], int],
        stored: Callable[[], None],
    ) -> None:
        """`stored` is called after a command or an answer was stored, to wake the writer and the relay."""
        self._replica = replica
        self._catalog = catalog
        self._admission = Admission(catalog, rules)
        self._answers = answers
        self._rules = rules
        self._now_ms = now_ms
        self._stored = stored

    async def handle(self, object_name: str, operation: str, delivery: Delivery) -> None:
        """Store the command or its rejection; returns once it is on disk.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: It is not on disk: the message must not be acknowledged.
        """
        await self.handle_many([(object_name, operation, delivery)])

    async def handle_many(self, arrived: Sequence[Arrived]) -> None:
        """The same for several, in their order, with one wait for the disk; all of them or none.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: They are not on disk.
        """
        steps = [self._step(*one) for one in arrived]
        accepted: list[str] = []
        for note in await self._replica.run(partial(self._run, steps)):
            if isinstance(note, str):
                accepted.append(note)
            else:
                note()
            self._stored()
        if accepted:
            log.info("command.accepted", command_id=accepted[0], commands=len(accepted))

    def _run(self, steps: Sequence[Step], unit: Unit) -> list[Note]:
        shown = Shown(unit, self._now_ms())
        ids: dict[str, tuple[ObjectSpec, list[RecordId]]] = {}
        for spec, record_id in (step.about for step in steps if step.about is not None):
            ids.setdefault(spec.name, (spec, []))[1].append(record_id)
        for spec, wanted in ids.values():
            shown.load(spec, wanted)
        return [step.run(unit, shown) for step in steps]

    def _step(self, object_name: str, operation: str, delivery: Delivery) -> Step:
        """What is to be done with a message inside a unit; everything that needs no database is done before."""
        if delivery.retained:
            return self._refusal(delivery, "a retained message is never taken as a command")
        data: Mapping[str, Any] = {}
        try:
            data = parse_payload(delivery.payload, self._rules.max_payload_bytes)
            asker = _asker(delivery, data)
            if asker.reply_to is not None and not self._answers.usable_reply_address(asker.reply_to):
                return self._refusal(delivery, "the reply address is not one that the connector may publish to")
            request = self._request(object_name, operation, data, asker)
        except CommandRejected as error:
            return self._rejection(object_name, operation, delivery, data, error)

        def accept(unit: Unit, shown: Shown) -> Note:
            try:
                if data.get("dry_run") is True:
                    return self._rehearse(request, unit)
                return self._accept(request, delivery, unit, shown)
            except CommandRejected as error:  # before anything was written
                return self._rejection(object_name, operation, delivery, data, error).run(unit, shown)

        record_id = request.command.record_id
        return Step(accept, None if record_id is None else (request.spec, record_id))

    def _request(self, object_name: str, operation: str, data: Mapping[str, Any], asker: Asker) -> Request:
        known = self._catalog.spec(object_name) is not None and object_name in self._rules.objects
        problems = [] if known else [not_synced(object_name)]
        try:
            payload = validate_payload(data)
        except CommandRejected as error:
            raise CommandRejected(*problems, *error.problems) from None
        return self._admission.request(object_name, Operation(operation), payload, asker, self._now_ms())

    def _accept(self, request: Request, delivery: Delivery, unit: Unit, shown: Shown) -> Note:
        known = self._redelivered(request.command, delivery, unit)
        stored, new = (known, False) if known is not None else self._admission.accept(unit, request, shown)
        for message in self._answers.result(stored if new else _readdressed(stored, request.command)):
            unit.enqueue(message)
        if new:
            return stored.command_id
        return lambda: log.info("command.repeated", command_id=stored.command_id)

    def _redelivered(self, command: Command, delivery: Delivery, unit: Unit) -> Command | None:
        if command.delivery_key is None or not delivery.duplicate:
            return None
        return unit.command_by_delivery(command.delivery_key, command.accepted_ms - REDELIVERY_WINDOW_MS)

    def _rehearse(self, request: Request, unit: Unit) -> Note:
        status, told, command = self._admission.rehearse(unit, request)
        for message in self._answers.result(replace(command, status=status), told):
            unit.enqueue(message)
        return lambda: log.info("command.rehearsed", command_id=command.command_id)

    def _rejection(
        self, object_name: str, operation: str, delivery: Delivery, data: Mapping[str, Any], error: CommandRejected
    ) -> Step:
        named = data.get("command_id")
        command_id = named if isinstance(named, str) and re.fullmatch(COMMAND_ID, named) else None
        asker = _asker(delivery, data)
        if command_id is None and asker.reply_to is None:
            return self._refusal(delivery, str(error))
        now_ms = self._now_ms()
        command = Command(
            command_id=command_id or f"auto-{uuid.uuid4()}",
            object=object_name,
            operation=Operation(operation),
            record_id=None,
            external_id=None,
            fields={},
            base=None,
            on_conflict=ConflictPolicy.REJECT,
            expires_ms=None,
            sender=None,
            reply_to=asker.reply_to,
            correlation=asker.correlation,
            correlation_data=asker.correlation_data,
            accepted_ms=now_ms,
            status=CommandStatus.REJECTED,
            errors=tuple(OrgProblem(code="REJECTED", message=p, fields=_fields_named(p)) for p in error.problems),
            completed_ms=now_ms,
        )
        rehearsed = data.get("dry_run") is True

        def store(unit: Unit, _shown: Shown) -> Note:
            # A command that was sent before keeps its result; one that was only rehearsed leaves no trace.
            known = None if rehearsed else unit.add_command(command)
            answer = command if known is None else _readdressed(known, command)
            for message in self._answers.result(answer, _REHEARSED_NOTHING if rehearsed else None):
                unit.enqueue(message)
            return lambda: log.info(
                "command.rejected", object=object_name[:80], operation=operation, problems=len(error.problems)
            )

        return Step(store)

    def _refusal(self, delivery: Delivery, reason: str) -> Step:
        message = self._answers.rejected(delivery.topic, reason, delivery.payload)

        def store(unit: Unit, _shown: Shown) -> Note:
            unit.enqueue(message)
            return lambda: log.info("command.refused", topic=delivery.topic[:200], bytes=len(delivery.payload))

        return Step(store)


def _readdressed(known: Command, repeat: Command) -> Command:
    """What became of the first one, told to whoever repeated it."""
    return replace(
        known,
        reply_to=repeat.reply_to,
        correlation=repeat.correlation,
        correlation_data=repeat.correlation_data,
    )


def _fields_named(problem: str) -> list[str]:
    where = problem.partition(":")[0]
    return [where.removeprefix("fields.")] if where.startswith("fields.") else []


def _asker(delivery: Delivery, data: Mapping[str, Any]) -> Asker:
    named, correlation = data.get("reply_to"), data.get("correlation")
    if delivery.correlation is not None:
        correlation = delivery.correlation.decode("utf-8", "replace")
    return Asker(
        reply_to=delivery.response_topic or (named if isinstance(named, str) and named else None),
        correlation=correlation if isinstance(correlation, str) else None,
        correlation_data=delivery.correlation,
        delivery_key=None if data.get("command_id") is not None else _delivery_key(delivery),
    )


def _delivery_key(delivery: Delivery) -> str:
    digest = hashlib.sha256(b"\0".join((delivery.topic.encode(), delivery.correlation or b"", delivery.payload)))
    return f"{delivery.packet_id}:{digest.hexdigest()}"

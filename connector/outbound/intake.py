"""Takes commands from the mesh: validated, stored and answered before the broker gets its PUBACK."""

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog

from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.message import Delivery, Message
from connector.model.objects import ObjectSpec
from connector.model.times import to_ms
from connector.outbound.payload import COMMAND_ID, Base, parse_payload, validate_payload
from connector.outbound.validate import WriteRules, validate_write
from connector.ports import Replica, Unit

log = structlog.get_logger()

# A broker redelivers what it had no PUBACK for at the next connection; older than this it is a new message.
REDELIVERY_WINDOW_MS = 24 * 3600 * 1000
# Until the change of a command of ours comes back on the stream, what it wrote counts as what the sender had seen.
ECHO_WINDOW_MS = 10 * 60 * 1000


class Catalog(Protocol):
    """What is known of the objects now."""

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced."""
        ...

    def prefixes(self) -> Mapping[str, str]:
        """Key prefix -> object name."""
        ...


class Answers(Protocol):
    """Builds the messages that answer commands."""

    def result(self, command: Command) -> Sequence[Message]:
        """The command's result for its result topic and its reply address."""
        ...

    def rejected(self, topic: str, reason: str, payload: bytes) -> Message:
        """A message that could not be accepted and named no usable reply topic."""
        ...

    def usable_reply_address(self, topic: str) -> bool:
        """May the connector publish there on a service's behalf?"""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """What of the settings concerns taking commands.

    Attributes:
        objects: Object name -> what commands may do to it.
        on_conflict: For commands that do not say.
    """

    objects: Mapping[str, WriteRules]
    on_conflict: ConflictPolicy
    max_payload_bytes: int


class CommandIntake:
    """Handles one delivery on a command topic at a time; a crash before its unit leaves the message unacknowledged."""

    def __init__(
        self,
        *,
        replica: Replica,
        catalog: Catalog,
        answers: Answers,
        rules: IntakeRules,
        now_ms: Callable[[], int],
        stored: Callable[[], None],
    ) -> None:
        """`stored` is called after a command or an answer was stored, to wake the writer and the relay."""
        self._replica = replica
        self._catalog = catalog
        self._answers = answers
        self._rules = rules
        self._now_ms = now_ms
        self._stored = stored

    async def handle(self, object_name: str, operation: str, delivery: Delivery) -> None:
        """Store the command or its rejection; returns once it is on disk.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: It is not on disk: the message must not be acknowledged.
        """
        if delivery.retained:
            await self._refuse(delivery, "a retained message is never taken as a command")
            return
        try:
            payload = parse_payload(delivery.payload, self._rules.max_payload_bytes)
        except CommandRejected as error:
            await self._reject(object_name, operation, delivery, {}, error)
            return
        address = _reply_address(delivery, payload)
        if address is not None and not self._answers.usable_reply_address(address):
            await self._refuse(delivery, "the reply address is not one that the connector may publish to")
            return
        try:
            command, base = self._command(object_name, operation, delivery, payload)
            stored = await self._replica.run(partial(self._accept, command, base, delivery))
        except CommandRejected as error:
            await self._reject(object_name, operation, delivery, payload, error)
            return
        log.info("command.accepted" if stored else "command.repeated", command_id=command.command_id)
        self._stored()

    def _command(
        self, object_name: str, operation: str, delivery: Delivery, data: Mapping[str, Any]
    ) -> tuple[Command, Base | None]:
        spec, rules = self._catalog.spec(object_name), self._rules.objects.get(object_name)
        problems = [] if spec and rules else [f"{object_name[:80]}: not a synced object"]
        try:
            payload = validate_payload(data)
        except CommandRejected as error:
            raise CommandRejected(*problems, *error.problems) from None
        if spec is None or rules is None:
            raise CommandRejected(*problems)
        write = validate_write(Operation(operation), payload, spec, rules, self._catalog.prefixes())
        fields = dict(write.fields)
        command_id = payload.command_id or f"auto-{uuid.uuid4()}"
        if operation == Operation.CREATE and rules.external_id and fields.get(rules.external_id) is None:
            fields[rules.external_id] = command_id
        command = Command(
            command_id=command_id,
            object=spec.name,
            operation=Operation(operation),
            record_id=write.record_id,
            external_id=write.external_id,
            fields=fields,
            base=None,
            on_conflict=ConflictPolicy(payload.on_conflict) if payload.on_conflict else self._rules.on_conflict,
            expires_ms=to_ms(payload.expires_at) if payload.expires_at else None,
            sender=payload.sender,
            reply_to=_reply_address(delivery, data),
            correlation=_correlation(delivery, data),
            correlation_data=delivery.correlation,
            accepted_ms=self._now_ms(),
            delivery_key=None if payload.command_id else _delivery_key(delivery),
        )
        return command, payload.base

    def _accept(self, command: Command, base: Base | None, delivery: Delivery, unit: Unit) -> bool:
        known = self._redelivered(command, delivery, unit)
        if known is None:
            spec = self._catalog.spec(command.object)
            seen = base_values(unit, spec, command, base) if spec else None
            known = unit.add_command(replace(command, base=seen, base_seq=unit.first_open(command)))
        answer = command if known is None else _readdressed(known, command)
        for message in self._answers.result(answer):
            unit.enqueue(message)
        return known is None

    def _redelivered(self, command: Command, delivery: Delivery, unit: Unit) -> Command | None:
        if command.delivery_key is None or not delivery.duplicate:
            return None
        return unit.command_by_delivery(command.delivery_key, command.accepted_ms - REDELIVERY_WINDOW_MS)

    async def _reject(
        self, object_name: str, operation: str, delivery: Delivery, data: Mapping[str, Any], error: CommandRejected
    ) -> None:
        named = data.get("command_id")
        command_id = named if isinstance(named, str) and re.fullmatch(COMMAND_ID, named) else None
        address = _reply_address(delivery, data)
        log.info("command.rejected", object=object_name[:80], operation=operation, problems=len(error.problems))
        if command_id is None and address is None:
            await self._refuse(delivery, str(error))
            return
        now_ms = self._now_ms()
        command = Command(
            command_id=command_id or f"auto-{uuid.uuid4()}",
            object=object_name,
            operation=Operation(operation),
            record_id=None,
            external_id=None,
            fields={},
            base=None,
            on_conflict=self._rules.on_conflict,
            expires_ms=None,
            sender=None,
            reply_to=address,
            correlation=_correlation(delivery, data),
            correlation_data=delivery.correlation,
            accepted_ms=now_ms,
            status=CommandStatus.REJECTED,
            errors=tuple(OrgProblem(code="REJECTED", message=p, fields=_fields_named(p)) for p in error.problems),
            completed_ms=now_ms,
        )
        await self._replica.run(partial(self._accept, command, None, delivery))
        self._stored()

    async def _refuse(self, delivery: Delivery, reason: str) -> None:
        log.info("command.refused", topic=delivery.topic[:200], bytes=len(delivery.payload))
        message = self._answers.rejected(delivery.topic, reason, delivery.payload)
        await self._replica.run(lambda unit: unit.enqueue(message))
        self._stored()


def _readdressed(known: Command, repeat: Command) -> Command:
    """What became of the first one, told to whoever repeated it."""
    return replace(
        known,
        reply_to=repeat.reply_to,
        correlation=repeat.correlation,
        correlation_data=repeat.correlation_data,
    )


def base_values(unit: Unit, spec: ObjectSpec, command: Command, base: Base | None) -> Mapping[str, Any] | None:
    """The record as the sender had seen it; None where the replica does not have the record.

    Without a `base` of the sender's own that is the replica at acceptance, with what earlier commands on the record
    write: edits in a row must not conflict with each other.

    Raises:
        CommandRejected: The change log does not reach back to the state that the sender names.
    """
    if command.record_id is None:
        return None
    stored = unit.records(spec, [command.record_id]).get(command.record_id)
    if stored is None:
        return None
    if base is None:
        since_ms = command.accepted_ms - ECHO_WINDOW_MS
        earlier = unit.unseen_writes(spec.name, command.record_id, stored.modified_ms, since_ms)
        return {**stored.values, **{name: value for c in earlier for name, value in c.fields.items()}}
    version = base.version
    if version is None:
        seen_ms = to_ms(base.last_modified or "")
        if seen_ms >= stored.modified_ms:
            return stored.values
        version = unit.version_at(spec.name, command.record_id, seen_ms)
    changed = unit.changed_since(spec.name, command.record_id, version)
    if changed is None:
        raise CommandRejected("base: the change log does not reach back to it; read the record again")
    return {**stored.values, **changed}


def _fields_named(problem: str) -> list[str]:
    where = problem.partition(":")[0]
    return [where.removeprefix("fields.")] if where.startswith("fields.") else []


def _reply_address(delivery: Delivery, data: Mapping[str, Any]) -> str | None:
    named = data.get("reply_to")
    return delivery.response_topic or (named if isinstance(named, str) and named else None)


def _correlation(delivery: Delivery, data: Mapping[str, Any]) -> str | None:
    if delivery.correlation is not None:
        return delivery.correlation.decode("utf-8", "replace")
    named = data.get("correlation")
    return named if isinstance(named, str) else None


def _delivery_key(delivery: Delivery) -> str:
    digest = hashlib.sha256(b"\0".join((delivery.topic.encode(), delivery.correlation or b"", delivery.payload)))
    return f"{delivery.packet_id}:{digest.hexdigest()}"

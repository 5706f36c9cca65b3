"""What is published, as messages: changes as CloudEvents, retained records, results, holes, status. Pure."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from connector.errors import OrgUnavailable, PoisonError
from connector.mesh.topics import Topics
from connector.model.change import Change, CommitInfo, Operation
from connector.model.command import Command, CommandStatus
from connector.model.ids import RecordId, to_record_id
from connector.model.jsontext import JsonText
from connector.model.message import Message
from connector.model.times import to_iso
from connector.ports import Hole

CLOUD_EVENT = "application/cloudevents+json"
REJECTED_PAYLOAD_BYTES = 1024
_REJECTED_TOPIC_CHARS = 1024


class Envelope:
    """Builds the messages of one node and its org.

    Every method raises PoisonError if a value has no JSON form (text that is not Unicode, a number beyond 64 bits).
    """

    def __init__(self, topics: Topics, *, node: str) -> None:
        self._topics = topics
        self._node = node
        self._source: str | None = None

    def use_org(self, org_id: str) -> None:
        """The org whose changes these are, as soon as it is known (login, or a stored cursor).

        Raises:
            ValueError: Not a 15- or 18-character id.
        """
        self._source = f"/{self._node}/salesforce/{to_record_id(org_id)}"

    def change(self, change: Change) -> Message:
        """A numbered change as a CloudEvent; section 2 of the interface.

        Raises:
            OrgUnavailable: The org is not known yet.
        """
        if self._source is None:
            raise OrgUnavailable("the org's id is not known yet")
        operation = change.operation.value
        event = {
            "specversion": "1.0",
            "id": f"{self._node}/{change.version}",
            "source": self._source,
            "type": f"blackroad.salesforce.record.{operation}",
            "subject": f"{change.object}/{change.id}",
            "time": to_iso(change.applied_ms),
            "datacontenttype": "application/json",
            "dataschema": "urn:blackroad:salesforce:change:1",
            "data": change_data(change),
        }
        topic = self._topics.change(change.object, operation, change.id)
        return Message(topic=topic, payload=encode(event), content_type=CLOUD_EVENT)

    def record(self, object_name: str, record_id: RecordId, record: Mapping[str, Any] | None) -> Message:
        """The retained message of a record as it stands now; None clears it."""
        payload = b"" if record is None else encode(_whole(record_id, record))
        return Message(topic=self._topics.record(object_name, record_id), payload=payload, retain=True)

    def hole(self, hole: Hole) -> Sequence[Message]:
        """A hole that was opened (retained) or closed (published once; the retained message goes)."""
        closed = hole.closed_ms is not None
        document = {
            "object": hole.object,
            "from": to_iso(hole.from_ms),
            "to": _iso(hole.to_ms),
            "reason": hole.reason,
            "state": "closed" if closed else "open",
            "corrected": hole.corrected,
        }
        topic = self._topics.hole(hole.object)
        if not closed:
            return (Message(topic=topic, payload=encode(document), retain=True),)
        return (Message(topic=topic, payload=encode(document)), Message(topic=topic, payload=b"", retain=True))

    def result(self, command: Command, dry_run: Mapping[str, Any] | None = None) -> Sequence[Message]:
        """A command's result for its result topic and, if it named one that may be used, its reply address.

        `dry_run`: the command was only rehearsed, and this is what would be sent.
        """
        payload = encode({**result_document(command), **({} if dry_run is None else {"dry_run": dry_run})})
        topics = [self._topics.result(command.command_id)]
        if command.reply_to is not None and self.usable_reply_address(command.reply_to):
            topics.append(command.reply_to)
        return tuple(Message(topic=t, payload=payload, correlation=command.correlation_data) for t in topics)

    def rejected(self, topic: str, reason: str, payload: bytes) -> Message:
        """A message that could not be accepted and named no usable reply address."""
        return rejected_message(self._topics, topic, reason, payload)

    def usable_reply_address(self, topic: str) -> bool:
        """May the connector publish there on a service's behalf?"""
        return self._topics.reply_problem(topic) is None


def result_document(command: Command) -> dict[str, Any]:
    """A command's result as section 3 of the interface has it."""
    status = CommandStatus.ACCEPTED if command.status is CommandStatus.SENDING else command.status
    return {
        "command_id": command.command_id,
        "status": status.value,
        "object": command.object,
        "operation": command.operation.value,
        "id": command.record_id,
        "attempts": command.attempts,
        "correlation": command.correlation,
        "errors": [dict(error) for error in command.errors],
        "conflict": command.conflict,
        "accepted_at": to_iso(command.accepted_ms),
        "completed_at": _iso(command.completed_ms),
    }


def rejected_message(topics: Topics, topic: str, reason: str, payload: bytes) -> Message:
    """The message on `{root}/rejected`, with the payload's first 1 KiB as text."""
    whole = len(payload) <= REJECTED_PAYLOAD_BYTES
    # Not `final` where cut: half a character at the cut is left out instead of becoming a replacement mark.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(payload[:REJECTED_PAYLOAD_BYTES], final=whole)
    document = {"topic": topic[:_REJECTED_TOPIC_CHARS], "reason": reason, "payload": text}
    return Message(topic=topics.rejected, payload=encode(document))


def status_message(
    topics: Topics, *, state: Literal["online", "offline"], node: str, version: str, since_ms: int | None
) -> Message:
    """Birth, will (`since_ms` None: nobody knows when the link will break) or last message."""
    document = {"state": state, "node": node, "version": version, "since": _iso(since_ms)}
    return Message(topic=topics.status, payload=encode(document), retain=True)


def mirror_message(
    topics: Topics,
    *,
    state: Literal["offline", "waiting", "loading", "live"],
    node: str,
    version: str,
    since_ms: int | None,
    at_version: int | None = None,
    as_of_ms: int | None = None,
) -> Message:
    """How a mirror is, retained; also its birth (`waiting`), will and last message."""
    document = {
        "state": state,
        "node": node,
        "version": version,
        "since": _iso(since_ms),
        "at_version": at_version,
        "as_of": _iso(as_of_ms),
    }
    return Message(topic=topics.mirror(node), payload=encode(document), retain=True)


def health_message(topics: Topics, document: Mapping[str, Any]) -> Message:
    """The health document, retained."""
    return Message(topic=topics.health, payload=encode(document), retain=True)


def encode(document: Mapping[str, Any] | orjson.Fragment) -> bytes:
    """UTF-8 JSON.

    Raises:
        PoisonError: A value has no JSON form.
    """
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise PoisonError(f"has no JSON form: {error}") from error


def change_data(change: Change) -> dict[str, Any]:
    """A change as section 2 of the interface has it: `data` of its CloudEvent, a record of a `changes` reply.

    For orjson alone, which puts in what the log holds as JSON without reading it.
    """
    record = None if change.record is None else _whole(change.id, change.record)
    after = before = None
    if change.after is not None:
        after = _as_it_is(change.after) if change.operation is Operation.UPDATE else record
    if change.before is not None:
        before = _whole(change.id, change.before) if change.record is None else _as_it_is(change.before)
    return {
        "object": change.object,
        "id": change.id,
        "operation": change.operation.value,
        "version": change.version,
        "changed": list(change.changed),
        "before": before,
        "after": after,
        "record": record,
        "origin": change.origin.value,
        "command_id": change.command_id,
        "commit": None if change.commit is None else _commit(change.commit),
    }


def _commit(commit: CommitInfo) -> dict[str, Any]:
    return {
        "timestamp": to_iso(commit.timestamp_ms),
        "number": commit.number,
        "user": commit.user,
        "transaction": commit.transaction,
        "sequence": commit.sequence,
    }


def _whole(record_id: RecordId, values: Mapping[str, Any]) -> dict[str, Any] | orjson.Fragment:
    if type(values) is JsonText:
        return orjson.Fragment(values.opened_with(f'"Id":"{record_id}"'))
    return {"Id": record_id, **values}


def _as_it_is(values: Mapping[str, Any]) -> Mapping[str, Any] | orjson.Fragment:
    return orjson.Fragment(values.text) if type(values) is JsonText else values


def _iso(ms: int | None) -> str | None:
    return None if ms is None else to_iso(ms)

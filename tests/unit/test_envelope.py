"""What is published, byte by byte where the contract says so."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from connector.errors import OrgUnavailable, PoisonError
from connector.mesh.envelope import Envelope, rejected_message, status_message
from connector.mesh.topics import Topics
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.documents import (
    ChangeEventDocument,
    HoleDocument,
    RejectedDocument,
    ResultDocument,
    StatusDocument,
)
from connector.model.ids import to_record_id
from connector.model.message import Message
from connector.model.times import to_ms
from connector.ports import Hole

TOPICS = Topics()
ENVELOPE = Envelope(TOPICS, node="lucidia")
ENVELOPE.use_org("00D7e000000abcd")
CONTACT = to_record_id("0037e00000XyzAb")
AT_MS = to_ms("2026-11-22T17:26:39.157Z")
RECORD = {"FirstName": "Jane", "Phone": "555-1234", "Score__c": 1.5, "Active__c": False, "Email": None}

UPDATE = Change(
    version=1042,
    object="Contact",
    id=CONTACT,
    operation=Operation.UPDATE,
    changed=("Phone",),
    before={"Phone": None},
    after={"Phone": "555-1234"},
    record=RECORD,
    origin=Origin.STREAM,
    command_id=None,
    commit=CommitInfo(
        timestamp_ms=to_ms("2026-11-22T17:26:39.120Z"),
        number=92847272780,
        user="0057e00000RmwSWAAZ",
        transaction="001b7375-0086-250e-e6ca-b99bc3a8b69f",
        sequence=1,
    ),
    applied_ms=AT_MS,
)

COMMAND = Command(
    command_id="9b2e",
    object="Contact",
    operation=Operation.UPDATE,
    record_id=CONTACT,
    external_id=None,
    fields={"Phone": "1"},
    base=None,
    on_conflict=ConflictPolicy.MERGE,
    expires_ms=None,
    sender=None,
    reply_to="billing/inbox",
    correlation="abc",
    accepted_ms=AT_MS,
)


def document(message: Message) -> dict[str, Any]:
    loaded = orjson.loads(message.payload)
    assert isinstance(loaded, dict)
    return loaded


def test_the_contracts_own_example() -> None:
    """Section 2, member by member and in its order."""
    message = ENVELOPE.change(UPDATE)
    assert message.topic == f"blackroad/salesforce/change/Contact/update/{CONTACT}"
    assert (message.qos, message.retain, message.content_type) == (1, False, "application/cloudevents+json")
    expected = {
        "specversion": "1.0",
        "id": "lucidia/1042",
        "source": f"/lucidia/salesforce/{to_record_id('00D7e000000abcd')}",
        "type": "blackroad.salesforce.record.update",
        "subject": f"Contact/{CONTACT}",
        "time": "2026-11-22T17:26:39.157Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:blackroad:salesforce:change:1",
        "data": {
            "object": "Contact",
            "id": CONTACT,
            "operation": "update",
            "version": 1042,
            "changed": ["Phone"],
            "before": {"Phone": None},
            "after": {"Phone": "555-1234"},
            "record": {"Id": CONTACT, **RECORD},
            "origin": "stream",
            "command_id": None,
            "commit": {
                "timestamp": "2026-11-22T17:26:39.120Z",
                "number": 92847272780,
                "user": "0057e00000RmwSWAAZ",
                "transaction": "001b7375-0086-250e-e6ca-b99bc3a8b69f",
                "sequence": 1,
            },
        },
    }
    assert orjson.dumps(document(message)) == orjson.dumps(expected)
    ChangeEventDocument.model_validate_json(message.payload)


@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.UNDELETE])
def test_create_and_undelete_hold_the_record_as_after(operation: Operation) -> None:
    """`before` is null, `after` equals `record`."""
    data = document(ENVELOPE.change(replace(UPDATE, operation=operation, before=None, after=RECORD)))["data"]
    assert data["before"] is None
    assert data["after"] == data["record"] == {"Id": CONTACT, **RECORD}


def test_delete_holds_the_record_as_before() -> None:
    """`record` and `after` are null, `changed` is empty."""
    gone = replace(UPDATE, operation=Operation.DELETE, changed=(), before=RECORD, after=None, record=None)
    data = document(ENVELOPE.change(gone))["data"]
    assert (data["after"], data["record"], data["changed"]) == (None, None, [])
    assert data["before"] == {"Id": CONTACT, **RECORD}


def test_a_change_without_a_commit() -> None:
    """`commit` is null where the source does not tell it."""
    message = ENVELOPE.change(replace(UPDATE, commit=None, origin=Origin.POLL))
    assert document(message)["data"]["commit"] is None
    ChangeEventDocument.model_validate_json(message.payload)


def test_a_change_before_the_org_is_known_is_waited_for() -> None:
    """The source names the org; a wrong one must never be published."""
    unknown = Envelope(TOPICS, node="lucidia")
    with pytest.raises(OrgUnavailable):
        unknown.change(UPDATE)
    assert unknown.result(COMMAND)
    with pytest.raises(ValueError, match="id"):
        unknown.use_org("no id")


def test_values_without_a_json_form_are_poison() -> None:
    """They must not stop the relay."""
    for bad in ("\ud800", 2**70):
        with pytest.raises(PoisonError):
            ENVELOPE.change(replace(UPDATE, after={"Phone": bad}))


def test_retained_record_and_its_end() -> None:
    """The whole record, retained; empty once it is deleted."""
    message = ENVELOPE.record("Contact", CONTACT, RECORD)
    assert (message.topic, message.retain) == (f"blackroad/salesforce/record/Contact/{CONTACT}", True)
    assert document(message) == {"Id": CONTACT, **RECORD}
    gone = ENVELOPE.record("Contact", CONTACT, None)
    assert (gone.payload, gone.retain) == (b"", True)


def test_hole_is_retained_while_open() -> None:
    """Closing publishes what was corrected and clears the retained message."""
    hole = Hole(
        id=1,
        object="Lead",
        from_ms=AT_MS,
        to_ms=None,
        reason="replay id expired",
        opened_ms=AT_MS,
        closed_ms=None,
        corrected=0,
    )
    (opened,) = ENVELOPE.hole(hole)
    assert opened.retain
    assert document(opened) == {
        "object": "Lead",
        "from": "2026-11-22T17:26:39.157Z",
        "to": None,
        "reason": "replay id expired",
        "state": "open",
        "corrected": 0,
    }
    closed, cleared = ENVELOPE.hole(replace(hole, to_ms=AT_MS + 1000, closed_ms=AT_MS + 2000, corrected=3))
    assert (closed.retain, document(closed)["state"], document(closed)["corrected"]) == (False, "closed", 3)
    assert (cleared.topic, cleared.payload, cleared.retain) == (closed.topic, b"", True)
    HoleDocument.model_validate_json(opened.payload)
    HoleDocument.model_validate_json(closed.payload)


def test_result_goes_to_its_topic_and_to_the_reply_address() -> None:
    """Section 3, with the correlation in payload and property."""
    done = replace(
        COMMAND,
        status=CommandStatus.FAILED,
        attempts=2,
        completed_ms=AT_MS + 5,
        errors=(OrgProblem(code="X", message="no", fields=["Phone"]),),
        correlation_data=b"abc",
    )
    own, reply = ENVELOPE.result(done)
    assert [own.topic, reply.topic] == ["blackroad/salesforce/result/9b2e", "billing/inbox"]
    assert own.payload == reply.payload
    assert own.correlation == reply.correlation == b"abc"
    assert document(own) == {
        "command_id": "9b2e",
        "status": "failed",
        "object": "Contact",
        "operation": "update",
        "id": CONTACT,
        "attempts": 2,
        "correlation": "abc",
        "errors": [{"code": "X", "message": "no", "fields": ["Phone"]}],
        "conflict": None,
        "accepted_at": "2026-11-22T17:26:39.157Z",
        "completed_at": "2026-11-22T17:26:39.162Z",
    }
    ResultDocument.model_validate_json(own.payload)


def test_result_without_a_usable_reply_address() -> None:
    """Only the result topic; `sending` is the store's own and shows as accepted."""
    (own,) = ENVELOPE.result(replace(COMMAND, reply_to=TOPICS.status, status=CommandStatus.SENDING))
    assert document(own)["status"] == "accepted"
    assert len(ENVELOPE.result(replace(COMMAND, reply_to=None))) == 1


def test_rejected_holds_the_first_kilobyte_as_text() -> None:
    """A character cut in two is left out, broken bytes become replacement marks."""
    cut = document(rejected_message(TOPICS, "a/b", "no", b"x" * 1023 + "é".encode() + b"y" * 99))
    assert cut == {"topic": "a/b", "reason": "no", "payload": "x" * 1023}
    broken = document(ENVELOPE.rejected("a/b", "no", b"a\xff"))
    assert broken["payload"] == "a\ufffd"
    RejectedDocument.model_validate(broken)


def test_status_messages() -> None:
    """Birth and last message have a time; the will cannot know it."""
    birth = status_message(TOPICS, state="online", node="n", version="0.1.0", since_ms=AT_MS)
    will = status_message(TOPICS, state="offline", node="n", version="0.1.0", since_ms=None)
    assert birth.retain
    assert document(birth)["since"] == "2026-11-22T17:26:39.157Z"
    assert document(will) == {"state": "offline", "node": "n", "version": "0.1.0", "since": None}
    StatusDocument.model_validate_json(will.payload)

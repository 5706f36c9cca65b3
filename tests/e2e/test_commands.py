"""Commands from services on the mesh, as the service, the org and other subscribers see them."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.watcher import ROOT, Received

_NUMBERS = itertools.count(1)
ISO = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")
FINAL = ("succeeded", "failed", "conflict", "rejected", "expired", "unknown")


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """With an external id on leads and limits on what commands may do."""
    made = make_stack(
        {
            "objects": {
                "Lead": {"external_id": "Key__c"},
                "Account": {"writable": False},
                "Opportunity": {"operations": ["update"], "writable_fields": ["Amount"]},
            }
        }
    )
    field = {"name": "Key__c", "type": "string", "length": 128, "externalId": True, "unique": True, "idLookup": True}
    made.org.call("POST", "/fields", {"object": "Lead", "field": field})
    made.start()
    return made


@pytest.fixture(autouse=True)
def agreed(stack: Stack) -> Iterator[None]:
    """After each test nothing goes wrong on purpose any more, and replica, org and published changes agree."""
    yield
    stack.org.no_faults()
    stack.org.call("DELETE", "/rules", {})
    stack.settled()


def test_a_create_with_mqtt_5_properties(stack: Stack) -> None:
    """Accepted, then succeeded, on the result topic and at the Response Topic with the same Correlation Data."""
    command_id = new_id()
    payload = {"command_id": command_id, "fields": {"FirstName": "New", "LastName": "Person"}, "sender": "billing"}
    stack.watcher.send(
        f"{ROOT}/command/Contact/create", payload, response_topic="billing/inbox", correlation=b"\x00\xffdata"
    )
    done = result(stack, command_id)
    org = stack.org.records("Contact")
    assert org[done["id"]]["Name"] == "New Person"
    assert done == {
        "command_id": command_id,
        "status": "succeeded",
        "object": "Contact",
        "operation": "create",
        "id": done["id"],
        "attempts": 1,
        "correlation": done["correlation"],
        "errors": [],
        "conflict": None,
        "accepted_at": done["accepted_at"],
        "completed_at": done["completed_at"],
    }
    assert ISO.fullmatch(done["accepted_at"])
    assert ISO.fullmatch(done["completed_at"])
    for topic in (f"{ROOT}/result/{command_id}", "billing/inbox"):
        stack.watcher.until(topic, is_final, count=1)
        messages = [m for m in stack.watcher.messages(topic) if m.json["command_id"] == command_id]
        assert [m.json["status"] for m in messages] == ["accepted", "succeeded"]
        assert {m.correlation for m in messages} == {b"\x00\xffdata"}
        assert {m.content_type for m in messages} == {"application/json"}
        accepted = messages[0].json
        assert (accepted["id"], accepted["attempts"], accepted["completed_at"]) == (None, 0, None)


def test_the_same_from_a_3_1_1_client(stack: Stack) -> None:
    """`reply_to` and `correlation` in the payload do what the properties of MQTT 5 do."""
    with stack.newcomer("crm/answers", f"{ROOT}/result/+", mqtt5=False) as service:
        command_id = new_id()
        service.send(
            f"{ROOT}/command/Contact/create",
            {
                "command_id": command_id,
                "fields": {"LastName": "Old Protocol"},
                "reply_to": "crm/answers",
                "correlation": "abc",
            },
        )
        answer = service.until("crm/answers", is_final).json
        assert (answer["status"], answer["command_id"], answer["correlation"]) == ("succeeded", command_id, "abc")
        assert [m.json["status"] for m in service.messages("crm/answers")] == ["accepted", "succeeded"]
        service.until(f"{ROOT}/result/{command_id}", is_final)


def test_an_update_and_its_echo(stack: Stack) -> None:
    """The record changes in the org, and the change comes back once, marked as the command's own."""
    contact = stack.org.create("Contact", LastName="Echo", Phone="1")
    stack.until_change(contact)
    done = run(stack, "Contact", "update", id=contact, fields={"Phone": "2"})
    assert (done["status"], done["id"]) == ("succeeded", contact)
    assert stack.org.records("Contact")[contact]["Phone"] == "2"
    data = stack.until_change(contact, "update").json["data"]
    assert (data["origin"], data["command_id"]) == ("command", done["command_id"])
    assert (data["before"], data["after"]) == ({"Phone": "1"}, {"Phone": "2"})
    assert data["commit"]["user"] == "0055f000007NnAbAAK"
    stack.org.update("Contact", contact, Phone="3")
    data = stack.until_change(contact, "update", count=2).json["data"]
    assert (data["origin"], data["command_id"]) == ("stream", None)
    row = stack.replica.rows("SELECT * FROM command WHERE command_id = ?", done["command_id"])[0]
    assert (row["status"], row["attempts"], row["object"]) == ("succeeded", 1, "Contact")


def test_create_and_delete_are_echoed_too(stack: Stack) -> None:
    """The changes of a create and of a delete name the commands that made them."""
    made = run(stack, "Contact", "create", fields={"LastName": "Short Life"})
    data = stack.until_change(made["id"], "create").json["data"]
    assert (data["origin"], data["command_id"]) == ("command", made["command_id"])
    gone = run(stack, "Contact", "delete", id=made["id"])
    assert gone["status"] == "succeeded"
    data = stack.until_change(made["id"], "delete").json["data"]
    assert (data["origin"], data["command_id"]) == ("command", gone["command_id"])
    assert made["id"] not in stack.org.records("Contact")


def test_an_upsert_creates_then_updates(stack: Stack) -> None:
    """By external id: the first one makes the record, the second one finds it."""
    key = {"field": "Key__c", "value": f"crm-{new_id()}"}
    first = run(stack, "Lead", "upsert", external_id=key, fields={"LastName": "Upsert", "Company": "One"})
    second = run(stack, "Lead", "upsert", external_id=key, fields={"LastName": "Upsert", "Company": "Two"})
    assert (first["status"], second["status"], second["id"]) == ("succeeded", "succeeded", first["id"])
    assert stack.org.records("Lead")[first["id"]]["Company"] == "Two"
    data = stack.until_change(first["id"], "update").json["data"]
    assert (data["origin"], data["command_id"]) == ("command", second["command_id"])


def test_a_create_carries_its_command_id_as_external_id(stack: Stack) -> None:
    """Where the object has an external id field, the command's id is its value."""
    done = run(stack, "Lead", "create", fields={"LastName": "Keyed", "Company": "Keyed"})
    assert stack.org.records("Lead")[done["id"]]["Key__c"] == done["command_id"]


def test_a_command_without_an_id_gets_one(stack: Stack) -> None:
    """The connector makes an id; the asker learns it at its reply address."""
    stack.watcher.send(
        f"{ROOT}/command/Contact/create", {"fields": {"LastName": "Nameless"}}, response_topic="nameless/inbox"
    )
    done = stack.watcher.until("nameless/inbox", is_final).json
    assert done["status"] == "succeeded"
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", done["command_id"])


def test_a_repeated_id_is_answered_and_not_executed(stack: Stack) -> None:
    """Idempotency: the stored result goes to the repeat's own reply address and to the result topic; one effect."""
    done = run(stack, "Contact", "create", fields={"LastName": "Once"})
    since = stack.watcher.mark()
    payload = {"command_id": done["command_id"], "fields": {"LastName": "Twice"}, "correlation": "second"}
    stack.watcher.send(f"{ROOT}/command/Contact/create", payload, response_topic="repeat/inbox")
    for topic in ("repeat/inbox", f"{ROOT}/result/{done['command_id']}"):
        again = stack.watcher.until(topic, is_final, since=since).json
        assert {**again, "correlation": None} == {**done, "correlation": None}
        assert again["correlation"] == "second"
    names = [row["LastName"] for row in stack.org.records("Contact").values()]
    assert (names.count("Once"), names.count("Twice")) == (1, 0)


def test_commands_on_one_record_run_in_order(stack: Stack) -> None:
    """Fifty updates sent at once end in the last one, and each is a change of its own in that order."""
    contact = stack.org.create("Contact", LastName="Ordered")
    stack.until_change(contact)
    ids = [new_id() for _ in range(50)]
    for number, command_id in enumerate(ids):
        body = {"command_id": command_id, "id": contact, "fields": {"Phone": f"{number}"}}
        stack.watcher.send(f"{ROOT}/command/Contact/update", body, wait=False)
    assert {result(stack, command_id)["status"] for command_id in ids} == {"succeeded"}
    assert stack.org.records("Contact")[contact]["Phone"] == "49"
    stack.until_equal()
    updates = [d for d in stack.folded().data.values() if d["id"] == contact and d["operation"] == "update"]
    assert [d["after"]["Phone"] for d in updates] == [str(number) for number in range(50)]
    assert [d["command_id"] for d in updates] == ids


def test_values_never_flip_back(stack: Stack) -> None:
    """Quick edits in a row, on a stream that is late and with polls between: nobody sees an older value again."""
    contact = stack.org.create("Contact", LastName="Flip")
    stack.until_change(contact)
    stack.org.set(stream_delay_s=0.4)
    ids = [new_id() for _ in range(30)]
    for number, command_id in enumerate(ids):
        body = {"command_id": command_id, "id": contact, "fields": {"Phone": f"{number}"}}
        stack.watcher.send(f"{ROOT}/command/Contact/update", body, wait=False)
        stack.watcher.send(f"{ROOT}/query/Contact/get", {"id": contact, "reply_to": "flip/inbox"}, wait=False)
        if number % 10 == 5:
            stack.watcher.send(f"{ROOT}/control/sync", {"objects": ["Contact"]}, wait=False)
            result(stack, command_id)
    done = [result(stack, command_id) for command_id in ids]
    assert [(d["status"], d["conflict"]) for d in done] == [("succeeded", None)] * 30
    stack.org.set(stream_delay_s=0)
    stack.until_equal()
    updates = [d for d in stack.folded().data.values() if d["id"] == contact and d["operation"] == "update"]
    values = [int(d["after"]["Phone"]) for d in updates]
    assert values == sorted(set(values))
    assert values[-1] == 29
    stack.watcher.until("flip/inbox", count=30)
    read = [m.json["records"][0]["Phone"] for m in stack.watcher.messages("flip/inbox")]
    seen = [-1 if phone is None else int(phone) for phone in read]
    assert seen == sorted(seen)


def test_what_the_org_refuses_is_failed(stack: Stack) -> None:
    """A validation rule's words reach the service: code, message, fields; nothing is retried."""
    rule = {"object": "Contact", "when": {"field": "LastName", "value": "Forbidden"}, "message": "not that name"}
    stack.org.call("POST", "/rules", {"kind": "validation", "members": {**rule, "field": "LastName"}})
    done = run(stack, "Contact", "create", fields={"LastName": "Forbidden"})
    assert (done["status"], done["attempts"], done["id"]) == ("failed", 1, None)
    assert done["errors"] == [
        {"code": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "not that name", "fields": ["LastName"]}
    ]
    missing = run(stack, "Contact", "update", id="0035f0000009ZZZ", fields={"Phone": "1"})
    assert missing["status"] == "failed"


def test_a_field_changed_by_both_is_a_conflict(stack: Stack) -> None:
    """The sender had seen an older state and somebody changed the same field: base, local and remote are told."""
    contact = stack.org.create("Contact", LastName="Contested", Phone="1", Email="a@example.com")
    seen = stack.until_change(contact).json["data"]["version"]
    stack.org.update("Contact", contact, Phone="2")
    stack.until_change(contact, "update")
    base = {"version": seen}
    lost = run(stack, "Contact", "update", id=contact, fields={"Phone": "3"}, base=base)
    assert (lost["status"], lost["conflict"]) == ("conflict", {"Phone": {"base": "1", "local": "3", "remote": "2"}})
    merged = run(stack, "Contact", "update", id=contact, fields={"Email": "b@example.com"}, base=base)
    assert merged["status"] == "succeeded"
    forced = run(stack, "Contact", "update", id=contact, fields={"Phone": "3"}, base=base, on_conflict="overwrite")
    assert forced["status"] == "succeeded"
    assert stack.org.records("Contact")[contact]["Phone"] == "3"


@pytest.mark.parametrize(
    ("topic", "payload", "named"),
    [
        ("Contact/create", {"fields": {"Nonsense__c": 1, "LastName": "x"}}, "Nonsense__c"),
        ("Contact/create", {"fields": {"Phone": "1"}}, "LastName"),
        ("Contact/create", {"fields": {"LastName": 7}}, "LastName"),
        ("Contact/create", {"fields": {"LastName": "x", "Title": "not synced"}}, "Title"),
        ("Contact/update", {"id": "0015f000002AbCd", "fields": {"Phone": "1"}}, "id"),
        ("Contact/update", {"id": "no id", "fields": {"Phone": "1"}}, "id"),
        ("Contact/update", {"fields": {"Phone": "1"}}, "id"),
        ("Contact/update", {"id": "0035f0000000001AAA"}, "fields"),
        ("Contact/delete", {"id": "0035f0000000001AAA", "fields": {"Phone": "1"}}, "fields"),
        ("Contact/create", {"fields": {"LastName": "x" * 81}}, "LastName"),
        ("Contact/create", {"fields": {"LastName": "x"}, "urgent": True}, "urgent"),
        ("Contact/create", {"fields": {"LastName": "x"}, "on_conflict": "fight"}, "on_conflict"),
        ("Task/create", {"fields": {"Subject": "x"}}, "Task"),
        ("Account/update", {"id": "0015f000002AbCd", "fields": {"Name": "x"}}, "Account"),
        ("Opportunity/create", {"fields": {"Amount": 1}}, "Opportunity"),
        ("Opportunity/update", {"id": "0065f000002AbCd", "fields": {"Name": "x"}}, "Name"),
    ],
)
def test_what_cannot_be_is_rejected(stack: Stack, topic: str, payload: dict[str, Any], named: str) -> None:
    """A rejected result names what is wrong; the org is not asked."""
    before = stack.org.usage()["api"]
    command_id = new_id()
    stack.watcher.send(f"{ROOT}/command/{topic}", {**payload, "command_id": command_id}, response_topic="rejects/inbox")
    done = stack.watcher.until("rejects/inbox", lambda m: bool(m.json["command_id"] == command_id)).json
    assert done["status"] == "rejected"
    assert named in " ".join(error["message"] for error in done["errors"])
    assert ISO.fullmatch(done["completed_at"])
    assert stack.watcher.until(f"{ROOT}/result/{command_id}").json == done
    assert stack.org.usage()["api"] == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{not json", "not JSON"),
        (b"[1]", "object"),
        (b'{"fields": {"LastName": "' + b"x" * 300_000 + b'"}}', "bytes"),
        (b'{"command_id": "not/allowed", "fields": {"LastName": "x"}}', "command_id"),
        (b"", "not JSON"),
    ],
    ids=["text", "array", "too large", "bad id", "empty"],
)
def test_what_names_no_address_is_reported(stack: Stack, body: bytes, reason: str) -> None:
    """A message that cannot be a command and names nobody to tell goes to `rejected`, cut to 1 KiB."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/command/Contact/create", body)
    told = stack.watcher.until(f"{ROOT}/rejected", since=since).json
    assert set(told) == {"topic", "reason", "payload"}
    assert told["topic"] == f"{ROOT}/command/Contact/create"
    assert reason in told["reason"]
    assert told["payload"] == body[:1024].decode()


def test_unreadable_with_an_address_is_a_rejected_result(stack: Stack) -> None:
    """The same with a Response Topic: the sender gets a `rejected` result there."""
    stack.watcher.send(f"{ROOT}/command/Contact/create", b"{not json", response_topic="unreadable/inbox")
    assert stack.watcher.until("unreadable/inbox").json["status"] == "rejected"


def test_a_retained_command_is_never_executed(stack: Stack) -> None:
    """It would run again with every start: it is reported on `rejected`, sent while we listen or while we are away."""
    topic = f"{ROOT}/command/Contact/create"
    for away in (False, True):
        since = stack.watcher.mark()
        if away:
            assert stack.daemon.stop() == 0
        stack.watcher.send(topic, {"command_id": new_id(), "fields": {"LastName": "Retained"}}, retain=True)
        if away:
            stack.start()
        told = stack.watcher.until(f"{ROOT}/rejected", lambda m: bool(m.json["topic"] == topic), since=since).json
        assert "retained" in told["reason"]
        stack.watcher.send(topic, b"", retain=True)
    run(stack, "Contact", "create", fields={"LastName": "Behind it"})
    assert "Retained" not in [row["LastName"] for row in stack.org.records("Contact").values()]


@pytest.mark.parametrize(
    "address",
    [
        f"{ROOT}/change/Contact/update/0035f0000000001AAA",
        f"{ROOT}/status",
        f"{ROOT}/command/Contact/create",
        "blackroad/signals/FND/OS",
        "$SYS/broker",
        "some/+/where",
        "some/#",
    ],
)
def test_a_reply_address_that_others_trust_is_refused(stack: Stack, address: str) -> None:
    """The connector may publish where the asker may not: the command is not taken, and reported on `rejected`."""
    since = stack.watcher.mark()
    payload = {"command_id": new_id(), "fields": {"LastName": "Trojan"}, "reply_to": address}
    stack.watcher.send(f"{ROOT}/command/Contact/create", payload)
    told = stack.watcher.until(f"{ROOT}/rejected", since=since).json
    assert told["topic"] == f"{ROOT}/command/Contact/create"
    assert not stack.watcher.messages(f"{ROOT}/result/{payload['command_id']}")
    assert "Trojan" not in [row["LastName"] for row in stack.org.records("Contact").values()]


def test_a_reply_below_the_reply_topic_is_fine(stack: Stack) -> None:
    """`{root}/reply/...` is the one place inside the root that may be named."""
    done = run(stack, "Contact", "create", fields={"LastName": "Inside"}, reply_to=f"{ROOT}/reply/mine")
    assert stack.watcher.until(f"{ROOT}/reply/mine", is_final).json == done


def test_a_busy_org_is_tried_again(stack: Stack) -> None:
    """503 and row locks are waited out with back-off; the result says how many attempts it took."""
    contact = stack.org.create("Contact", LastName="Busy")
    stack.until_change(contact)
    stack.org.fault("rest", path="/composite$|/sobjects/Contact/", status=503, code="SERVER_UNAVAILABLE", count=2)
    done = run(stack, "Contact", "update", id=contact, fields={"Phone": "1"})
    assert (done["status"], done["attempts"]) == ("succeeded", 3)


def test_a_lost_answer_has_one_effect(stack: Stack) -> None:
    """The org took the write and the answer was lost: an update is found there, a keyed create is found by its key."""
    contact = stack.org.create("Contact", LastName="Lost")
    stack.until_change(contact)
    stack.org.fault("rest", path="/composite$|/sobjects/Contact/", drop_response=True)
    assert run(stack, "Contact", "update", id=contact, fields={"Phone": "1"})["status"] == "succeeded"
    stack.org.fault("rest", method="POST", path="sobjects/Lead", drop_response=True)
    made = run(stack, "Lead", "create", fields={"LastName": "LostLead", "Company": "Lost"})
    assert made["status"] == "succeeded"
    assert [r["LastName"] for r in stack.org.records("Lead").values()].count("LostLead") == 1
    stack.org.fault("rest", method="POST", path="sobjects/Contact", drop_response=True)
    unsure = run(stack, "Contact", "create", fields={"LastName": "LostContact"})
    assert unsure["status"] in ("succeeded", "unknown")
    assert [r["LastName"] for r in stack.org.records("Contact").values()].count("LostContact") == 1


def test_expired_commands_are_not_sent(stack: Stack) -> None:
    """A command whose time is over is `expired`, and nothing reaches the org."""
    done = run(stack, "Contact", "create", fields={"LastName": "Late"}, expires_at="2026-01-01T00:00:00Z")
    assert done["status"] == "expired"
    assert "Late" not in [row["LastName"] for row in stack.org.records("Contact").values()]


def test_a_triggers_change_is_not_the_commands(stack: Stack) -> None:
    """What automation changes besides is a change of its own, from the stream."""
    when = {"field": "Phone", "value": "trigger"}
    members = {"object": "Contact", "values": {"Email": "set@example.com"}, "when": when}
    contact = stack.org.create("Contact", LastName="Triggered")
    stack.until_change(contact)
    stack.org.call("POST", "/rules", {"kind": "update", "members": members})
    done = run(stack, "Contact", "update", id=contact, fields={"Phone": "trigger"})
    first = stack.until_change(contact, "update").json["data"]
    second = stack.until_change(contact, "update", count=2).json["data"]
    assert (first["after"], first["command_id"]) == ({"Phone": "trigger"}, done["command_id"])
    assert (second["after"], second["origin"]) == ({"Email": "set@example.com"}, "stream")


def new_id() -> str:
    """A command id."""
    return f"test.{next(_NUMBERS)}:a_b-c"


def run(stack: Stack, name: str, operation: str, **payload: Any) -> dict[str, Any]:
    """Send a command; its final result."""
    command_id = new_id()
    stack.watcher.send(f"{ROOT}/command/{name}/{operation}", {"command_id": command_id, **payload})
    return result(stack, command_id)


def result(stack: Stack, command_id: str) -> dict[str, Any]:
    """The final result of a command; an `accepted` one came before it."""
    topic = f"{ROOT}/result/{command_id}"
    done = stack.watcher.until(topic, is_final).json
    if done["status"] != "rejected":
        assert stack.watcher.messages(topic)[0].json["status"] == "accepted"
    return done


def is_final(message: Received) -> bool:
    """True for a result after which none follows."""
    return message.json["status"] in FINAL

"""Control messages, inbound signals, health and status, as services on the mesh see them."""

from collections.abc import Iterator
from typing import Any

import pytest

from connector.model.documents import HealthDocument, StatusDocument
from tests.e2e.making import MakeStack
from tests.e2e.stack import OBJECTS, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

BRIDGE = "blackroad/signals/OS/FND"


@pytest.fixture(autouse=True)
def agreed(stack: Stack) -> Iterator[None]:
    """After each test nothing goes wrong on purpose any more, and replica, org and published changes agree."""
    yield
    stack.org.no_faults()
    stack.settled()


def test_sync_answers_twice(stack: Stack) -> None:
    """`started` at once and `done` at the end, with what was done; the round is signalled as requested."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/sync", {"correlation": "c1"}, response_topic="ops/inbox")
    done = stack.watcher.until("ops/inbox", count=2).json
    started = stack.watcher.messages("ops/inbox")[0].json
    assert started == {"ok": True, "verb": "sync", "state": "started", "data": {}, "correlation": "c1"}
    assert {**done, "data": {}} == {**started, "state": "done"}
    assert sorted(done["data"]["objects"]) == sorted(OBJECTS)
    assert done["data"]["api_calls"] >= 1
    signal = stack.watcher.until_signal("sync_complete", since, kind="requested")
    assert signal["text"] == "✔️ FND → OS : sync_complete"


def test_sync_of_some_objects(stack: Stack) -> None:
    """`objects` names those to ask for; one that is not synced is refused by name."""
    done = ask(stack, "sync", {"objects": ["Lead"]}, replies=2)
    assert done["data"]["objects"] == ["Lead"]
    refused = ask(stack, "sync", {"objects": ["Lead", "Task"]})
    assert refused["ok"] is False
    assert "Task" in refused["error"]["message"]


def test_correlation_data_comes_back(stack: Stack) -> None:
    """A reply carries the Correlation Data of its request."""
    stack.watcher.send(f"{ROOT}/control/status", b"", response_topic="ops/data", correlation=b"\x01\x02")
    assert stack.watcher.until("ops/data").correlation == b"\x01\x02"


def test_a_reply_address_that_others_trust_is_refused(stack: Stack) -> None:
    """As with commands: reported on `rejected`, nothing is sent there."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/status", {"reply_to": f"{ROOT}/health"})
    told = stack.watcher.until(f"{ROOT}/rejected", since=since).json
    assert told["topic"] == f"{ROOT}/control/status"


def test_schemas_of_messages_and_objects(stack: Stack) -> None:
    """What a service needs to know to send and to understand."""
    data = ask(stack, "schema")["data"]
    assert {"change", "command", "query_reply"} <= data["messages"].keys()
    assert sorted(data["objects"]) == sorted(OBJECTS)
    contact = data["objects"]["Contact"]
    in_org = next(iter(stack.org.records("Contact").values()))
    assert set(contact["required"]) <= in_org.keys()


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"surprise": 1}'])
def test_a_malformed_request_is_answered(stack: Stack, body: bytes) -> None:
    """What is not a request gets an error reply, on the verb's reply topic as it named no address."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/status", body)
    reply = stack.watcher.until(f"{ROOT}/reply/status", since=since).json
    assert reply["ok"] is False
    assert set(reply["error"]) == {"code", "message"}


def test_an_unknown_verb_is_answered(stack: Stack) -> None:
    """The reply says so and names those that there are."""
    reply = ask(stack, "reboot")
    assert (reply["ok"], reply["verb"], reply["error"]["code"]) == (False, "reboot", "unknown_verb")
    assert "sync" in reply["error"]["message"]


def test_a_retained_control_message_is_not_acted_on(stack: Stack) -> None:
    """It is reported on `rejected`."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/pause", b"{}", retain=True)
    stack.watcher.until(f"{ROOT}/rejected", lambda m: bool(m.json["topic"] == f"{ROOT}/control/pause"), since=since)
    stack.watcher.send(f"{ROOT}/control/pause", b"", retain=True)
    assert ask(stack, "status")["data"]["stream"]["state"] == "live"


def test_pause_and_resume(stack: Stack) -> None:
    """While paused nothing is taken in, commands go on; afterwards everything that was missed comes."""
    contact = stack.org.create("Contact", LastName="Paused")
    stack.until_change(contact)
    assert ask(stack, "pause")["state"] == "done"
    health = stack.health(lambda h: bool(h["stream"]["state"] == "paused"))
    assert health["state"] == "degraded"
    since = stack.watcher.mark()
    stack.org.update("Contact", contact, Phone="1")
    command = {"command_id": "while-paused", "fields": {"LastName": "Commanded"}}
    stack.watcher.send(f"{ROOT}/command/Contact/create", command)
    done = stack.watcher.until(f"{ROOT}/result/while-paused", lambda m: bool(m.json["status"] == "succeeded")).json
    assert not stack.watcher.messages(f"{ROOT}/change/#", since)
    assert ask(stack, "resume")["state"] == "done"
    assert stack.until_change(contact, "update").json["data"]["after"] == {"Phone": "1"}
    assert stack.until_change(done["id"]).json["data"]["command_id"] == "while-paused"
    stack.health(lambda h: bool(h["stream"]["state"] == "live" and h["state"] == "ok"))


def test_status_is_the_health_document(stack: Stack) -> None:
    """Every member of section 5 with its type; quiet and healthy, it says `ok`."""
    document = ask(stack, "status")["data"]
    HealthDocument.model_validate(document)
    assert (document["state"], document["node"]) == ("ok", "lucidia")
    assert document["version"] == stack.replica.last_version()
    assert (document["stream"]["state"], document["stream"]["transport"]) == ("live", "cometd")
    assert document["stream"]["last_frame_at"] is not None
    assert set(document["objects"]) == set(OBJECTS)
    contacts = document["objects"]["Contact"]
    assert contacts["records"] == len(stack.org.records("Contact"))
    assert (contacts["streamed"], contacts["drift"], contacts["holes"]) == (True, 0, 0)
    assert document["queues"] == {"outbox": 0, "commands": 0, "quarantine": 0}
    assert document["api"]["max"] == 15000
    assert document["api"]["used"] >= stack.org.usage()["api"] - 1
    assert document["api"]["own"]["load"] > 0


def test_api_calls_are_counted_by_purpose(stack: Stack) -> None:
    """Table `api_usage` and the health document count what the org counts."""
    ask(stack, "sync", replies=2)
    counted = stack.replica.rows("SELECT purpose, sum(calls) AS calls FROM api_usage GROUP BY purpose")
    assert {"load", "catch_up"} <= {row["purpose"] for row in counted}
    assert ask(stack, "status")["data"]["api"]["used"] == stack.org.usage()["api"]


def test_health_is_published_retained_and_often(stack: Stack) -> None:
    """A newcomer finds the newest document, and the next one comes with the interval."""
    with stack.newcomer(f"{ROOT}/health") as service:
        first = service.until(f"{ROOT}/health")
        assert first.retain
        HealthDocument.model_validate(first.json)
        second = service.until(f"{ROOT}/health", count=2).json
        assert second["as_of"] > first.json["as_of"]
        assert second["lag_ms"]["p99"] is not None


def test_the_stored_result_of_a_command(stack: Stack) -> None:
    """`command` answers the result as it was sent; an id that nobody has seen is an error."""
    stack.watcher.send(f"{ROOT}/command/Contact/create", {"command_id": "stored", "fields": {"LastName": "Stored"}})
    done = stack.watcher.until(f"{ROOT}/result/stored", lambda m: bool(m.json["status"] == "succeeded")).json
    assert ask(stack, "command", {"command_id": "stored"})["data"] == done
    assert ask(stack, "command", {"command_id": "never-seen"})["ok"] is False
    assert ask(stack, "command")["ok"] is False


@pytest.mark.parametrize(
    "payload",
    ["🔄 OS → FND : sync_now", '{"text": "🔄 OS → FND : sync", "signal": "sync"}'],
    ids=["line", "document"],
)
def test_the_bridges_signal_starts_a_sync(stack: Stack, payload: str) -> None:
    """An inbound `sync…` catches up, as a line of text or as a signal document."""
    since = stack.watcher.mark()
    stack.watcher.send(BRIDGE, payload)
    stack.watcher.until_signal("sync_complete", since, kind="requested")


def test_other_signals_are_ignored(stack: Stack) -> None:
    """Anything else is logged, and neither acted on nor reported."""
    since = stack.watcher.mark()
    for payload in ("🔄 OS → XYZ : sync", "✔️ OS → FND : thanks", "{", b"\xff\xfe"):
        stack.watcher.send(BRIDGE, payload)
    until(lambda: len(stack.daemon.events("signal.ignored")) >= 4)
    assert not stack.watcher.signals("sync_complete", since)
    assert not stack.watcher.messages(f"{ROOT}/rejected", since)


def test_a_topic_outside_the_contract_is_reported(stack: Stack) -> None:
    """A misspelt command topic does not vanish without a word."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/command/Contact/explode", b"{}")
    told = stack.watcher.until(f"{ROOT}/rejected", since=since).json
    assert told["topic"] == f"{ROOT}/command/Contact/explode"


def test_birth_farewell_and_will(stack: Stack) -> None:
    """`online` while it runs, `offline` after SIGTERM and, by the will, after SIGKILL; retained each time."""
    assert status(stack)["state"] == "online"
    since = stack.watcher.mark()
    assert stack.daemon.stop() == 0
    farewell = stack.watcher.until(f"{ROOT}/status", since=since).json
    StatusDocument.model_validate(farewell)
    assert farewell["state"] == "offline"
    assert farewell["since"] is not None
    assert status(stack)["state"] == "offline"
    stack.start()
    born = stack.watcher.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "online"), since=since).json
    StatusDocument.model_validate(born)
    assert born["node"] == "lucidia"
    since = stack.watcher.mark()
    stack.daemon.kill()
    will = stack.watcher.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "offline"), since=since).json
    StatusDocument.model_validate(will)
    assert status(stack)["state"] == "offline"
    stack.start()


def test_a_failing_org_is_told_and_forgotten(stack: Stack) -> None:
    """`sync_failed` once per spell, health `degraded` with the error, `ok` and `sync_complete` when it works again."""
    since = stack.watcher.mark()
    stack.org.fault("rest", status=503, code="SERVER_UNAVAILABLE", count=None)
    for _ in range(2):
        refused = ask(stack, "sync", replies=2)
        assert (refused["ok"], refused["error"]["code"]) == (False, "unavailable")
    health = ask(stack, "status")["data"]
    assert health["state"] == "degraded"
    assert health["last_error"]["error"]
    failed = [s for s in stack.watcher.signals("sync_failed", since) if s["data"]["object"] == "Contact"]
    assert len(failed) == 1
    assert failed[0]["text"] == "❌ FND → OS : sync_failed"
    assert set(failed[0]["data"]) == {"kind", "object", "error"}
    stack.org.no_faults()
    ask(stack, "sync", replies=2)
    assert ask(stack, "status")["data"]["state"] == "ok"


def test_api_use_is_warned_of_once(stack: Stack) -> None:
    """`api_limit_warning` when the org's use crosses the mark, once per crossing."""
    since = stack.watcher.mark()
    stack.org.call("POST", "/usage", {"api": 12_500})
    for _ in range(2):
        ask(stack, "sync", replies=2)
    signal = stack.watcher.until_signal("api_limit_warning", since)
    assert signal["text"] == "⚠️ FND → OS : api_limit_warning"
    assert signal["data"]["max"] == 15_000
    assert signal["data"]["used"] >= 12_000
    assert len(stack.watcher.signals("api_limit_warning", since)) == 1
    stack.org.call("POST", "/usage", {"api": 100})
    ask(stack, "sync", replies=2)
    assert ask(stack, "status")["data"]["api"]["used"] < 200


def test_the_allocation_of_events_is_shown_and_warned_of_once(make_stack: MakeStack) -> None:
    """`event_limit_warning` when the events delivered to all subscribers cross the mark; a restart repeats nothing."""
    stack = make_stack()
    stack.org.call("POST", "/usage", {"delivered": 8_500})
    since = stack.watcher.mark()
    stack.start()
    signal = stack.watcher.until_signal("event_limit_warning", since)
    assert signal["text"] == "⚠️ FND → OS : event_limit_warning"
    assert signal["data"] == {"used": 8_500, "max": 10_000}
    contact = stack.org.create("Contact", LastName="Counted")
    stack.until_change(contact)
    stack.restart()
    contact = stack.org.create("Contact", LastName="Counted, too")
    stack.until_change(contact)
    told = stack.health(lambda h: bool(h["stream"]["delivered"]["own"] >= 2))["stream"]["delivered"]
    assert (told["used"], told["max"]) == (stack.org.usage()["delivered"], 10_000)
    assert len(stack.watcher.signals("event_limit_warning", since)) == 1


def test_verify_finds_what_nobody_told(stack: Stack) -> None:
    """A record purged and one changed behind the stream's back: found, repaired, reported."""
    gone, changed = stack.org.create("Contact", LastName="Gone"), stack.org.create("Contact", LastName="Changed")
    for contact in (gone, changed):
        stack.until_change(contact)
    stack.org.change({"op": "delete", "object": "Contact", "id": gone}, announce=False)
    stack.org.change({"op": "purge", "object": "Contact", "id": gone}, announce=False)
    values = {"Phone": "behind"}
    stack.org.change({"op": "update", "object": "Contact", "id": changed, "values": values}, announce=False)
    done = ask(stack, "verify", {"objects": ["Contact"]}, replies=2)
    assert done["state"] == "done"
    found = done["data"]["objects"]["Contact"]
    assert (found["drift"], found["repaired"]) == (2, 2)
    assert found["compared"] == len(stack.org.records("Contact"))
    assert stack.until_change(gone, "delete").json["data"]["origin"] == "repair"
    assert stack.until_change(changed, "update").json["data"]["origin"] == "repair"


def test_records_are_kept_as_retained_messages_if_asked_for(make_stack: MakeStack) -> None:
    """With `mqtt.retain_records` a newcomer finds every record as it stands; a deleted one is cleared."""
    stack = make_stack({"mqtt": {"retain_records": True}})
    stack.start()
    kept, gone = stack.org.create("Contact", LastName="Kept"), stack.org.create("Contact", LastName="Gone")
    stack.org.delete("Contact", gone)
    stack.until_change(gone, "delete")
    cleared = stack.watcher.until(f"{ROOT}/record/Contact/{gone}", lambda m: not m.payload)
    assert cleared.payload == b""
    with stack.newcomer(f"{ROOT}/record/#") as service:
        record = service.until(f"{ROOT}/record/Contact/{kept}")
        assert record.retain
        assert record.json == stack.until_change(kept).json["data"]["record"]
        for name in OBJECTS:  # those that were loaded and that nobody has changed, too
            for record_id in stack.org.records(name):
                service.until(f"{ROOT}/record/{name}/{record_id}")
        assert not service.messages(f"{ROOT}/record/Contact/{gone}")


def test_retained_records_show_a_field_that_came(make_stack: MakeStack) -> None:
    """A new field is read for every record, without a change: the retained messages show it all the same."""
    fields = ["LastName", "Level__c"]
    stack = make_stack({"mqtt": {"retain_records": True}, "objects": {"Contact": {"fields": fields}}})
    stack.start()
    old = next(iter(stack.org.records("Contact")))
    stack.watcher.until(f"{ROOT}/record/Contact/{old}")
    field = {"name": "Level__c", "type": "double", "precision": 5}
    stack.org.call("POST", "/fields", {"object": "Contact", "field": field})
    stack.org.create("Contact", LastName="First of them", Level__c=1)
    stack.watcher.until(f"{ROOT}/record/Contact/{old}", lambda m: "Level__c" in m.json)


def test_everything_works_with_3_1_1(make_stack: MakeStack) -> None:
    """`mqtt.protocol = "3.1.1"`: changes, commands, control and the will, all but message properties."""
    stack = make_stack({"mqtt": {"protocol": "3.1.1"}})
    stack.start()
    contact = stack.org.create("Contact", LastName="Three")
    stack.until_change(contact)
    command = {"command_id": "old", "id": contact, "fields": {"Phone": "1"}, "reply_to": "old/inbox"}
    stack.watcher.send(f"{ROOT}/command/Contact/update", command)
    stack.watcher.until("old/inbox", lambda m: bool(m.json["status"] == "succeeded"))
    assert ask(stack, "status")["ok"] is True
    since = stack.watcher.mark()
    stack.daemon.kill()
    stack.watcher.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "offline"), since=since)
    stack.settled()


def ask(stack: Stack, verb: str, payload: dict[str, Any] | None = None, *, replies: int = 1) -> dict[str, Any]:
    """Send a control message without a reply address; its last reply (`replies`: how many a good one gets)."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/{verb}", payload or b"")
    topic = f"{ROOT}/reply/{verb}"
    first = stack.watcher.until(topic, since=since).json
    return first if replies == 1 or not first["ok"] else stack.watcher.until(topic, since=since, count=replies).json


def status(stack: Stack) -> dict[str, Any]:
    """What is retained on the status topic."""
    with stack.newcomer(f"{ROOT}/status") as service:
        message = service.until(f"{ROOT}/status")
        assert message.retain
        return message.json

"""The change stream broken, late, repeated, unreadable or forgotten: the replica ends equal, holes are announced."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.copies import TRANSPORTS
from tests.e2e.load import People
from tests.e2e.making import MakeStack
from tests.e2e.stack import OBJECTS, Settings, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

FAST_POLLS: Settings = {"objects": {name: {"poll_interval": "1s"} for name in OBJECTS}}
AWAY_S = 73 * 3600
UNAUTHENTICATED = "401::Authentication invalid"


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """What the stream comes over."""
    return str(request.param)


@pytest.fixture(scope="module")
def stack(make_shared: MakeStack, transport: str) -> Stack:
    """A seeded org, and the daemon at work on it."""
    made = make_shared({"salesforce": {"stream": transport}})
    made.start()
    return made


@pytest.fixture(scope="module")
def polled(make_shared: MakeStack, transport: str) -> Stack:
    """A stack whose poller comes round every second."""
    made = make_shared({**FAST_POLLS, "salesforce": {"stream": transport}})
    made.start()
    return made


@pytest.fixture(autouse=True)
def faultless(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing that was ordered for one test is in force in the next."""
    yield
    for name in ("stack", "polled"):
        if name in request.fixturenames:
            shared: Stack = request.getfixturevalue(name)
            shared.org.no_faults()


def end_session(stack: Stack, transport: str) -> None:
    """Without an error, so that what was ordered meets the next one."""
    if transport == "cometd":
        stack.org.call("POST", "/connections/drop", {"path": "/cometd/"})
    else:
        stack.org.fault("pubsub:fetch", close=True)


@pytest.mark.parametrize("transport", ["cometd"], indirect=True)
@pytest.mark.parametrize(
    "effect",
    [
        {"kind": "cometd", "close": True},
        {"kind": "cometd", "status": 503, "html": True},
        {"kind": "cometd", "truncate": True},
        {"kind": "cometd", "drop_response": True},
        {"kind": "cometd:connect", "unknown_client": True},
        {"kind": "cometd:connect", "unknown_client": True, "reconnect": "none"},
        {"kind": "cometd:connect", "disconnect": True},
        {"kind": "cometd:connect", "error": UNAUTHENTICATED},
        {"kind": "cometd:handshake", "error": "403::Handshake denied", "failure_reason": UNAUTHENTICATED},
    ],
    ids=lambda effect: "-".join(map(str, effect.values())),
)
def test_the_session_ends(stack: Stack, transport: str, effect: dict[str, Any]) -> None:
    """Each way in which a session ends is followed by a new one at the stored position; nothing falls between."""
    ends_and_goes_on(stack, transport, effect)


@pytest.mark.parametrize("transport", ["pubsub"], indirect=True)
@pytest.mark.parametrize(
    "effect",
    [
        {"kind": "pubsub:fetch", "close": True},
        {"kind": "pubsub:fetch", "code": "subscription.internal.error"},
        {"kind": "pubsub:fetch", "code": "service.auth.error"},
        {"kind": "pubsub:fetch", "code": "service.unavailable"},
        {"kind": "pubsub:deliver", "drop_response": True},
        {"kind": "pubsub:topic", "code": "service.auth.error"},
        {"kind": "pubsub:subscribe", "close": True},
    ],
    ids=lambda effect: "-".join(map(str, effect.values())),
)
def test_the_subscription_ends(stack: Stack, transport: str, effect: dict[str, Any]) -> None:
    """The same of the Pub/Sub API."""
    ends_and_goes_on(stack, transport, effect)


def ends_and_goes_on(stack: Stack, transport: str, effect: dict[str, Any]) -> None:
    """A fault that ends the session, and edits that all come by the next one."""
    contact = stack.org.create("Contact", LastName="Session")
    stack.until_change(contact)
    stack.org.fault(**effect)
    end_session(stack, transport)
    for number in range(3):
        stack.org.update("Contact", contact, Phone=str(number))
    stack.until_change(contact, "update", count=3)
    assert {c["origin"] for c in stack.changes() if c["id"] == contact} == {"stream"}
    stack.settled()


def test_sessions_end_under_load(stack: Stack, transport: str) -> None:
    """The same, many times, while people edit."""
    ends: dict[str, list[dict[str, Any]]] = {
        "cometd": [{"kind": "cometd:connect", end: True} for end in ("unknown_client", "disconnect", "unknown_client")],
        "pubsub": [{"kind": "pubsub:deliver", end: True} for end in ("close", "drop_response", "close")],
    }
    with People(stack.told["url"], 31, pause_s=0.02):
        for end in ends[transport]:
            stack.org.fault(**end)
            time.sleep(0.4)
    stack.settled()


BUSY: dict[str, dict[str, Any]] = {
    "cometd": {"kind": "cometd:connect", "error": UNAUTHENTICATED, "failure_reason": "503::Server is too busy."},
    "pubsub": {"kind": "pubsub", "code": "service.protection.triggered"},  # RESOURCE_EXHAUSTED
}


def test_a_busy_streaming_server(make_stack: MakeStack, transport: str) -> None:
    """503 behind a 401, or its like: the token is kept, the stream waits minutes, the poller stands in meanwhile."""
    stack = make_stack({**FAST_POLLS, "salesforce": {"stream": transport}})
    stack.start()
    logins = sum(stack.org.usage()["logins"].values())
    contact = stack.org.create("Contact", LastName="Busy")
    stack.until_change(contact)
    stack.org.fault(count=None, **BUSY[transport])
    end_session(stack, transport)
    stack.daemon.until_logged("stream.down")
    health = stack.health(lambda h: bool(h["stream"]["state"] == "down"))
    assert health["state"] == "degraded"
    stack.watcher.until_signal("sync_failed")
    stack.org.update("Contact", contact, Phone="1")
    data = stack.until_change(contact, "update").json["data"]
    assert (data["origin"], data["commit"]) == ("poll", None)
    assert sum(stack.org.usage()["logins"].values()) == logins
    stack.settled()


@pytest.mark.parametrize("how", ["expired", "reset", "72 hours"])
def test_a_forgotten_replay_id(stack: Stack, how: str) -> None:
    """Away too long: the hole is announced, caught up by query, and closed with what was corrected; deletions too."""
    edited, deleted, kept = (stack.org.create("Contact", LastName=f"Away {n}") for n in range(3))
    stack.until_change(kept)
    assert stack.daemon.stop() == 0
    stack.org.update("Contact", edited, Phone="1")
    stack.org.delete("Contact", deleted)
    created = stack.org.create("Contact", LastName="Meanwhile")
    if how == "72 hours":
        stack.org.advance(AWAY_S)
        # An event of today makes the one we stand at too old to be replayed.
        stack.org.update("Contact", kept, Phone="today")
    else:
        stack.org.call("POST", "/replay/expire" if how == "expired" else "/replay/reset", {})
    since = stack.watcher.mark()
    stack.start()
    opened = stack.watcher.until(f"{ROOT}/hole/Contact", since=since).json
    assert (opened["object"], opened["state"], opened["to"]) == ("Contact", "open", None)
    closed = stack.watcher.until(
        f"{ROOT}/hole/Contact", lambda m: bool(m.payload) and bool(m.json["state"] == "closed"), since=since
    ).json
    changes = [c for c in stack.changes(since) if c["object"] == "Contact"]
    assert closed["corrected"] == len(changes)
    assert {edited, deleted, created} <= {c["id"] for c in changes}
    assert closed["from"] == opened["from"] <= closed["to"]
    for name in OBJECTS:
        stack.watcher.until(f"{ROOT}/hole/{name}", lambda m: not m.payload, since=since)
    with stack.newcomer(f"{ROOT}/hole/#", f"{ROOT}/status") as service:
        service.until(f"{ROOT}/status")
        assert not service.messages(f"{ROOT}/hole/#")
    row = stack.replica.rows("SELECT * FROM hole WHERE object = 'Contact' ORDER BY id")[-1]
    assert (row["corrected"], row["closed_at"] is None) == (len(changes), False)
    stack.org.update("Contact", edited, Phone="2")
    stack.until_change(edited, "update", since=since, count=2)
    stack.settled()


def test_a_replay_id_refused_while_it_runs(stack: Stack, transport: str) -> None:
    """The resubscription after a broken session is refused: a hole, not a deaf stream."""
    stack.until_change(stack.org.create("Contact", LastName="Before it"))
    since = stack.watcher.mark()
    stack.org.fault(f"{transport}:subscribe", invalid_replay_id=True)
    end_session(stack, transport)
    stack.watcher.until(f"{ROOT}/hole/Contact", lambda m: bool(m.payload) and m.json["state"] == "closed", since=since)
    assert stack.until_change(stack.org.create("Contact", LastName="After it")).json["data"]["origin"] == "stream"
    stack.settled()


def test_events_delivered_twice(stack: Stack, transport: str) -> None:
    """No change, no message, no new version for the second one."""
    contact = stack.org.create("Contact", LastName="Twice")
    stack.until_change(contact)
    stack.org.fault(f"{transport}:deliver", duplicate=True, count=None)
    for number in range(5):
        stack.org.update("Contact", contact, Phone=str(number))
    stack.org.delete("Contact", contact)
    stack.org.undelete("Contact", contact)
    last = stack.org.create("Contact", LastName="Last")
    stack.until_change(last)
    assert len([c for c in stack.changes() if c["id"] == contact]) == 8
    stack.settled()


@pytest.mark.parametrize("kind", ["GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE"])
def test_gap_events(stack: Stack, kind: str) -> None:
    """The event tells which records, not what: they are read from the org."""
    contact = stack.org.create("Contact", LastName="Gap")
    stack.until_change(contact)
    if kind == "GAP_UNDELETE":
        stack.org.delete("Contact", contact)
        stack.until_change(contact, "delete")
    orders: dict[str, dict[str, Any]] = {
        "GAP_CREATE": {"op": "create", "object": "Contact", "values": {"LastName": "Unseen"}},
        "GAP_UPDATE": {"op": "update", "object": "Contact", "id": contact, "values": {"Phone": "1"}},
        "GAP_DELETE": {"op": "delete", "object": "Contact", "id": contact},
        "GAP_UNDELETE": {"op": "undelete", "object": "Contact", "id": contact},
    }
    record = stack.org.change(orders[kind], announce=False)[0]
    stack.org.call("POST", "/events", {"object": "Contact", "kind": kind, "ids": [record]})
    data = stack.until_change(record, kind.removeprefix("GAP_").lower()).json["data"]
    assert data["origin"] == "repair"
    stack.settled()


@pytest.mark.parametrize("ids", [None, ["003*"]], ids=["overflow", "wildcard"])
def test_an_event_about_all_records(stack: Stack, ids: list[str] | None) -> None:
    """The object is compared with the org as a whole, and only that one; the hole is closed with the count."""
    contacts = [stack.org.create("Contact", LastName=f"Any {n}") for n in range(3)]
    stack.until_change(contacts[-1])
    since = stack.watcher.mark()
    orders: list[dict[str, Any]] = [
        {"op": "update", "object": "Contact", "id": contacts[0], "values": {"Phone": "1"}},
        {"op": "delete", "object": "Contact", "id": contacts[1]},
        {"op": "create", "object": "Contact", "values": {"LastName": "One more"}},
    ]
    stack.org.change(*orders, announce=False)
    event = {"kind": "GAP_OVERFLOW"} if ids is None else {"kind": "UPDATE", "ids": ids}
    stack.org.call("POST", "/events", {"object": "Contact", **event})
    closed = stack.watcher.until(
        f"{ROOT}/hole/Contact", lambda m: bool(m.payload) and bool(m.json["state"] == "closed"), since=since
    ).json
    assert closed["corrected"] == 3
    assert not stack.watcher.messages(f"{ROOT}/hole/Lead", since)
    stack.settled()


@pytest.mark.parametrize("payload", ["not an object", {}, {"ChangeEventHeader": 7}, {"Phone": "no header"}, None])
def test_an_event_that_cannot_be_read(stack: Stack, payload: object) -> None:
    """It is kept in quarantine, what it may have told is asked for, and the stream goes on."""
    before = stack.replica.value("SELECT count(*) FROM quarantine")
    contact = stack.org.create("Contact", LastName="Readable")
    stack.until_change(contact)
    values = {"Phone": "1"}
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": values}, announce=False)
    stack.org.call("POST", "/events", {"object": "Contact", "payload": payload})
    assert stack.until_change(contact, "update").json["data"]["after"] == values
    rows = stack.replica.rows("SELECT * FROM quarantine")
    assert len(rows) == before + 1
    assert rows[-1]["error"]
    assert stack.until_change(stack.org.create("Contact", LastName="After it")).json["data"]["origin"] == "stream"
    stack.settled()


@pytest.mark.parametrize("transport", ["pubsub"], indirect=True)
def test_an_event_that_is_cut_is_settled(stack: Stack) -> None:
    """Its header can be read, its body cannot: the record is read instead, and the event counts as settled."""
    before = stack.replica.value("SELECT count(*) FROM quarantine")
    contact = stack.org.create("Contact", LastName="Cut")
    stack.until_change(contact)
    stack.org.fault("pubsub:deliver", truncate=True)
    stack.org.update("Contact", contact, Phone="1", Description="x" * 900)
    assert stack.until_change(contact, "update").json["data"]["after"] == {"Phone": "1"}
    settled = "SELECT 1 FROM quarantine WHERE settled_at IS NOT NULL AND object = 'Contact'"
    until(lambda: stack.replica.rows(settled))
    assert stack.replica.value("SELECT count(*) FROM quarantine") == before + 1
    stack.settled()


@pytest.mark.parametrize("transport", ["cometd"], indirect=True)
def test_an_event_that_does_not_fit_is_settled(stack: Stack) -> None:
    """Header and record are readable, a value is not: the record is read instead, and the event counts as settled."""
    contact = stack.org.create("Contact", LastName="Misfit")
    stack.until_change(contact)
    values = {"Phone": "1"}
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": values}, announce=False)
    header = {
        "entityName": "Contact",
        "recordIds": [contact],
        "changeType": "UPDATE",
        "changeOrigin": "",
        "transactionKey": "0057fee0-4c3e-f459-02dd-21250b729601",
        "sequenceNumber": 1,
        "commitTimestamp": int(time.time() * 1000),
        "commitNumber": 1,
        "commitUser": "0055f000007SvcUAAS",
    }
    body = {"ChangeEventHeader": header, "Phone": {"diff": "--- \n+++ nonsense"}, "LastModifiedDate": "yesterday"}
    stack.org.call("POST", "/events", {"object": "Contact", "payload": body})
    assert stack.until_change(contact, "update").json["data"]["after"] == values
    until(lambda: stack.replica.rows("SELECT 1 FROM quarantine WHERE settled_at IS NOT NULL"))
    stack.health(lambda h: bool(h["queues"]["quarantine"] == 0 and h["state"] == "ok"))
    stack.settled()


def test_late_events_do_not_turn_records_back(polled: Stack) -> None:
    """The poller is ahead of a stream that is seconds late: what comes late is older or equal, and changes nothing."""
    since = polled.watcher.mark()
    polled.org.set(stream_delay_s=1.5)
    with People(polled.told["url"], 41, pause_s=0.03):
        time.sleep(2.5)
    polled.org.set(stream_delay_s=0)
    polled.settled()
    assert "poll" in {c["origin"] for c in polled.changes(since)}


def test_a_stalled_stream_is_noticed(polled: Stack) -> None:
    """Subscribed, alive and silent: the poller brings the edits; released, the backlog changes nothing."""
    contact = polled.org.create("Contact", LastName="Stalled")
    polled.until_change(contact)
    polled.org.set(stream_stalled=True)
    for number in range(3):
        polled.org.update("Contact", contact, Phone=str(number))
    data = polled.until_change(contact, "update").json["data"]
    assert data["origin"] == "poll"
    polled.until_equal()
    polled.org.set(stream_stalled=False)
    released = {"Phone": "released"}
    polled.org.update("Contact", contact, **released)
    polled.watcher.until(f"{ROOT}/change/Contact/update/{contact}", lambda m: m.json["data"]["after"] == released)
    polled.settled()


def test_stream_and_poller_together_under_load(make_stack: MakeStack, transport: str) -> None:
    """Both bring the same edits all the time, many in one second: each is published once, none turns back."""
    polls = {name: {"poll_interval": "100ms"} for name in OBJECTS}
    stack = make_stack({"objects": polls, "salesforce": {"stream": transport}})
    stack.start()
    with People(stack.told["url"], 42, pause_s=0.005):
        time.sleep(2)
    stack.settled()


def test_without_a_stream(make_stack: MakeStack) -> None:
    """`salesforce.stream = "off"`: the poller alone keeps the replica, and health says so."""
    stack = make_stack({**FAST_POLLS, "salesforce": {"stream": "off", "timeout": "5s"}})
    stack.daemon.launch()
    until(lambda: stack.replica.loaded(OBJECTS))
    contact = stack.org.create("Contact", LastName="Polled")
    stack.until_change(contact)
    stack.org.delete("Contact", contact)
    assert stack.until_change(contact, "delete").json["data"]["origin"] == "poll"
    assert stack.health(lambda h: bool(h["stream"]["state"] == "off"))["state"] == "ok"
    stack.settled()


def test_a_refused_channel(make_stack: MakeStack, transport: str) -> None:
    """No such channel: a person must change something, and health says `failing`; the poller keeps the replica."""
    stack = make_stack({**FAST_POLLS, "salesforce": {"stream": transport}})
    stack.start()
    assert stack.daemon.stop() == 0
    stack.configure({"salesforce": {"channel": "/data/Nonsense__chn"}})
    stack.daemon.launch()
    assert stack.health(lambda h: bool(h["stream"]["state"] == "down"))["state"] == "failing"
    contact = stack.org.create("Contact", LastName="Polled")
    assert stack.until_change(contact).json["data"]["origin"] == "poll"
    stack.settled()


def test_a_record_committed_long_after_its_stamp(polled: Stack) -> None:
    """A transaction that was open for a while becomes visible with an old stamp: the poller's look back finds it."""
    contact = polled.org.create("Contact", LastName="Held")
    polled.until_change(contact)
    polled.org.set(stream_stalled=True)
    order = {"op": "update", "object": "Contact", "id": contact, "values": {"Phone": "held"}}
    held = polled.org.call("POST", "/changes", {"changes": [order], "hold": True})["transaction"]
    polled.org.create("Contact", LastName="Later")
    time.sleep(2.2)  # polls come and go meanwhile
    polled.org.call("POST", f"/transactions/{held}/commit", {})
    polled.until_change(contact, "update")
    polled.org.set(stream_stalled=False)
    polled.settled()

"""The org restarted, unreachable, busy, over its quota, or with other tokens: waited out, and nothing is lost."""

import time

import pytest

from tests.e2e.load import People
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT


def test_the_org_restarts(stack: Stack) -> None:
    """Its sessions are gone and its edits of the first moment too early for us: the stream resumes where it was."""
    contact = stack.org.create("Contact", LastName="Restart")
    stack.until_change(contact)
    for number in range(3):
        stack.restart_org()
        stack.org.update("Contact", contact, Phone=str(number))
        data = stack.until_change(contact, "update", count=number + 1).json["data"]
        assert (data["after"], data["origin"]) == ({"Phone": str(number)}, "stream")
    stack.settled()


def test_the_org_is_down_at_a_later_start(stack: Stack) -> None:
    """What is known is served: the daemon starts, takes commands, and goes on once the org answers."""
    contact = stack.org.create("Contact", LastName="Down")
    stack.until_change(contact)
    stack.daemon.kill()
    stack.org_process.stop()
    stack.daemon.launch()
    stack.daemon.until_logged("mesh.connected")
    payload = {"command_id": "patient", "id": contact, "fields": {"Phone": "1"}}
    stack.watcher.send(f"{ROOT}/command/Contact/update", payload)
    assert stack.watcher.until(f"{ROOT}/result/patient").json["status"] == "accepted"
    stack.health(lambda h: bool(h["state"] == "degraded"))
    stack.org_process.start()
    done = stack.watcher.until(f"{ROOT}/result/patient", lambda m: bool(m.json["completed_at"])).json
    assert done["status"] == "succeeded"
    stack.until_change(contact, "update")
    stack.settled()


OTHER_ORG = "00D5f00000OtherEAB"


@pytest.mark.parametrize("running", [False, True], ids=["it was away at the start", "it was there"])
def test_the_org_comes_back_as_another_one(make_stack: MakeStack, running: bool) -> None:
    """Another organization id behind the same address: exit 2, in words, before anything of it is in the replica."""
    stack = make_stack()
    stack.start()
    contact = stack.org.create("Contact", LastName="Ours")
    stack.until_change(contact)
    before, rows = stack.replica.last_version(), stack.replica.records("Contact")
    if not running:
        stack.daemon.stop()
    stack.org.call("POST", "/organization", {"id": OTHER_ORG})
    stack.org.call("POST", "/connections/drop", {"path": "/cometd/"})
    stack.org.update("Contact", contact, LastName="Theirs")
    stack.org.create("Contact", LastName="Theirs as well")
    if not running:
        stack.org_process.stop()
        stack.daemon.launch()
        stack.daemon.until_logged("app.org_unreachable")
        stack.daemon.until_logged("mesh.connected")
        stack.org_process.start()
    assert stack.daemon.wait() == 2
    assert f"the login is of org {OTHER_ORG}: set another storage.path" in stack.daemon.last_words()
    assert "Traceback" not in stack.daemon.text()
    assert (stack.replica.last_version(), stack.replica.records("Contact")) == (before, rows)
    stack.daemon.launch()
    assert stack.daemon.wait() == 2


def test_connections_are_dropped_under_load(stack: Stack) -> None:
    """Streams and calls cut in the middle of whatever they carry, again and again."""
    with People(stack.told["url"], 21, pause_s=0.02) as people:
        for _ in range(6):
            time.sleep(0.3)
            stack.org.call("POST", "/connections/drop", {"path": "/cometd/"})
        stack.watcher.send(f"{ROOT}/control/sync", b"{}")
        stack.org.call("POST", "/connections/drop", {"path": "/services/"})
    assert people.edits > 20
    stack.settled()


def test_one_login_for_all_that_saw_the_token_expire(stack: Stack) -> None:
    """Stream, poll and many commands find the token dead at the same moment: one request, and all go on."""
    contacts = [stack.org.create("Contact", LastName=f"Token {n}") for n in range(12)]
    for contact in contacts:
        stack.until_change(contact)
    before = sum(stack.org.usage()["logins"].values())
    stack.org.call("POST", "/tokens/expire", {})
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    for number, contact in enumerate(contacts):
        payload = {"command_id": f"token-{number}", "id": contact, "fields": {"Phone": "1"}}
        stack.watcher.send(f"{ROOT}/command/Contact/update", payload, wait=False)
    for number in range(len(contacts)):
        done = stack.watcher.until(f"{ROOT}/result/token-{number}", lambda m: bool(m.json["completed_at"])).json
        assert done["status"] == "succeeded"
    for contact in contacts:
        stack.until_change(contact, "update")
    stack.settled()
    assert sum(stack.org.usage()["logins"].values()) - before == 1


def test_tokens_expire_under_load(stack: Stack) -> None:
    """Each expiry costs one login; edits go on arriving."""
    before = sum(stack.org.usage()["logins"].values())
    with People(stack.told["url"], 22, pause_s=0.02):
        for _ in range(3):
            time.sleep(0.4)
            stack.org.call("POST", "/tokens/expire", {})
            stack.org.call("POST", "/connections/drop", {"path": "/cometd/"})
    stack.settled()
    assert 1 <= sum(stack.org.usage()["logins"].values()) - before <= 3


def test_refused_credentials_leave_the_daemon_up(stack: Stack) -> None:
    """The password was changed while it ran: failing for a person to see, one login tried, reads and intake go on."""
    stack.restart()  # logins that follow one another too fast are held back
    contact = stack.org.create("Contact", LastName="Refused")
    stack.until_change(contact)
    stack.org.fault("oauth", status=400, code="invalid_grant", message="authentication failure", count=None)
    stack.org.call("POST", "/tokens/expire", {})
    stack.org.call("POST", "/connections/drop", {"path": "/cometd/"})
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    stack.health(lambda h: bool(h["state"] == "failing"))
    stack.watcher.send(f"{ROOT}/query/Contact/get", {"id": contact, "reply_to": "ops/refused"})
    assert stack.watcher.until("ops/refused").json["records"][0]["LastName"] == "Refused"
    stack.watcher.send(
        f"{ROOT}/command/Contact/update", {"command_id": "later", "id": contact, "fields": {"Phone": "1"}}
    )
    assert stack.watcher.until(f"{ROOT}/result/later").json["status"] == "accepted"
    time.sleep(2.5)  # over several back-offs
    assert len(stack.daemon.events("login.refused")) == 1
    assert "Traceback" not in stack.daemon.text()
    # A later start with the same refusal serves what the replica holds.
    stack.daemon.stop()
    stack.daemon.launch()
    health = stack.health(lambda h: bool(h["state"] == "failing" and h["objects"]))
    assert health["objects"]["Contact"]["records"] == len(stack.org.records("Contact"))
    stack.org.no_faults()
    stack.daemon.stop()
    stack.start()
    done = stack.watcher.until(f"{ROOT}/result/later", lambda m: bool(m.json["completed_at"])).json
    assert done["status"] == "succeeded"
    stack.settled()


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 503, "code": "SERVER_UNAVAILABLE"},
        {"status": 502, "html": True},
        {"status": 500, "code": "UNKNOWN_EXCEPTION"},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"close": True},
        {"truncate": True},
        {"drop_response": True},
        {"status": 200, "html": True},
    ],
    ids=lambda effect: "-".join(f"{v}" for v in effect.values() if not isinstance(v, dict)),
)
def test_rest_calls_fail_for_a_while(stack: Stack, effect: dict[str, object]) -> None:
    """Whatever a call meets, it is made again: an edit behind the stream's back is found, a command succeeds."""
    contact = stack.org.create("Contact", LastName="Calls")
    stack.until_change(contact)
    values = {"Email": "silent@example.com"}
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": values}, announce=False)
    stack.org.fault("rest", count=2, **effect)
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    command_id = f"again-{contact}"
    payload = {"command_id": command_id, "id": contact, "fields": {"Phone": "1"}}
    stack.watcher.send(f"{ROOT}/command/Contact/update", payload)
    done = stack.watcher.until(f"{ROOT}/result/{command_id}", lambda m: bool(m.json["completed_at"])).json
    assert done["status"] == "succeeded"
    stack.org.no_faults()
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    stack.until_change(contact, "update", count=2)
    stack.settled()
    assert "Traceback" not in stack.daemon.text()


def test_a_call_that_is_never_answered(stack: Stack) -> None:
    """A half-open connection ends with the time-out, and the command is tried again."""
    contact = stack.org.create("Contact", LastName="Half open")
    stack.until_change(contact)
    stack.org.fault("rest", path="/composite$|/sobjects/Contact/", half_open=True)
    payload = {"command_id": "unanswered", "id": contact, "fields": {"Phone": "1"}}
    stack.watcher.send(f"{ROOT}/command/Contact/update", payload)
    done = stack.watcher.until(f"{ROOT}/result/unanswered", lambda m: bool(m.json["completed_at"]), timeout_s=20).json
    assert (done["status"], done["attempts"]) == ("succeeded", 2)
    stack.settled()


def test_a_spent_quota_holds_calls_and_not_the_stream(make_stack: MakeStack) -> None:
    """403 REQUEST_LIMIT_EXCEEDED is no bad login: commands wait, edits go on arriving, all resumes by itself."""
    stack = make_stack()
    stack.start()
    contact = stack.org.create("Contact", LastName="Quota")
    stack.until_change(contact)
    logins = sum(stack.org.usage()["logins"].values())
    stack.org.call("POST", "/usage", {"api": 15_000})
    payload = {"command_id": "over", "fields": {"LastName": "Over quota"}}
    stack.watcher.send(f"{ROOT}/command/Contact/create", payload)
    assert stack.watcher.until(f"{ROOT}/result/over").json["status"] == "accepted"
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    stack.health(lambda h: bool(h["state"] != "ok"))
    stack.org.update("Contact", contact, Phone="1")
    assert stack.until_change(contact, "update").json["data"]["origin"] == "stream"
    assert len(stack.watcher.messages(f"{ROOT}/result/over")) == 1
    assert sum(stack.org.usage()["logins"].values()) == logins
    assert stack.watcher.signals("api_limit_warning")


@pytest.mark.parametrize("hours", [3, -3])
def test_the_orgs_clock_is_not_ours(stack: Stack, hours: int) -> None:
    """Three hours ahead or behind: only the org's own stamps count, for stream, poll, load and commands alike."""
    stack.daemon.stop()
    stack.org.advance(hours * 3600)
    stack.start()
    contact = stack.org.create("Contact", LastName="Clock")
    stack.until_change(contact)
    stack.org.update("Contact", contact, Phone="1")
    stack.until_change(contact, "update")
    values = {"Email": "silent@example.com"}
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": values}, announce=False)
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    assert stack.until_change(contact, "update", count=2).json["data"]["origin"] == "poll"
    command_id = f"skewed-{contact}"
    payload = {"command_id": command_id, "id": contact, "fields": {"Phone": "2"}}
    stack.watcher.send(f"{ROOT}/command/Contact/update", payload)
    done = stack.watcher.until(f"{ROOT}/result/{command_id}", lambda m: bool(m.json["completed_at"])).json
    assert done["status"] == "succeeded"
    stack.until_change(contact, "update", count=3)
    stack.restart()
    stack.settled()


def test_the_orgs_clock_jumps_while_it_runs(stack: Stack) -> None:
    """Ahead and back again: edits of both times arrive, and the poller goes on finding what nobody told."""
    contact = stack.org.create("Contact", LastName="Jump")
    for count, jump in enumerate((7200, -7200), start=1):
        stack.org.advance(jump)
        stack.org.update("Contact", contact, Phone=str(count))
        stack.until_equal()
    values = {"Email": "silent@example.com"}
    stack.org.change({"op": "update", "object": "Contact", "id": contact, "values": values}, announce=False)
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    until(lambda: (stack.replica.record("Contact", contact) or {})["Email"] == "silent@example.com")
    stack.settled()

"""The broker killed, stopped, forgetful or absent: everything waits on disk, in order, and health says so."""

import time
from typing import Any

from tests.e2e.load import People, Service, keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT, Watcher


def test_retained_topics_come_back(stack: Stack) -> None:
    """A broker that forgot everything gets status, health and open holes again."""
    stack.org.call("POST", "/events", {"object": "Lead", "kind": "GAP_OVERFLOW"})
    stack.org.fault("rest", path="/query", status=503, count=None)  # so that the hole stays open
    stack.watcher.until(f"{ROOT}/hole/Lead", lambda m: bool(m.json["state"] == "open"))
    stack.restart_broker(forgetful=True)
    with stack.newcomer() as service:
        assert service.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "online"))
        assert service.until(f"{ROOT}/health")
        assert service.until(f"{ROOT}/hole/Lead").json["state"] == "open"
    with stack.newcomer() as service:
        for topic in ("status", "health", "hole/Lead"):
            assert service.until(f"{ROOT}/{topic}").retain
    stack.org.no_faults()


def test_retained_records_come_back(make_stack: MakeStack) -> None:
    """So do the records, where they are kept."""
    stack = make_stack({"mqtt": {"retain_records": True}})
    stack.start()
    contact = stack.org.create("Contact", LastName="Kept")
    stack.until_change(contact)
    stack.restart_broker(forgetful=True)
    with stack.newcomer(f"{ROOT}/record/#") as service:
        for record_id in stack.org.records("Contact"):
            service.until(f"{ROOT}/record/Contact/{record_id}")


def test_edits_while_the_broker_is_down(stack: Stack) -> None:
    """They wait on disk and come in version order once it is back; the replica was current all the time."""
    contact = stack.org.create("Contact", LastName="Patient")
    stack.until_change(contact)
    stack.kill_broker(forgetful=True)
    for number in range(30):
        stack.org.update("Contact", contact, Phone=str(number))
    stack.until_equal()
    until(lambda: len(stack.replica.rows("SELECT 1 FROM change WHERE published_at IS NULL")) == 30)
    return_of_the_broker(stack)
    stack.until_change(contact, "update", count=30)
    stack.settled()


def test_a_restart_while_the_broker_is_down(stack: Stack) -> None:
    """The daemon starts without the broker, and what waited before the start is published after it."""
    contact = stack.org.create("Contact", LastName="Patient")
    stack.until_change(contact)
    stack.kill_broker()
    stack.org.update("Contact", contact, Phone="before")
    stack.until_equal()
    stack.daemon.kill()
    stack.daemon.launch()
    stack.daemon.until_logged("stream.subscribed")
    stack.org.update("Contact", contact, Phone="after")
    stack.until_equal()
    return_of_the_broker(stack)
    stack.until_change(contact, "update", count=2)
    stack.settled()


def test_the_broker_is_absent_at_the_first_start(make_stack: MakeStack) -> None:
    """The load does not wait for the mesh; its signals are there when the mesh is."""
    stack = make_stack()
    stack.kill_broker(forgetful=True)
    stack.daemon.launch()
    until(lambda: stack.replica.loaded(stack.objects))
    stack.until_equal()
    return_of_the_broker(stack)
    for name in stack.objects:
        stack.watcher.until_signal("sync_complete", kind="first_load", objects=[name])


def test_a_frozen_broker(stack: Stack) -> None:
    """SIGSTOP: connections stay open and nothing is answered; noticed by keepalive, nothing is lost."""
    contact = stack.org.create("Contact", LastName="Frozen")
    stack.until_change(contact)
    stack.broker.freeze()
    for number in range(50):
        stack.org.update("Contact", contact, Phone=str(number))
    stack.until_equal()
    stack.daemon.until_logged("mesh.disconnected")
    stack.broker.thaw()
    stack.until_change(contact, "update", count=50)
    stack.settled()


def test_a_flapping_broker_under_load(stack: Stack) -> None:
    """Killed again and again while people edit: every version is published, in order."""
    with People(stack.told["url"], 11):
        for _ in range(3):
            time.sleep(0.3)
            stack.restart_broker()
    stack.until_equal()
    until(lambda: not stack.replica.rows("SELECT 1 FROM change WHERE published_at IS NULL"))
    rows = stack.replica.rows("SELECT version FROM change ORDER BY version")
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    # The order held through every retry: a version that comes first comes behind all that came before it.
    first: dict[int, int] = {}
    for at, change in enumerate(stack.watcher.messages(f"{ROOT}/change/#")):
        first.setdefault(change.json["data"]["version"], at)
    assert sorted(first, key=lambda version: first[version]) == sorted(first)


def test_commands_through_a_broker_that_restarts(make_stack: MakeStack) -> None:
    """An orderly restart keeps session and queue: every command gets its one effect and its result."""
    stack = keyed(make_stack)
    with Service(stack) as service:
        for _ in range(2):
            time.sleep(0.3)
            stack.stop_broker()
            stack.start_broker()
            stack.watcher.until_connected()
    service.check()
    stack.until_equal()


def test_health_tells_of_the_time_without_a_broker(stack: Stack) -> None:
    """Back again, the connector is born anew and its health is current."""
    born = status_of(stack)["since"]
    stack.restart_broker()
    until(lambda: status_of(stack)["since"] != born)
    stack.health(lambda h: bool(h["state"] == "ok" and h["queues"]["outbox"] == 0))


def status_of(stack: Stack) -> dict[str, Any]:
    """What is retained on the status topic; of a broker that just came back perhaps the will."""
    with stack.newcomer(f"{ROOT}/status") as service:
        return service.until(f"{ROOT}/status").json


def return_of_the_broker(stack: Stack) -> None:
    """Start the broker, and let the watcher subscribe before the daemon publishes."""
    stack.daemon.freeze()
    try:
        stack.start_broker()
        stack.watcher.until_connected()
        wait_for_subscription(stack.watcher)
    finally:
        stack.daemon.thaw()


def wait_for_subscription(watcher: Watcher) -> None:
    """Return once the watcher receives."""
    since = watcher.mark()

    def receives() -> bool:
        watcher.send("test/probe", b"x")
        return bool(watcher.messages("test/probe", since))

    until(receives)

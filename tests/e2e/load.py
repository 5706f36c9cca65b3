"""People and a service at work, while something goes wrong."""

import itertools
import random
import threading
from types import TracebackType
from typing import Any, Self

from tests.e2e.making import MakeStack
from tests.e2e.org import OrgAdmin, creation
from tests.e2e.stack import OBJECTS, Stack
from tests.e2e.watcher import ROOT

_PAUSE_S = 0.01
_NUMBERS = itertools.count(1)
_OF_SERVICE = "By a service"
_FIELDS = {
    "Account": ("Name", "Industry"),
    "Contact": ("FirstName", "LastName", "Phone"),
    "Lead": ("LastName", "Company"),
    "Opportunity": ("Name", "Amount"),
}


def keyed(make_stack: MakeStack) -> Stack:
    """A running stack whose contacts have an external id for commands."""
    stack = make_stack({"objects": {"Contact": {"external_id": "Key__c"}}})
    key = {"name": "Key__c", "type": "string", "length": 128, "externalId": True, "unique": True, "idLookup": True}
    stack.org.call("POST", "/fields", {"object": "Contact", "field": key})
    stack.start()
    return stack


class People:
    """Edit, create, delete and bring back records of the default objects, by chance, until the context ends."""

    def __init__(self, url: str, seed: int, *, pause_s: float = _PAUSE_S) -> None:
        self._url = url
        self._rng = random.Random(seed)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._ids: dict[str, list[str]] = {}
        self._bin: list[tuple[str, str]] = []
        self.failure: BaseException | None = None
        self.edits = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None and self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            with OrgAdmin(self._url) as org:
                self._ids = {name: _of_people(org, name) for name in OBJECTS}
                while not self._stop.wait(self._pause_s):
                    self._some(org)
                    self.edits += 1
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self.failure = error

    def _some(self, org: OrgAdmin) -> None:
        """One transaction of one to three edits."""
        orders = [self._one() for _ in range(self._rng.choice((1, 1, 1, 3)))]
        # One record at most once: the order of the edits is then that of the transaction.
        unlike = {o.get("id", number): o for number, o in enumerate(orders)}
        made = org.change(*unlike.values())
        for order, record_id in zip(unlike.values(), made, strict=True):
            if order["op"] == "create":
                self._ids[order["object"]].append(record_id)
            elif order["op"] == "delete":
                self._ids[order["object"]].remove(record_id)
                self._bin.append((order["object"], record_id))
            elif order["op"] == "undelete":
                self._bin.remove((order["object"], record_id))
                self._ids[order["object"]].append(record_id)

    def _one(self) -> dict[str, Any]:
        rng = self._rng
        name, roll = rng.choice(OBJECTS), rng.random()
        if roll < 0.1 or len(self._ids[name]) < 3:
            return creation(name)
        if roll < 0.16 and name != "Account":  # whose contacts would go along
            return {"op": "delete", "object": name, "id": rng.choice(self._ids[name])}
        if roll < 0.2 and self._bin:
            name, record_id = rng.choice(self._bin)
            return {"op": "undelete", "object": name, "id": record_id}
        field = rng.choice(_FIELDS[name])
        value: Any = rng.randrange(10_000) if field == "Amount" else f"{field} {rng.randrange(10_000)}"
        return {"op": "update", "object": name, "id": rng.choice(self._ids[name]), "values": {field: value}}


def _of_people(org: OrgAdmin, name: str) -> list[str]:
    """Records that no service counts on."""
    return [i for i, row in org.records(name).items() if not str(row.get("LastName")).startswith(_OF_SERVICE)]


class Service:
    """Sends commands to create contacts and to update its own record, at a steady rate, until the context ends.

    For a stack of `keyed`: without an external id a create whose answer is lost may have to wait for minutes.
    """

    def __init__(self, stack: Stack, *, pause_s: float = 5 * _PAUSE_S) -> None:
        self._stack = stack
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.own = stack.org.create("Contact", LastName=f"{_OF_SERVICE}, its own")
        self.creates: list[str] = []
        self.updates: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.creates.append(self._send("create", {"fields": {"LastName": self._name(len(self.creates))}}))
            values = {"Phone": str(len(self.updates))}
            self.updates.append(self._send("update", {"id": self.own, "fields": values, "on_conflict": "overwrite"}))

    def _name(self, number: int) -> str:
        return f"{_OF_SERVICE} {self.own}, {number}"

    def _send(self, operation: str, payload: dict[str, Any]) -> str:
        command_id = f"load-{next(_NUMBERS)}"
        topic = f"{ROOT}/command/Contact/{operation}"
        self._stack.watcher.send(topic, {"command_id": command_id, **payload}, wait=False)
        return command_id

    def check(self) -> None:
        """Every command has its final result, and the org shows each effect once.

        Raises:
            AssertionError: It has not, or one was done twice or not at all.
        """
        results = self._results([*self.creates, *self.updates])
        contacts = self._stack.org.records("Contact")
        names = [row["LastName"] for row in contacts.values()]
        for number, command_id in enumerate(self.creates):
            made, status = names.count(self._name(number)), results[command_id]
            assert (status, made) == ("succeeded", 1), (command_id, status, made)
        assert {results[command_id] for command_id in self.updates} == {"succeeded"}
        assert contacts[self.own]["Phone"] == str(len(self.updates) - 1)

    def _results(self, command_ids: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for command_id in command_ids:
            done = self._stack.watcher.until(
                f"{ROOT}/result/{command_id}", lambda m: bool(m.json["status"] != "accepted"), timeout_s=30
            ).json
            found[command_id] = done["status"]
        return found

"""A service that commands the connector over the mesh and keeps what it is answered."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.watcher import ROOT, Watcher
from tests.faults.soak.edits import Editor
from tests.faults.soak.fields import OBJECTS, TEXTS, values_for
from tests.faults.soak.malformed import SPOILT, unreadable

REPLIES = "soak/replies"
FINAL = frozenset({"succeeded", "failed", "conflict", "rejected", "expired", "unknown"})
# The field of each object that only commands write, each a text that nobody else writes.
MARKED: Mapping[str, str] = {
    "Account": "Fax",
    "Contact": "Fax",
    "Lead": "Fax",
    "Opportunity": "NextStep",
    "Invoice__c": "Notes__c",
}
KEY = "BlackRoad_Key__c"
KEYED = "Invoice__c"  # the object with an external id
# By origin, whoever's user it is: what the connector wrote.
JOBS = "com/salesforce/api/bulkapi/"
OURS = ("com/salesforce/api/rest/", JOBS)
_KEYS = 4
_MOST_IN_BURST = 12


@dataclass(frozen=True, slots=True)
class Lost:
    """The connector had to go on without the org's answer.

    Attributes:
        began_ms: When it had sent the command last, by the org's clock.
        waited_ms: From then to the command's end, by the connector's clock.
    """

    began_ms: int
    waited_ms: int


@dataclass(slots=True)
class Asked:
    """One command.

    Attributes:
        mark: The text that it writes into its object's marked field; also its correlation.
        command_id: None: it was sent without.
        heard: The daemon had subscribed when it was sent.
        copies: Messages sent of it.
        results: Payloads of its results as they arrived.
    """

    mark: str
    object: str
    operation: str
    body: dict[str, Any]
    command_id: str | None
    valid: bool = True
    heard: bool = False
    copies: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)
    lost: Lost | None = None

    @property
    def final(self) -> dict[str, Any] | None:
        """The result that ends it."""
        return next((result for result in self.results if result["status"] in FINAL), None)

    @property
    def settled(self) -> bool:
        """Answered for good."""
        return self.final is not None

    @property
    def tried_again(self) -> bool:
        """The connector had to ask the org what had become of it, or to send it again."""
        return self.lost is not None or (self.final or {}).get("attempts", 0) > 1

    def __str__(self) -> str:
        target = self.body.get("id") or self.body.get("external_id") or ""
        return f"{self.mark}: {self.operation} {self.object} {target} {'with id' if self.command_id else 'without id'}"


class Service:
    """Sends commands and keeps their results.

    Attributes:
        asked: Everything that was commanded, by mark.
    """

    def __init__(self, watcher: Watcher, editor: Editor, seed: int, *, mqtt5: bool, heard: Callable[[], bool]) -> None:
        """`mqtt5`: the daemon speaks it; `heard`: it has subscribed."""
        self._heard = heard
        self._watcher = watcher
        self._editor = editor
        self._seed = seed
        self._mqtt5 = mqtt5
        self._read = 0
        self._bad = 0
        self.asked: dict[str, Asked] = {}

    def command(self, rng: random.Random) -> str:
        """Make up a command and send it; its line for the trace."""
        asked = self._made(rng)
        self.asked[asked.mark] = asked
        self.send(asked, copies=2 if asked.command_id and rng.random() < 0.1 else 1)
        return str(asked)

    def burst(self, rng: random.Random) -> str:
        """Many commands of one kind at once, which need no look at their records: what an ingest job may carry."""
        first = self._made(rng)
        kinds = {"upsert": ("upsert",), "create": ("create",)}.get(first.operation, ("update", "update", "delete"))
        operation, lines = rng.choice(kinds), []
        for _ in range(rng.randint(3, _MOST_IN_BURST)):
            asked = self._made(rng, first.object, operation)
            if operation in ("update", "delete"):
                asked.body["on_conflict"] = "overwrite"
                asked.body.pop("base", None)
            self.asked[asked.mark] = asked
            self.send(asked)
            lines.append(str(asked))
        return " | ".join(lines)

    def repeat(self, rng: random.Random) -> str:
        """Send an earlier command again."""
        earlier = [a for a in self.asked.values() if a.command_id]
        if not earlier:
            return "nothing to repeat"
        asked = rng.choice(earlier)
        self.send(asked)
        return f"again {asked.mark}"

    def malformed(self, rng: random.Random) -> str:
        """Send what must be refused: with a result where there is enough to answer, else with a report."""
        name, operation = "Contact", "update"
        mark = f"mark-{self._seed}-bad-{self._bad}"
        self._bad += 1
        command_id = f"soak-{mark}"
        body = {
            "command_id": command_id,
            "correlation": mark,
            "reply_to": REPLIES,
            "id": rng.choice(self._editor.live(name) or ["003000000000000AAA"]),
            "fields": {MARKED[name]: mark},
        }
        topic = f"{ROOT}/command/{name}/{operation}"
        match rng.randrange(4):
            case 0:
                self._watcher.send(topic, unreadable(rng, body), wait=False)
                return f"unreadable {mark}"
            case 1:
                self._watcher.send(
                    rng.choice((f"{ROOT}/command/{name}/explode", f"{ROOT}/command/NoSuch/{operation}")),
                    body,
                    wait=False,
                )
                return f"elsewhere {mark}"
            case 2 if self._mqtt5:
                # Which a subscriber of MQTT 3.1.1 cannot tell from any other as long as it is connected.
                self._watcher.send(topic, body, retain=True, wait=False)
                return f"retained {mark}"
            case _:
                kind = rng.randrange(len(SPOILT))
                asked = Asked(mark, name, operation, dict(SPOILT[kind](body)), command_id, valid=False)
                self.asked[mark] = asked
                self.send(asked)
                return f"spoilt {kind}: {asked}"

    def send(self, asked: Asked, copies: int = 1) -> None:
        """Put it on the mesh; the client sends it again by itself if the link breaks."""
        asked.heard = asked.heard or self._heard()
        for _ in range(copies):
            asked.copies += 1
            self._watcher.send(f"{ROOT}/command/{asked.object}/{asked.operation}", asked.body, wait=False)

    def read(self) -> None:
        """Take in the results that have arrived."""
        by_id = {asked.command_id: asked for asked in self.asked.values() if asked.command_id}
        mark = self._watcher.mark()
        for message in self._watcher.messages("#", self._read):
            if not (message.topic.startswith(f"{ROOT}/result/") or message.topic == REPLIES):
                continue
            result = message.json
            asked = by_id.get(result["command_id"]) or self.asked.get(str(result.get("correlation")))
            if asked is not None and result not in asked.results:
                asked.results.append(result)
        self._read = mark

    def open(self) -> list[Asked]:
        """Commands without a final result."""
        self.read()
        return [asked for asked in self.asked.values() if not asked.settled]

    def _made(self, rng: random.Random, name: str = "", operation: str = "") -> Asked:
        """Of any object and operation that is not given."""
        mark = f"mark-{self._seed}-{len(self.asked)}"
        name = name or rng.choice(OBJECTS)
        operation = operation or rng.choices(("create", "update", "delete", "upsert"), (5, 9, 2, 4))[0]
        name = KEYED if operation == "upsert" else name
        body: dict[str, Any] = {"reply_to": REPLIES, "correlation": mark}
        command_id = f"soak-{self._seed}-{len(self.asked)}" if rng.random() < 0.85 else None
        if command_id:
            body["command_id"] = command_id
        if operation in ("update", "delete"):
            body["id"] = rng.choice(self._editor.live(name) or ["003000000000000AAA"])
        if operation == "upsert":
            body["external_id"] = {"field": KEY, "value": f"key-{rng.randrange(_KEYS)}"}
        if operation != "delete":
            body["fields"] = self._fields(rng, name, operation, mark)
        if operation == "update":
            body["on_conflict"] = rng.choice(("merge", "merge", "reject", "overwrite"))
            if rng.random() < 0.3 and (base := self._base(rng, name, body["id"])):
                body["base"] = base
        if rng.random() < 0.05:
            soon = datetime.now(UTC) + timedelta(milliseconds=rng.randint(1, 500))
            body["expires_at"] = soon.isoformat().replace("+00:00", "Z")
        valid = rng.random() < 0.95 or operation == "delete"
        if not valid:
            body["fields"]["NoSuchField"] = 1
        return Asked(mark, name, operation, body, command_id, valid)

    def _base(self, rng: random.Random, name: str, record_id: str) -> dict[str, Any] | None:
        """A state of the record that a service may have seen, not always the newest."""
        if rng.random() < 0.5:
            stamps = [row["LastModifiedDate"] for row in self._editor.rows(name) if row["Id"] == record_id]
            return {"last_modified": stamps[0]} if stamps else None
        told = self._watcher.messages(f"{ROOT}/change/{name}/+/{record_id}")
        return {"version": rng.choice(told).json["data"]["version"]} if told else None

    def _fields(self, rng: random.Random, name: str, operation: str, mark: str) -> dict[str, Any]:
        fields: dict[str, Any] = {MARKED[name]: mark}
        if operation != "update":
            needed = values_for(rng, self._editor, name, creating=True)
            fields = {**needed, **fields}
        elif rng.random() < 0.5:
            fields[TEXTS[name]] = f"{mark} {rng.randrange(10)}"
        return fields


def body_of(asked: Asked) -> str:
    """What was sent, for the trace."""
    return json.dumps(asked.body, ensure_ascii=False)

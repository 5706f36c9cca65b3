"""Faults on order: what shall go wrong, where, and how often."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connector.devorg.errors import OrgError

KINDS = (
    "rest",  # any call below /services/data/
    "bulk",  # calls below /services/data/vXX.X/jobs/
    "oauth",  # /services/oauth2/, /services/Soap/ and the identity URL
    "cometd",  # a whole HTTP request to /cometd/, before it is read
    "cometd:handshake",  # one Bayeux message of that channel
    "cometd:connect",
    "cometd:subscribe",
    "cometd:deliver",  # a batch of events on its way to a subscriber
    "pubsub",  # any RPC of the Pub/Sub API
    "pubsub:topic",  # GetTopic; `path` is searched in the topic's name
    "pubsub:schema",  # GetSchema; in the schema's id
    "pubsub:subscribe",  # the first request of a Subscribe; in the topic's name
    "pubsub:fetch",  # a subscription that waits for events
    "pubsub:deliver",  # a batch of events on its way to its subscriber
)
MOST_FAULTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One ordered fault: where it strikes (kind, method, path), how often, and what happens.

    Attributes:
        kind: One of `KINDS`.
        method: HTTP method, empty for any.
        path: Regular expression searched in the path with its query string, empty for any.
        count: Strikes so often; None is until it is cleared.
        skip: Lets so many matching occasions pass first.
        delay_s: Real seconds to wait first; without any other effect the request then goes on as usual.
        status: HTTP status of the answer; 0 is none of it.
        code: `errorCode` (REST, Bulk), `error` (OAuth) or error code (Pub/Sub, without its prefix) of the answer.
        message: Its text.
        body: The answer's body as it stands, in place of `code` and `message`.
        html: The answer is a gateway's HTML page.
        headers: Further headers of the answer.
        close: Close the connection before the request is looked at.
        drop_response: Carry the request out, then close the connection in place of an answer.
        truncate: Carry the request out and close the connection in the middle of the answer; of Pub/Sub events, cut
            each payload in its middle.
        half_open: Never answer, keep the connection.
        error: Bayeux `error` of the refused message, for instance `403::Subscription limit exceeded`.
        failure_reason: Its `ext.sfdc.failureReason`.
        reconnect: Its `advice.reconnect`, where it differs from what is documented for the error.
        unknown_client: The session is forgotten: `403::Unknown client`.
        invalid_replay_id: The replay id is refused.
        disconnect: An unsolicited `/meta/disconnect` goes before the answer.
        duplicate: The events are delivered twice.
    """

    kind: str
    method: str = ""
    path: str = ""
    count: int | None = 1
    skip: int = 0
    delay_s: float = 0
    status: int = 0
    code: str = ""
    message: str = ""
    body: str | None = None
    html: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False
    drop_response: bool = False
    truncate: bool = False
    half_open: bool = False
    error: str = ""
    failure_reason: str = ""
    reconnect: str = ""
    unknown_client: bool = False
    invalid_replay_id: bool = False
    disconnect: bool = False
    duplicate: bool = False

    @classmethod
    def parse(cls, order: Mapping[str, Any]) -> "Fault":
        """The fault that a JSON order describes.

        Raises:
            OrgError: 400 INVALID_FAULT, naming what is wrong.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        wrong = [f"{name}: unknown" for name in order if name not in known]
        wrong += [
            f"{name}: expected {_TYPES[name][1]}"
            for name, value in order.items()
            if name in _TYPES and not _fits(value, _TYPES[name][0])
        ]
        if order.get("kind") not in KINDS:
            wrong.append(f"kind: expected one of {', '.join(KINDS)}")
        if not wrong:
            wrong = _out_of_range(order)
        if wrong:
            raise OrgError(400, "INVALID_FAULT", "; ".join(wrong))
        return cls(**order)

    def as_dict(self) -> dict[str, Any]:
        """The members that say something, as they would be ordered."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name == "kind" or getattr(self, item.name) not in (item.default, {})
        }


_TEXT, _FLAG, _NUMBER = ((str,), "a text"), ((bool,), "true or false"), ((int,), "a whole number")
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("kind", "method", "path", "code", "message", "error", "failure_reason", "reconnect"), _TEXT),
    **dict.fromkeys(("html", "close", "drop_response", "truncate", "half_open"), _FLAG),
    **dict.fromkeys(("unknown_client", "invalid_replay_id", "disconnect", "duplicate"), _FLAG),
    **dict.fromkeys(("status", "skip"), _NUMBER),
    "count": ((int, type(None)), "a whole number or null"),
    "body": ((str, type(None)), "a text or null"),
    "delay_s": ((int, float), "a number"),
    "headers": ((dict,), "an object"),
}


def _fits(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _out_of_range(order: Mapping[str, Any]) -> list[str]:
    wrong = [f"{name}: expected zero or more" for name in ("skip", "delay_s") if order.get(name, 0) < 0]
    if (order.get("count") or 1) < 1 or order.get("count", 1) == 0:
        wrong.append("count: expected one or more, or null")
    if order.get("status", 0) not in (0, *range(200, 600)):
        wrong.append("status: expected 200 to 599")
    headers = order.get("headers", {})
    if not all(isinstance(item, str) and item.isprintable() for pair in headers.items() for item in pair):
        wrong.append("headers: expected texts of one line")
    try:
        re.compile(order.get("path", ""))
    except re.error as error:
        wrong.append(f"path: {error}")
    return wrong


class Faults:
    """The faults in force, in the order they were ordered; bounded by `MOST_FAULTS`."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._next = 1

    def order(self, fault: Fault) -> int:
        """Put a fault in force and tell its number.

        Raises:
            OrgError: Too many are in force (400 LIMIT_EXCEEDED).
        """
        if len(self._faults) >= MOST_FAULTS:
            raise OrgError(400, "LIMIT_EXCEEDED", f"at most {MOST_FAULTS} faults at a time")
        number, self._next = self._next, self._next + 1
        self._faults[number] = fault
        return number

    def add(self, kind: str, **effect: Any) -> int:
        """Order a fault by its members, see `Fault`."""
        return self.order(Fault.parse({"kind": kind, **effect}))

    def clear(self, number: int | None = None) -> None:
        """Take one fault, or all of them, out of force; one that is not there is no error."""
        if number is None:
            self._faults.clear()
        else:
            self._faults.pop(number, None)

    def in_force(self) -> dict[int, Fault]:
        """The faults that may still strike, by number; `count` is what is left of it."""
        return dict(self._faults)

    def take(self, kind: str, *, method: str = "", path: str = "") -> Fault | None:
        """The first fault that strikes here, used up by one; None where all is well.

        Args:
            kind: One of `KINDS`.
            method: HTTP method of the request.
            path: Its path with the query string.
        """
        for number, fault in self._faults.items():
            if fault.kind != kind or not _matches(fault, method, path):
                continue
            if fault.skip:
                self._faults[number] = dataclasses.replace(fault, skip=fault.skip - 1)
                continue
            self._use(number, fault)
            return fault
        return None

    def _use(self, number: int, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count <= 1:
            del self._faults[number]
        else:
            self._faults[number] = dataclasses.replace(fault, count=fault.count - 1)


def _matches(fault: Fault, method: str, path: str) -> bool:
    return fault.method in ("", method) and (not fault.path or re.search(fault.path, path) is not None)

"""A replica on another node, over MQTT: queries for reading, commands for writing."""

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import orjson

from connector.client.answers import change_of, kinds_of, rows_of
from connector.client.models import Row
from connector.client.source import RowPage, Selection
from connector.errors import BrokerDown, CommandRejected, PoisonError, QueryTooSlow, TransientError
from connector.mesh.topics import Topics
from connector.mesh.visitor import BrokerAddress, Visitor
from connector.model.change import Change
from connector.model.history import History
from connector.model.objects import Kind
from connector.model.times import to_ms

REPLY_TIMEOUT_S = 10.0
# A result that was missed, because the link broke, is asked for this often.
_ASK_AGAIN_S = 5.0
_FIELDS_KEPT_S = 60.0
_RESULTS_KEPT = 10_000
_ERRORS: Mapping[str, Callable[[str], Exception]] = {
    "invalid_request": ValueError,
    "unknown_object": ValueError,
    "unknown_command": LookupError,
    "timed_out": QueryTooSlow,
    "busy": TransientError,
    "unavailable": TransientError,
}


class RemoteSource:
    """Asks the daemon behind a broker; connects with the first question, and again by itself when the link breaks."""

    def __init__(self, address: BrokerAddress, root: str) -> None:
        self._topics = Topics(root=root)
        self._visitor = Visitor(address)
        self._inbox = f"{root}/reply/{self._visitor.client_id}"
        self._link = ExitStack()
        self._opening = threading.Lock()
        self._open = False
        self._news = threading.Condition()
        self._replies: dict[str, Mapping[str, Any] | None] = {}
        self._results: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._kinds: Mapping[str, Mapping[str, Kind]] = {}
        self._kinds_s = 0.0

    def fields(self, object_name: str) -> Mapping[str, Kind]:
        """See `Source`."""
        if object_name not in self._kinds or time.monotonic() - self._kinds_s > _FIELDS_KEPT_S:
            described = self._ask("control/schema", {})["data"]["objects"]
            self._kinds = {name: kinds_of(schema) for name, schema in described.items()}
            self._kinds_s = time.monotonic()
        if object_name not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise ValueError(f"{object_name[:80]!r} is not a synced object; these are: {known}")
        return self._kinds[object_name]

    def page(self, object_name: str, wanted: Selection, limit: int, after: str | None) -> RowPage:
        """See `Source`."""
        asked = {"text": wanted.text, "where": wanted.where, "order_by": wanted.order_by, "after": after}
        verb = "list" if wanted.text is None and wanted.where is None else "search"
        reply = self._query(object_name, verb, {"limit": limit, **asked})
        return RowPage(rows_of(reply), reply["next"])

    def get(self, object_name: str, record_id: str) -> Row | None:
        """See `Source`."""
        return next(iter(rows_of(self._query(object_name, "get", {"id": record_id}))), None)

    def count(self, object_name: str, wanted: Selection) -> int:
        """See `Source`."""
        return int(self._query(object_name, "count", {"text": wanted.text, "where": wanted.where})["count"])

    def history(self, object_name: str, record_id: str, limit: int) -> History:
        """See `Source`; oldest changes are read first, and the newest `limit` of them kept."""
        changes: list[Change] = []
        since: int | None = 0
        known_since: str | None = None
        while since is not None:
            reply = self._query(object_name, "changes", {"id": record_id, "since": since})
            changes += [change_of(document) for document in reply["records"]]
            known_since, since = reply["known_since"], reply["next"]
        row = self.get(object_name, record_id)
        begins_ms = None if known_since is None else to_ms(known_since)
        return History(changes=changes, now=None if row is None else row.values, known_since_ms=begins_ms).newest(limit)

    def submit(self, object_name: str, operation: str, data: Mapping[str, Any]) -> str:
        """See `Source`; returns when the daemon has the command on disk."""
        command_id = str(data.get("command_id") or uuid.uuid4())
        known = self._results.get(command_id)
        topic = self._topics.command(object_name, operation)
        self._publish(topic, {**data, "command_id": command_id, "reply_to": self._inbox})
        result = self._until(lambda: self._fresh(command_id, known), REPLY_TIMEOUT_S)
        if result is None:
            raise BrokerDown(
                f"no answer to command {command_id} within {REPLY_TIMEOUT_S:.0f} s: does the daemon run? It may still "
                "be executed; repeat it with this command_id"
            )
        if result["status"] == "rejected":
            raise CommandRejected(*(error["message"] for error in result["errors"]))
        return command_id

    def result(self, command_id: str) -> Mapping[str, Any]:
        """See `Source`."""
        found: Mapping[str, Any] = self._ask("control/command", {"command_id": command_id})["data"]
        return found

    def wait(self, command_id: str, timeout_s: float | None) -> Mapping[str, Any] | None:
        """See `Source`."""
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = _ASK_AGAIN_S if ends_s is None else min(_ASK_AGAIN_S, ends_s - time.monotonic())
            result = self._until(lambda: self._final(command_id), max(0.0, left_s))
            if result is not None:
                return result
            asked = self.result(command_id)
            if asked["status"] != "accepted":
                return asked
            if ends_s is not None and time.monotonic() >= ends_s:
                return None

    def sql(self, _query: str, _bindings: Sequence[Any] | Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Not over MQTT.

        Raises:
            ValueError: Always.
        """
        raise ValueError("SQL needs the replica's file: it is not available in remote mode")

    def close(self) -> None:
        """See `Source`."""
        with self._opening:
            self._link.close()
            self._open = False

    # Questions and answers

    def _query(self, object_name: str, verb: str, query: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._ask(f"query/{object_name}/{verb}", {k: v for k, v in query.items() if v is not None})

    def _ask(self, path: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The reply to a question.

        Raises:
            ValueError, LookupError: It cannot be answered as it is.
            QueryTooSlow: It took too long.
            TransientError: It cannot be answered now.
            BrokerDown: Nobody answered.
        """
        correlation = uuid.uuid4().hex
        with self._news:
            self._replies[correlation] = None
        try:
            topic = f"{self._topics.root}/{path}"
            self._publish(topic, {**payload, "reply_to": self._inbox, "correlation": correlation})
            reply = self._until(lambda: self._replies[correlation], REPLY_TIMEOUT_S)
        finally:
            with self._news:
                del self._replies[correlation]
        if reply is None:
            raise BrokerDown(f"no reply on {topic} within {REPLY_TIMEOUT_S:.0f} s: does the daemon run?")
        if not reply["ok"]:
            error = reply["error"]
            raise _ERRORS.get(error["code"], PoisonError)(error["message"])
        return reply

    def _publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        with self._opening:
            if not self._open:
                self._link.enter_context(self._visitor.connected())
                self._visitor.subscribe(self._inbox, self._received)
                self._open = True
        self._visitor.publish(topic, orjson.dumps(payload))

    def _received(self, _topic: str, payload: bytes) -> None:
        """On the network's thread."""
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        if not isinstance(document, dict):
            return
        with self._news:
            if document.get("correlation") in self._replies:
                self._replies[document["correlation"]] = document
            elif isinstance(document.get("command_id"), str):
                self._results[document["command_id"]] = document
                while len(self._results) > _RESULTS_KEPT:
                    self._results.popitem(last=False)
            self._news.notify_all()

    def _until(self, told: Callable[[], Mapping[str, Any] | None], timeout_s: float) -> Mapping[str, Any] | None:
        with self._news:
            self._news.wait_for(lambda: told() is not None, timeout_s)
            return told()

    def _fresh(self, command_id: str, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        found = self._results.get(command_id)
        return None if found is known else found

    def _final(self, command_id: str) -> Mapping[str, Any] | None:
        found = self._results.get(command_id)
        return None if found is None or found["status"] == "accepted" else found

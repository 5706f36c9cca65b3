"""What the daemon says of itself, as it is heard on the mesh."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import orjson
from pydantic import ValidationError

from connector.errors import BrokerDown, BrokerRefused
from connector.mesh.topics import Topics
from connector.mesh.visitor import BrokerAddress, Visitor
from connector.model.documents import HealthDocument, StatusDocument

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 15.0
# Documents of a daemon have a few KiB.
MAX_DOCUMENT_BYTES = 1 << 20
_LOOK_S = 0.5

NEVER_TOLD = "the daemon has never told its state here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of the daemon.

    Attributes:
        state: unknown: nobody could be asked, for `reason`.
        status: The status document, or None.
        health: The health document told last, or None; of a daemon that is not online it is its last word.
    """

    state: Literal["online", "offline", "unknown"]
    reason: str | None = None
    status: Mapping[str, Any] | None = None
    health: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """As `status --json` has it."""
        reason = {} if self.reason is None else {"reason": self.reason}
        return {**(self.status or {}), "state": self.state, **reason, "health": self.health}


class DaemonWatch:
    """Listens to the daemon's retained documents, on a thread of its own, over broken connections too.

    Use with `with`; `told` never waits and never fails.
    """

    def __init__(self, address: BrokerAddress, topics: Topics) -> None:
        self._address = address
        self._topics = topics
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._complete = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daemon.watch", daemon=True)
        self._status: Mapping[str, Any] | None = None
        self._health: Mapping[str, Any] | None = None
        self._problem: str | None = "the broker has not answered yet"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A connection that is being made is given up with the process: it holds nothing.
        self._stop.set()
        self._thread.join(timeout=_LOOK_S)

    def told(self) -> Told:
        """What is known now."""
        with self._lock:
            if self._problem is not None:
                return Told(state="unknown", reason=self._problem, status=self._status, health=self._health)
            if self._status is None:
                return Told(state="unknown", reason=NEVER_TOLD, health=self._health)
            return Told(state=self._status["state"], status=self._status, health=self._health)

    def first_told(self, timeout_s: float) -> Told:
        """What is known as soon as both documents are there or cannot be, at the latest after the time."""
        self._complete.wait(timeout_s)
        return self.told()

    def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._stop.is_set():
            visitor = Visitor(self._address)
            try:
                with visitor.connected():
                    wait_s = RETRY_FIRST_S
                    self._listen(visitor)
            except (BrokerDown, BrokerRefused) as error:
                self._set_problem(str(error))
                self._complete.set()
            self._stop.wait(wait_s)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _listen(self, visitor: Visitor) -> None:
        """Until the connection breaks or we stop."""
        self._set_problem(None)
        visitor.subscribe(self._topics.status, self._take_status)
        visitor.subscribe(self._topics.health, self._take_health)
        while visitor.is_connected and not self._stop.wait(_LOOK_S):
            pass
        if not self._stop.is_set():
            self._set_problem(f"the connection to the broker at {self._address.host}:{self._address.port} broke")

    def _take_status(self, _topic: str, payload: bytes) -> None:
        document = _valid(StatusDocument.model_validate_json, payload)
        with self._lock:
            self._status = document
        self._look_complete()

    def _take_health(self, _topic: str, payload: bytes) -> None:
        document = _valid(HealthDocument.model_validate_json, payload)
        with self._lock:
            self._health = document
        self._look_complete()

    def _look_complete(self) -> None:
        if self._status is not None and self._health is not None:
            self._complete.set()

    def _set_problem(self, problem: str | None) -> None:
        with self._lock:
            self._problem = problem


def _valid(validate: Callable[..., HealthDocument | StatusDocument], payload: bytes) -> Mapping[str, Any] | None:
    """The document as it came; None where it is none: anybody whom the broker lets in may publish there.

    Members that a newer daemon tells are kept.
    """
    if len(payload) > MAX_DOCUMENT_BYTES:
        return None
    try:
        validate(payload, extra="ignore")
        document: Mapping[str, Any] = orjson.loads(payload)
    except (ValidationError, orjson.JSONDecodeError):
        return None
    return document

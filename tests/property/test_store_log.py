"""Change log, outbox and watermark as a state machine against a plain model."""

import tempfile
from pathlib import Path

import apsw
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.model.message import Message
from connector.ports import Unit
from connector.store import Session
from connector.store.columns import iso
from tests.store_nouns import DAY_MS, NOW_MS, change


class _Undo(Exception):
    pass


class LogMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order, nothing is lost, doubled or told out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.session = Session(Path(self.folder.name) / "replica.db")
        self.session.open()
        self.last = 0
        self.published = 0
        self.trimmed = 0
        self.moments: dict[int, str] = {}
        self.reader = apsw.Connection(str(Path(self.folder.name) / "replica.db"))
        self.messages: list[tuple[int, bytes]] = []
        self.count = 0

    def teardown(self) -> None:
        self.reader.close()
        self.session.close()
        self.folder.cleanup()

    @rule(size=st.integers(0, 5), undone=st.booleans())
    def append(self, size: int, undone: bool) -> None:
        def work(unit: Unit) -> int:
            last = unit.append([change(n) for n in range(size)])
            if undone:
                raise _Undo
            return last

        try:
            assert self.session.run(work) == self.last + size
            self.last += size
        except _Undo:
            assert undone

    @rule()
    def enqueue(self) -> None:
        self.count += 1
        payload = str(self.count).encode()
        self.session.run(lambda unit: unit.enqueue(Message(topic="a", payload=payload)))
        self.messages.append((self.last, payload))

    @rule(limit=st.integers(1, 4), later_ms=st.integers(-1, 1))
    def relay_changes(self, limit: int, later_ms: int) -> None:
        told = [c.version for c in self.session.run(lambda unit: unit.unpublished(limit))]
        assert told == list(range(self.published + 1, min(self.last, self.published + limit) + 1))
        if told:
            at_ms = NOW_MS + self.published + later_ms
            self.session.run(lambda unit: unit.mark_published(told[-1], at_ms))
            self.moments |= dict.fromkeys(range(self.published + 1, told[-1] + 1), iso(at_ms))
            self.published = told[-1]

    @rule(limit=st.integers(1, 4))
    def relay_messages(self, limit: int) -> None:
        due = self.session.run(lambda unit: unit.due(limit))
        expected = [m for m in self.messages if m[0] <= self.published][:limit]
        assert [(m.after_version, m.message.payload) for m in due] == expected
        self.session.run(lambda unit: unit.remove_messages([m.id for m in due]))
        self.messages = self.messages[len(due) :]

    @rule(limit=st.integers(1, 10))
    def trim(self, limit: int) -> None:
        gone = self.session.run(lambda unit: unit.trim(NOW_MS + 99 * DAY_MS, DAY_MS, DAY_MS, limit))
        assert gone == min(limit, self.published - self.trimmed)
        self.trimmed += gone

    @rule()
    def reopen(self) -> None:
        self.session.close()
        self.session.open()

    @invariant()
    def figures_agree(self) -> None:
        last, depths = self.session.run(lambda unit: (unit.last_version(), unit.queue_depths()))
        assert last == self.last
        assert depths["outbox"] == self.last - self.published + len(self.messages)

    @invariant()
    def the_log_tells_when_each_change_was_published(self) -> None:
        told = self.reader.execute("SELECT version, published_at FROM change ORDER BY version").fetchall()
        assert told == [(v, self.moments.get(v)) for v in range(self.trimmed + 1, self.last + 1)]
        moments, kept = self.reader.execute(
            "SELECT (SELECT count(*) FROM change_published), (SELECT count(*) FROM change_log)"
        ).get
        assert moments <= kept


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=25, stateful_step_count=25)

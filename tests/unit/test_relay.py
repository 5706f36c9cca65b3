"""The relay against a scripted broker: order, retries, parking, signals, retained topics."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from structlog.testing import capture_logs

from connector.errors import FatalError, LinkDown, PoisonError, StoreBusy
from connector.mesh.envelope import Envelope
from connector.mesh.signals import Signals
from connector.mesh.topics import Topics
from connector.model.change import Change, Operation
from connector.model.message import Message, OutboxMessage
from connector.ports import Unit
from connector.serve import relay as relay_module
from connector.serve.relay import Relay
from connector.serve.wake import Wake
from tests.store_nouns import NOW_MS, change
from tests.waiting import until

T = TypeVar("T")
TOPICS = Topics()
ENVELOPE = Envelope(TOPICS, node="n")
ENVELOPE.use_org("00D000000000001")


class Store:
    """As much of the replica as the relay uses, in memory."""

    def __init__(self) -> None:
        self.log: list[Change] = []
        self.outbox: list[OutboxMessage] = []
        self.published = 0
        self.busy = 0
        self.turns = 0
        self.marks = 0
        self.readings = 0
        self.published_ms: list[int] = []

    async def run(self, work: Callable[[Unit], T]) -> T:
        await asyncio.sleep(0)
        self.turns += 1
        if self.busy:
            self.busy -= 1
            raise StoreBusy("locked")
        return work(cast("Unit", self))

    def add(self, *changes: Change) -> None:
        for given in changes:
            self.log.append(replace(given, version=len(self.log) + 1))

    def enqueue(self, message: Message) -> None:
        number = self.outbox[-1].id + 1 if self.outbox else 1
        self.outbox.append(OutboxMessage(id=number, after_version=len(self.log), message=message))

    def unpublished(self, limit: int, beyond: int = 0) -> Sequence[Change]:
        self.readings += 1
        return [c for c in self.log if c.version > max(self.published, beyond)][:limit]

    def due(self, limit: int, beyond: int = 0) -> Sequence[OutboxMessage]:
        return [m for m in self.outbox if m.after_version <= max(self.published, beyond)][:limit]

    def mark_published(self, version: int, at_ms: int) -> None:
        assert version > self.published
        self.published_ms += [at_ms] * (version - self.published)
        self.published = version
        self.marks += 1

    def remove_messages(self, ids: Sequence[int]) -> None:
        self.outbox = [m for m in self.outbox if m.id not in ids]


class ScriptedBroker:
    """Records what it acknowledges; `answer` may raise for a message."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.answer: Callable[[Message], None] = lambda _message: None

    async def publish(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.answer(message)
        self.got.append(message)

    async def publish_all(
        self, messages: Sequence[Message], acknowledged: Callable[[int], None]
    ) -> Sequence[LinkDown | PoisonError | None]:
        outcomes: list[LinkDown | PoisonError | None] = []
        for place, message in enumerate(messages):
            try:
                await self.publish(message)
                acknowledged(place)
                outcomes.append(None)
            except (LinkDown, PoisonError) as error:
                outcomes.append(error)
        return outcomes

    @property
    def versions(self) -> list[int]:
        return [int(v) for m in self.got if b'"version":' in m.payload for v in [version_of(m)]]


def version_of(message: Message) -> int:
    return int(message.payload.split(b'"version":')[1].split(b",")[0])


class Bench:
    """A relay with its store and its broker."""

    def __init__(self, *, retain_records: bool = False, signals: bool = False) -> None:
        self.store = Store()
        self.broker = ScriptedBroker()
        self.wake = Wake()
        self.lags: list[int] = []
        self.now_ms = NOW_MS
        self.pages: list[Sequence[Message]] = []
        self.signals = Signals(TOPICS, enabled=signals, batch_interval_ms=200)
        self.relay = Relay(
            replica=cast("Any", self.store),
            publisher=self.broker,
            codec=ENVELOPE,
            signals=self.signals,
            wake=self.wake,
            retain_records=retain_records,
            retained=self._retained,
            observe_lag_ms=self.lags.append,
            now_ms=lambda: self.now_ms,
            rng=random.Random(1),
        )

    async def _retained(self) -> AsyncIterator[Sequence[Message]]:
        for page in self.pages:
            yield page

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bench"]:
        task = asyncio.create_task(self.relay.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settled(self, version: int) -> None:
        await until(lambda: self.store.published >= version and not self.store.due(1))


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(relay_module, "BACKOFF_MAX_S", 0.02)
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 0.05)


async def test_changes_leave_in_version_order_and_are_marked() -> None:
    """More than one batch, each marked by the turn that follows it."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(1200)))
    async with bench.running():
        await bench.settled(1200)
    assert bench.broker.versions == list(range(1, 1201))


async def test_a_wake_publishes_at_once() -> None:
    """No polling: a commit that sets the event is published without a timer."""
    bench = Bench()
    async with bench.running():
        await until(lambda: bench.store.turns > 0)
        bench.store.add(change())
        bench.wake.set()
        await bench.settled(1)


async def test_what_is_handed_over_is_published_before_the_store_is_asked() -> None:
    """A change that comes alone costs no look into the log; the turn behind it finds nothing left."""
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await bench.settled(1)
        turns: list[int] = []
        bench.broker.answer = lambda _message: turns.append(bench.store.turns)
        before = bench.store.turns
        bench.store.add(change())
        bench.relay.offer(bench.store.log[-1:])
        bench.wake.set()
        await bench.settled(2)
    assert turns == [before]
    assert bench.broker.versions == [1, 2]


async def test_the_store_is_not_asked_for_what_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the stream goes on, and with nobody else saying that there is something."""
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 3600.0)
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await until(lambda: bench.broker.versions == [1])
        before = bench.store.turns
        for count in range(2, 100):
            bench.store.add(change())
            bench.relay.offer(bench.store.log[-1:])
            await until(lambda count=count: len(bench.broker.got) == count)  # type: ignore[misc]  # each its own
        assert bench.store.turns <= before + 1
        bench.store.enqueue(Message(topic="result", payload=b""))
        bench.wake.set()
        await until(lambda: bench.broker.got[-1].topic == "result")
    assert bench.broker.versions == list(range(1, 100))


async def test_messages_between_changes_leave_in_one_turn() -> None:
    """Each behind the changes that it was enqueued at."""
    bench = Bench()
    for topic in ("first", "second", "third"):
        bench.store.enqueue(Message(topic=topic, payload=b""))
        bench.store.add(change(), change())
    turns: set[int] = set()
    bench.broker.answer = lambda _message: turns.add(bench.store.turns)
    async with bench.running():
        await until(lambda: len(bench.broker.got) == 9)
    assert turns == {1}
    assert [m.topic for m in bench.broker.got[::3]] == ["first", "second", "third"]


async def test_what_does_not_follow_is_read_from_the_log() -> None:
    """Something else was committed meanwhile, or it has been published already: order holds, nothing comes twice."""
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await bench.settled(1)
        bench.store.add(change(), change(), change())
        for offered in (bench.store.log[3:], bench.store.log[:2], bench.store.log):
            bench.relay.offer(offered)
        bench.wake.set()
        await bench.settled(4)
        bench.relay.offer(bench.store.log)
        bench.wake.set()
        bench.store.add(change())
        await bench.settled(5)
    assert bench.broker.versions == [1, 2, 3, 4, 5]


async def test_a_broken_link_repeats_what_was_handed_over() -> None:
    """The log has it."""
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await bench.settled(1)
        broken = [LinkDown("lost")]

        def answer(message: Message) -> None:
            if broken and version_of(message) >= 3:
                raise broken[0]

        bench.broker.answer = answer
        bench.store.add(change(), change(), change())
        bench.relay.offer(bench.store.log[1:])
        bench.wake.set()
        await bench.settled(2)
        broken.clear()
        await bench.settled(4)
    assert bench.broker.versions == [1, 2, 3, 4]


async def test_more_than_a_batch_is_not_kept_in_memory() -> None:
    """Under load the log is read: what is handed over is bounded."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(1200)))
    for version in range(1200):
        bench.relay.offer(bench.store.log[version : version + 1])
    async with bench.running():
        await bench.settled(1200)
    assert bench.broker.versions == list(range(1, 1201))


async def test_the_last_that_was_too_much_to_keep_is_published() -> None:
    """Nothing comes behind it that would show the gap, and nobody else says that it is there."""
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await bench.settled(1)
        bench.store.add(*(change() for _ in range(1200)))
        bench.relay.offer(bench.store.log[1:])
        await bench.settled(1201)
    assert bench.broker.versions == list(range(1, 1202))


async def test_acknowledgements_are_written_down_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes that come one by one are marked at the end of a while, or when they are many; none is sent twice."""
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 3600.0)
    monkeypatch.setattr(relay_module, "MARK_AT_COUNT", 10)
    bench = Bench()
    async with bench.running():
        for version in range(1, 26):
            bench.store.add(change())
            bench.wake.set()
            await until(partial(_published_last, bench, version))
        await until(lambda: bench.store.published == 20)
        bench.store.enqueue(Message(topic="result", payload=b""))
        bench.wake.set()
        # A result waits for its changes' acknowledgements, not for the mark.
        await until(lambda: bench.broker.got[-1].topic == "result")
        await until(lambda: not bench.store.outbox)
    assert (bench.store.published, bench.store.marks) == (25, 3)
    assert bench.broker.versions == list(range(1, 26))


async def test_acknowledgements_are_written_down_without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over meanwhile needs no second look at the log."""
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 3600.0)
    monkeypatch.setattr(relay_module, "MARK_AT_COUNT", 10)
    bench = Bench()
    bench.store.add(change())
    async with bench.running():
        await until(partial(_published_last, bench, 1))
        readings = bench.store.readings
        for version in range(2, 26):
            bench.store.add(change())
            bench.relay.offer(bench.store.log[-1:])
            await until(partial(_published_last, bench, version))
        await until(lambda: bench.store.published == 20)
        assert bench.store.readings == readings
    assert bench.broker.versions == list(range(1, 26))


def _published_last(bench: Bench, version: int) -> bool:
    return bench.broker.versions[-1:] == [version]


async def test_finish_writes_down_what_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orderly end leaves nothing to repeat."""
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 3600.0)
    bench = Bench()
    bench.store.add(change())
    run = asyncio.create_task(bench.relay.run())
    await until(lambda: bench.broker.versions == [1])
    assert bench.store.published == 0
    bench.relay.finish()
    await run
    assert (bench.store.published, bench.broker.versions) == (1, [1])


async def test_outbox_messages_wait_for_their_changes() -> None:
    """A message enqueued after a change is published after it, before later changes are."""
    bench = Bench()
    bench.store.add(change(), change())
    bench.store.enqueue(Message(topic="result", payload=b""))
    async with bench.running():
        await bench.settled(2)
    assert [m.topic.split("/")[-1] for m in bench.broker.got][2] == "result"


async def test_a_broken_link_repeats_from_the_first_lost_one() -> None:
    """Nothing is left out, order holds, what was acknowledged before the break is not sent again."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(10)))
    broken = [LinkDown("lost")]
    lost: list[LinkDown] = []

    def answer(message: Message) -> None:
        if version_of(message) == 4:
            lost[:] = broken  # for all of this batch
        if lost and version_of(message) >= 4:
            raise lost[0]

    bench.broker.answer = answer
    async with bench.running():
        await until(lambda: bench.store.published == 3)
        broken.clear()
        await bench.settled(10)
    assert bench.broker.versions == list(range(1, 11))


async def test_a_single_refusal_for_now_repeats_everything_behind_it() -> None:
    """Later ones that did arrive come a second time: at least once, in order from the repeated one on."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(4)))
    once = [2]

    def answer(message: Message) -> None:
        if version_of(message) in once:
            once.clear()
            raise LinkDown("quota exceeded")

    bench.broker.answer = answer
    async with bench.running():
        await bench.settled(4)
    assert bench.broker.versions == [1, 3, 4, 2, 3, 4]


async def test_poison_is_parked_and_does_not_block() -> None:
    """Refused for good: skipped, counted, logged once per batch without its content."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(5)))

    def answer(message: Message) -> None:
        if version_of(message) in (2, 3):
            raise PoisonError("not authorised")

    bench.broker.answer = answer
    with capture_logs() as logs:
        async with bench.running():
            await bench.settled(5)
    assert bench.broker.versions == [1, 4, 5]
    assert bench.relay.parked_count == 2
    parked = [entry for entry in logs if entry["event"] == "relay.messages_parked"]
    assert [(p["messages"], p["first_reason"]) for p in parked] == [(2, "not authorised")]


async def test_a_change_that_cannot_be_encoded_is_parked() -> None:
    """A value without a JSON form costs this one message."""
    bench = Bench()
    bench.store.add(change(), change(after={"Name": "\ud800"}), change())
    async with bench.running():
        await bench.settled(3)
    assert bench.broker.versions == [1, 3]
    assert bench.relay.parked_count == 1


async def test_a_busy_store_forgets_nothing() -> None:
    """`run` ends with StoreBusy; called again it marks what was acknowledged and sends nothing twice."""
    bench = Bench()
    bench.store.add(change())

    def then_busy(_message: Message) -> None:
        bench.store.busy = 1
        bench.broker.answer = lambda _message: None

    bench.broker.answer = then_busy
    with pytest.raises(StoreBusy):
        await bench.relay.run()
    async with bench.running():
        await bench.settled(1)
    assert bench.broker.versions == [1]


async def test_unknown_errors_end_the_relay() -> None:
    """They are not taken for a broken link."""
    bench = Bench()
    bench.store.add(change())

    def answer(_message: Message) -> None:
        raise FatalError("store")

    bench.broker.answer = answer
    with pytest.raises(FatalError):
        await bench.relay.run()
    assert bench.store.published == 0


async def test_retained_records_follow_their_change() -> None:
    """With `retain_records`: the record as it stands, empty once it is deleted; the mark covers both."""
    bench = Bench(retain_records=True)
    gone = change(operation=Operation.DELETE, changed=(), before={"Name": "x"}, after=None, record=None)
    bench.store.add(change(), gone)
    async with bench.running():
        await bench.settled(2)
    kinds = [(m.topic.split("/")[2], m.retain, bool(m.payload)) for m in bench.broker.got]
    assert kinds == [("change", False, True), ("record", True, True), ("change", False, True), ("record", True, False)]


async def test_changes_that_are_marked_together_keep_the_moment_of_each() -> None:
    """The lag that `status` shows is between it and the commit."""
    bench = Bench()
    async with bench.running():
        for nth in range(3):
            bench.now_ms = NOW_MS + 10 * nth
            bench.store.add(change(), change())
            bench.wake.set()
            await until(lambda: len(bench.broker.got) == len(bench.store.log))
        await bench.settled(6)
    assert bench.store.published_ms == [NOW_MS, NOW_MS, NOW_MS + 10, NOW_MS + 10, NOW_MS + 20, NOW_MS + 20]


async def test_changes_of_one_batch_keep_the_moment_of_each_acknowledgement() -> None:
    """Not that of the batch's end, which under load comes long after the first ones."""
    bench = Bench()

    def later(_message: Message) -> None:
        bench.now_ms += 10

    bench.broker.answer = later
    bench.store.add(change(), change(), change())
    async with bench.running():
        await bench.settled(3)
    assert bench.store.published_ms == [NOW_MS + 10, NOW_MS + 20, NOW_MS + 30]


async def test_records_updated_counts_what_was_published() -> None:
    """One signal at the first change, the next one an interval later with all that came between."""
    bench = Bench(signals=True)
    bench.store.add(change())
    async with bench.running():
        await until(lambda: len(bench.broker.got) == 2)
        bench.store.add(change(), change())
        bench.wake.set()
        await bench.settled(3)
        bench.now_ms += 200
        await until(lambda: len(bench.broker.got) == 5)
    signals = [m.payload for m in bench.broker.got if m.topic == TOPICS.signals_out]
    assert [b"count=1" in signals[0], b"count=2" in signals[1]] == [True, True]


async def test_lag_is_commit_to_acknowledgement() -> None:
    """Only where the org told its commit; a clock behind the org's is no negative lag."""
    bench = Bench()
    bench.store.add(change(), change(commit=None), replace(change(), commit=replace_commit(NOW_MS + 5)))
    async with bench.running():
        await bench.settled(3)
    assert bench.lags == [37, 0]


def replace_commit(timestamp_ms: int) -> Any:
    made = change().commit
    assert made is not None
    return replace(made, timestamp_ms=timestamp_ms)


async def test_a_forgetful_broker_gets_the_retained_topics_again() -> None:
    """Page by page between the changes; a page that fails is sent again from where it broke."""
    bench = Bench()
    bench.pages = [[Message(topic=f"r{p}{i}", payload=b"", retain=True) for i in range(2)] for p in range(3)]
    fail_once = ["r11"]

    def answer(message: Message) -> None:
        if message.topic in fail_once:
            fail_once.clear()
            raise LinkDown("lost")

    bench.broker.answer = answer
    async with bench.running():
        await until(lambda: bench.store.turns > 0)
        bench.relay.link_up(forgotten=True)
        await until(lambda: len(bench.broker.got) >= 6)
        await until(lambda: bench.broker.got[-1].topic == "r21")
    assert [m.topic for m in bench.broker.got] == ["r00", "r01", "r10", "r11", "r20", "r21"]


async def test_link_up_ends_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection's return is not waited out."""
    monkeypatch.setattr(relay_module, "BACKOFF_FIRST_S", 3600.0)
    bench = Bench()
    bench.relay._wait_s = 3600.0
    down = [LinkDown("not connected")]

    def answer(_message: Message) -> None:
        if down:
            raise down[0]

    bench.broker.answer = answer
    bench.store.add(change())
    async with bench.running():
        await until(lambda: bench.store.turns == 1)
        await asyncio.sleep(0)
        down.clear()
        await until(lambda: _nudged(bench))
    assert bench.broker.versions == [1]


def _nudged(bench: Bench) -> bool:
    bench.relay.link_up(forgotten=False)
    return bench.store.published == 1


async def test_finish_drains_and_returns() -> None:
    """Everything on disk goes out first; with the link down it stays there."""
    bench = Bench()
    bench.store.add(*(change() for _ in range(700)))
    bench.relay.finish()
    await bench.relay.run()
    assert bench.store.published == 700
    stuck = Bench()
    stuck.store.add(change())

    def answer(_message: Message) -> None:
        raise LinkDown("down")

    stuck.broker.answer = answer
    stuck.relay.finish()
    await stuck.relay.run()
    assert stuck.store.published == 0

"""The allocation of delivered events: counted, asked for seldom, warned about once, over restarts and set clocks."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.errors import ConnectorError, LinkDown, OrgRefused, StoreFull
from connector.model.message import Message
from connector.ports import Purpose, Unit
from connector.salesforce import delivered as module
from connector.salesforce.delivered import Deliveries, allocation
from connector.salesforce.warning import Limit, Warner
from connector.store import Session
from tests.budgets import HOUR_MS, Clocks, FileReplica
from tests.waiting import until


class Bench:
    """An org with a limit, and the count of its events.

    Attributes:
        used: By all subscribers, as the org tells.
        error: Raised instead of the limits.
        asked: How often it was asked.
    """

    def __init__(self, replica: FileReplica) -> None:
        self.replica = replica
        self.clocks = Clocks()
        self.used = 0
        self.error: ConnectorError | None = None
        self.asked = 0

    async def ask(self, purpose: Purpose) -> Mapping[str, Any]:
        assert purpose is Purpose.VERIFY
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"DailyDeliveredPlatformEvents": {"Max": 1000, "Remaining": 1000 - self.used}}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Deliveries]:
        """A process; its job has asked, if it was to."""
        warner = Warner(messages=self._warning, told=lambda: None)
        made = Deliveries(
            0.8,
            self.replica,
            ask=self.ask,
            now_ms=self.clocks.now_ms,
            elapsed_s=self.clocks.elapsed_s,
            warner=warner,
        )
        async with made:
            job = asyncio.create_task(made.run())
            await asyncio.sleep(0.01)  # it has run as far as it can by itself
            try:
                yield made
            finally:
                job.cancel()
                with suppress(asyncio.CancelledError):
                    await job

    def _warning(self, limit: Limit, used: int, maximum: int) -> Sequence[Message]:
        return (Message(topic=limit, payload=f"{used}/{maximum}".encode()),)

    async def warnings(self) -> list[bytes]:
        return [m.message.payload for m in await self.replica.run(lambda unit: unit.due(100))]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Over a new replica's file."""
    monkeypatch.setattr(module, "_SAVE_EVERY_S", 0.001)
    with Session(tmp_path / "replica.db") as session:
        yield Bench(FileReplica(session))


async def test_events_are_counted_on_from_what_the_org_told(bench: Bench) -> None:
    """All subscribers' use, the limit, and our own."""
    bench.used = 300
    async with bench.running() as deliveries:
        assert deliveries.snapshot() == {"used": 300, "max": 1000, "own": 0}
        deliveries.delivered(7)
        assert deliveries.snapshot() == {"used": 307, "max": 1000, "own": 7}


async def test_counts_survive_a_restart_and_leave_after_a_day(bench: Bench) -> None:
    """And a restart soon after an answer costs no call."""
    async with bench.running() as deliveries:
        deliveries.delivered(40)
    bench.clocks.pass_ms(HOUR_MS)
    async with bench.running() as deliveries:
        assert (deliveries.snapshot(), bench.asked) == ({"used": 40, "max": 1000, "own": 40}, 1)
        deliveries.delivered(2)
    bench.clocks.pass_ms(25 * HOUR_MS)
    async with bench.running() as deliveries:
        assert deliveries.snapshot()["own"] == 0


async def test_a_locked_file_at_the_end_hides_nothing(bench: Bench) -> None:
    """The daemon ends by what ended it, and by nothing at all if it was told to."""
    for error in (StoreFull("full"), None):
        with pytest.raises(StoreFull) if error is not None else nullcontext():
            async with bench.running() as deliveries:
                bench.replica.busy = True
                deliveries.delivered(1)
                if error is not None:
                    raise error
        bench.replica.busy = False


async def test_the_org_is_asked_seldom(bench: Bench) -> None:
    """At the start, after a twentieth of its limit, and after six hours: a quiet day costs five calls."""
    async with bench.running() as deliveries:
        deliveries.delivered(49)
        await asyncio.sleep(0.02)
        assert bench.asked == 1
        deliveries.delivered(1)
        await until(lambda: bench.asked == 2)
    asked = bench.asked
    for _ in range(24 * 4):
        bench.clocks.pass_ms(HOUR_MS // 4)
        async with bench.running():
            pass
    assert bench.asked - asked == 4


async def test_an_org_that_does_not_tell_is_not_pressed(bench: Bench) -> None:
    """Whatever comes, one question for each twentieth; without a limit nothing is warned of."""
    for error in (LinkDown("cut"), OrgRefused(403, ())):
        bench.error, bench.asked = error, 0
        async with bench.running() as deliveries:
            for _ in range(500):
                deliveries.delivered(1)
            await asyncio.sleep(0.02)
            assert deliveries.snapshot()["max"] is None
        assert bench.asked == 1
    assert await bench.warnings() == []


async def test_the_warning_is_given_once_per_crossing(bench: Bench) -> None:
    """Over restarts, too; again after the use has clearly fallen."""
    bench.used = 790
    async with bench.running() as deliveries:
        deliveries.delivered(9)
        await asyncio.sleep(0.02)
        assert await bench.warnings() == []
        deliveries.delivered(1)

        async def warned() -> bool:
            return await bench.warnings() == [b"800/1000"]

        await until(warned)
    async with bench.running() as deliveries:
        deliveries.delivered(1)
        await asyncio.sleep(0.02)
    for used in (100, 950):
        bench.used = used
        bench.clocks.pass_ms(6 * HOUR_MS)
        async with bench.running():
            pass
    assert await bench.warnings() == [b"800/1000", b"950/1000"]


async def test_a_stream_that_ended_at_the_limit_is_shown_so(bench: Bench) -> None:
    """The org's word counts more than our count."""
    async with bench.running() as deliveries:
        deliveries.spent()
        assert deliveries.snapshot()["used"] == 1000


async def test_what_is_stored_is_bounded_and_may_be_damaged(bench: Bench) -> None:
    """A month of events makes no longer document than a day; a document of another shape is as none."""
    async with bench.running() as deliveries:
        for _ in range(24 * 30):
            bench.clocks.pass_ms(HOUR_MS)
            deliveries.delivered(1)
            await asyncio.sleep(0)
    text = await bench.replica.run(lambda unit: unit.cursor(module.CURSOR))
    assert len(orjson.loads(text or "")["hours"]) <= 25
    for wrong in (
        "{",
        "[]",
        '{"hours": {"0": 1}, "org": null, "told": null}',
        '{"hours": {}, "org": [1], "told": "y"}',
    ):
        await bench.replica.run(partial(_store, wrong))
        async with bench.running() as deliveries:
            assert deliveries.snapshot()["own"] == 0


def _store(text: str, unit: Unit) -> None:
    unit.set_cursor(module.CURSOR, text, 0)


async def test_hours_yet_to_come_count_as_new(bench: Bench) -> None:
    """The clock was years ahead and was mended: its events count for a day."""
    bench.clocks.wall_ms += 24 * 3650 * HOUR_MS
    async with bench.running() as deliveries:
        deliveries.delivered(5)
    bench.clocks.wall_ms -= 24 * 3650 * HOUR_MS
    async with bench.running() as deliveries:
        assert deliveries.snapshot()["own"] == 5
        bench.clocks.pass_ms(25 * HOUR_MS)
        assert deliveries.snapshot()["own"] == 0


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"DailyDeliveredPlatformEvents": {"Max": 10, "Remaining": 4}}, (6, 10)),
        ({"DailyDeliveredPlatformEvents": {"Max": 10, "Remaining": 14}}, (0, 10)),
        ({"DailyDeliveredPlatformEvents": {"Max": 0, "Remaining": 0}}, None),
        ({"DailyDeliveredPlatformEvents": {"Max": "10", "Remaining": 4}}, None),
        ({"DailyDeliveredPlatformEvents": 3}, None),
        ({}, None),
    ],
)
def test_the_limits_resource_is_not_trusted(told: Mapping[str, Any], expected: tuple[int, int] | None) -> None:
    """An org may leave the entry out, or give it another shape."""
    assert allocation(told) == expected

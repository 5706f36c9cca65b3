"""A poll leaves the stream the time to tell of what happened while it was away."""

import asyncio
from pathlib import Path

from connector.errors import LinkDown
from connector.inbound import backlog
from connector.inbound.backlog import Backlog
from tests.events import T0, event, record_id
from tests.fakes import FakeOrg
from tests.waiting import until
from tests.way import loaded, opened

A, B = record_id(1), record_id(2)
HOUR_MS = 3600 * 1000
NOW_MS = T0 + 2 * HOUR_MS


async def test_every_change_made_while_away_is_told(tmp_path: Path) -> None:
    """Edited three times meanwhile: three changes, although the poll at the start would have read the last alone."""
    org = FakeOrg("Contact", "Account")
    org.put("Contact", A, T0, LastName="Doe")
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="0"), first=1)
            await way.until_value(A, "Phone", "0")
    org.put("Contact", A, T0 + 4000, Phone="3")
    org.put("Contact", B, T0 + 5000, LastName="Untold")
    async with opened(tmp_path / "r.db", org, clock_ms=lambda: NOW_MS) as way:
        async with way.running("stream", "poll"):
            await until(lambda: way.inbound.stream_state.status == "live")
            for number in (1, 2, 3):
                asked = org.calls["query_many"]
                way.source.send(
                    event("UPDATE", A, at_ms=T0 + 1000 + number * 1000, Phone=str(number)), first=1 + number
                )
                await way.until_value(A, "Phone", str(number))
                assert asked == 0
            await way.until_value(B, "LastName", "Untold")
        told = [c.after["Phone"] for c in await way.changes() if c.id == A and c.after is not None]
        assert told == ["0", "1", "2", "3"]
        assert await way.equals_org()


async def test_a_stream_that_goes_is_not_waited_for(tmp_path: Path) -> None:
    """While it is down the poller stands in for it at once."""
    org = FakeOrg("Contact", "Account")
    org.put("Contact", A, T0, LastName="Doe")
    async with opened(tmp_path / "r.db", org, clock_ms=lambda: NOW_MS) as way:
        await loaded(way)
        async with way.running("stream"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="0"), first=1)
            await way.until_value(A, "Phone", "0")
            for _ in range(1000):  # it stays away
                way.source.refuse(LinkDown("gone"))
            way.source.fail(LinkDown("gone"))
            await until(lambda: way.inbound.stream_state.status == "down")
            async with asyncio.timeout(backlog.QUIET_S / 2):
                await way.inbound.backlog.worked_off()


async def test_level_quiet_and_out_of_patience() -> None:
    now_ms = T0
    waited = Backlog(lambda: now_ms, quiet_s=0.02, most_s=0.5)
    await waited.worked_off()  # no stream, nothing to wait for
    waited.subscribed(resumed=False)
    await waited.worked_off()  # new events only
    waited.subscribed(resumed=True)
    started_s = asyncio.get_running_loop().time()
    await waited.worked_off()
    assert asyncio.get_running_loop().time() - started_s >= 0.02
    # An old event is behind; one of just now is level, at once.
    waited.received(3)
    waited.applied(1, T0 - HOUR_MS)
    waited.applied(1, T0 - 1000)
    waiting = asyncio.create_task(waited.worked_off())
    await asyncio.wait((waiting,), timeout=0.1)
    assert not waiting.done()  # one is still to be applied, however long that takes
    waited.applied(1, T0 - 1000)
    await waiting
    # The org's clock is behind ours by hours, and events never cease: in the end the poll is due nevertheless.
    waited.received(1)
    waited.applied(0, T0 - HOUR_MS)
    started_s = asyncio.get_running_loop().time()
    await waited.worked_off()
    assert asyncio.get_running_loop().time() - started_s >= 0.5

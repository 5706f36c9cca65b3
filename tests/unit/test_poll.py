"""The poller: what it asks, where its mark goes, what it finds, and when it comes round."""

from pathlib import Path

import pytest

from connector.errors import LinkDown, OrgRefused, OrgThrottled, ReplayWindowLost
from connector.inbound.timetable import FASTEST_S
from connector.model.change import Operation, Origin
from connector.model.times import to_iso
from connector.ports import DirtyRecord, Purpose, Unit
from tests.events import T0, event, record_id
from tests.fakes import FakeOrg, FakeSource
from tests.waiting import until
from tests.way import loaded, opened

A, B, C = record_id(1), record_id(2), record_id(3)
LOOKBACK_MS = 300_000
HOUR_MS = 3_600_000


@pytest.fixture
def org() -> FakeOrg:
    org = FakeOrg("Contact", "Account", server_ms=T0)
    org.put("Contact", A, T0 - HOUR_MS, FirstName="Jane", LastName="Doe")
    org.put("Contact", B, T0 - HOUR_MS, LastName="Gone")
    return org


async def test_new_changed_deleted_and_restored_records_are_found(tmp_path: Path, org: FakeOrg) -> None:
    """Traps 13 and 14: by SystemModstamp with a look-back, the recycle bin included."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.server_ms = T0 + 60_000
        org.put("Contact", A, T0 + 1000, Phone="1")
        org.put("Contact", C, T0 + 2000, LastName="New")
        org.delete("Contact", B)
        done = await way.inbound.sync()
        assert (done.kind, done.objects, done.records, done.error) == ("sync", ("Contact",), 3, None)
        assert done.api_calls == 1
        org.server_ms = T0 + 120_000
        org.put("Contact", B, T0 + 100_000, IsDeleted=False)
        await way.inbound.sync()
        assert await way.equals_org()
        told = [(c.id, c.operation, c.origin) for c in await way.changes()]
        assert told == [
            (A, Operation.UPDATE, Origin.POLL),
            (C, Operation.CREATE, Origin.POLL),
            (B, Operation.DELETE, Origin.POLL),
            (B, Operation.UNDELETE, Origin.POLL),
        ]


async def test_a_poll_that_finds_nothing_changes_nothing(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        await way.inbound.sync()
        await way.inbound.sync()
        assert await way.changes() == []


async def test_the_question(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("Phone",)}) as way:
        await loaded(way)
        await way.inbound.sync()
        since = to_iso(T0 - HOUR_MS - LOOKBACK_MS).replace(".000Z", "Z")
        assert org.queries[-1] == (
            "SELECT Id, LastModifiedDate, SystemModstamp, IsDeleted, Phone FROM Contact"  # noqa: S608  # expected text
            f" WHERE SystemModstamp >= {since} ORDER BY SystemModstamp, Id"
        )


async def test_a_row_that_becomes_visible_late_is_found(tmp_path: Path, org: FakeOrg) -> None:
    """A long transaction: stamped before the mark, committed after it."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 + 200_000, Phone="1")
        await way.inbound.sync()
        org.put("Contact", C, T0 + 200_000 - LOOKBACK_MS + 1000, LastName="Late")
        await way.inbound.sync()
        assert await way.value(C, "LastName") == "Late"


async def test_the_mark_goes_by_the_rows_and_never_by_our_clock(tmp_path: Path, org: FakeOrg) -> None:
    """A server clock that is hours ahead of the stamps must not make the poller skip rows."""
    async with opened(tmp_path / "r.db", org, clock_ms=lambda: T0 + 99 * HOUR_MS) as way:
        await loaded(way)
        org.server_ms = T0 + 6 * HOUR_MS
        org.put("Contact", A, T0 + 1000, Phone="1")
        await way.inbound.sync()
        assert (await way.cursor("poll:Contact")) == {"high": to_iso(T0 + 1000), "at": to_iso(T0 + 6 * HOUR_MS)}
        org.put("Contact", A, T0 + 2000, Phone="2")
        await way.inbound.sync()
        assert await way.value(A, "Phone") == "2"


async def test_one_moment_with_many_rows_is_not_read_for_ever(tmp_path: Path, org: FakeOrg) -> None:
    """More rows of one second than a page holds: the mark moves on with the server's time."""
    org.page_rows = 10
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.server_ms = T0 + HOUR_MS
        for n in range(25):
            org.put("Contact", record_id(100 + n), T0 + 1000, LastName=str(n))
        first = await way.inbound.sync()
        assert (first.records, first.api_calls) == (25, 3)
        second = await way.inbound.sync()
        assert (second.records, second.api_calls) == (0, 1)
        assert await way.equals_org()


async def test_objects_that_are_due_share_a_call(tmp_path: Path, org: FakeOrg) -> None:
    org.put("Account", record_id(1, "001"), T0 - HOUR_MS, Name="Acme")
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("Phone",), "Account": ("Name",)}) as way:
        await loaded(way)
        done = await way.inbound.sync()
        assert set(done.objects) == {"Contact", "Account"}
        assert done.api_calls == 1


async def test_a_refused_object_does_not_hold_up_the_others(tmp_path: Path, org: FakeOrg) -> None:
    org.put("Account", record_id(1, "001"), T0 - HOUR_MS, Name="Acme")
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("Phone",), "Account": ("Name",)}) as way:
        await loaded(way)
        org.put("Contact", A, T0 + 1000, Phone="1")
        del org.rows["Account"]
        with pytest.raises(OrgRefused):
            await way.inbound.sync()
        assert await way.value(A, "Phone") == "1"
        errors = [(r.objects, r.error) for r in way.rounds if r.kind == "sync" and r.error]
        assert errors == [(("Account",), "HTTP 400: INVALID_TYPE")]


async def test_a_field_that_is_gone_has_the_object_described_again(tmp_path: Path, org: FakeOrg) -> None:
    """INVALID_FIELD: the new description is taken over and the poll goes on without a person."""
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("Phone", "Title")}) as way:
        await loaded(way)
        fields = [f for f in org.describes["Contact"]["fields"] if f["name"] != "Title"]
        org.describes["Contact"] = {**org.describes["Contact"], "fields": fields}
        org.put("Contact", A, T0 + 1000, Phone="1")
        way.inbound.poller.poll_soon()
        async with way.running("poll"):
            await way.until_value(A, "Phone", "1")
        assert list(way.inbound.catalog.specs["Contact"].by_name) == ["Phone"]


async def test_a_page_that_fails_leaves_the_mark(tmp_path: Path, org: FakeOrg) -> None:
    """What was applied stays; the next poll reads from the old mark."""
    org.page_rows = 10
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        before = await way.cursor("poll:Contact")
        for n in range(25):
            org.put("Contact", record_id(100 + n), T0 + 1000, LastName=str(n))
        org.failures["query_more"].append(LinkDown("cut"))
        with pytest.raises(LinkDown):
            await way.inbound.sync()
        assert await way.cursor("poll:Contact") == before
        assert way.rounds[-1].error == "cut"
        await way.inbound.sync()
        assert await way.equals_org()
        assert len(await way.changes()) == 25


async def test_the_job_retries_and_catches_up(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.failures["query_many"].extend([LinkDown("cut"), OrgThrottled("quota", retry_after_s=0.01)])
        org.put("Contact", A, T0 + 1000, Phone="1")
        way.inbound.poller.poll_soon()
        async with way.running("poll"):
            await way.until_value(A, "Phone", "1")
            await until(lambda: way.rounds[-1].error is None)
        kinds = [(r.kind, r.error) for r in way.rounds if r.kind in ("poll", "catch_up")]
        assert kinds == [("catch_up", "cut"), ("poll", "quota"), ("poll", None)]


async def test_a_read_that_an_event_overtook_does_not_turn_the_record_back(tmp_path: Path, org: FakeOrg) -> None:
    """The answer is on its way while the stream applies something newer (trap 15)."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            org.put("Contact", A, T0 + 1000, Phone="old")

            async def meanwhile() -> None:
                org.put("Contact", A, T0 + 2000, Phone="new")
                way.source.send(event("UPDATE", A, at_ms=T0 + 2000, Phone="new"))
                await way.until_value(A, "Phone", "new")

            org.after["query_many"].append(meanwhile)
            await way.inbound.sync()
        assert await way.value(A, "Phone") == "new"
        assert [c.after for c in await way.changes()] == [{"Phone": "new"}]


async def test_a_hole_is_not_closed_over_a_read_that_an_event_overtook(tmp_path: Path, org: FakeOrg) -> None:
    """What the hole swallowed is in the read alone; the event that overtook it tells of another field."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            await way.run(lambda unit: unit.open_hole("Contact", T0, "replay_id_lost", T0))
            org.put("Contact", A, T0 + 1000, Email="swallowed@example.com")

            async def meanwhile() -> None:
                org.put("Contact", A, T0 + 2000, Phone="new")
                way.source.send(event("UPDATE", A, at_ms=T0 + 2000, Phone="new"))
                await way.until_value(A, "Phone", "new")

            org.after["query_many"].append(meanwhile)
            await way.inbound.sync()
            assert await way.holes() != []
            await way.inbound.settler.settle("Contact")
            await way.inbound.sync()
            assert await way.holes() == []
        assert await way.value(A, "Email") == "swallowed@example.com"
        assert await way.value(A, "Phone") == "new"


async def test_what_a_hole_had_swallowed_is_counted_across_a_restart(tmp_path: Path, org: FakeOrg) -> None:
    """The catch-up died behind its first page, and a doubt was settled apart: every record counts, and once."""
    org.page_rows = 10
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream", "poll"):
            org.put("Contact", A, T0 - 1000, Phone="0")
            way.source.send(event("UPDATE", A, at_ms=T0 - 1000, Phone="0"), first=41)
            await way.until_value(A, "Phone", "0")
            await way.until_whole()
    for n in range(25):
        org.put("Contact", record_id(100 + n), T0 + 1000, LastName=str(n))
    org.put("Contact", A, T0 - 2 * HOUR_MS, Phone="0", Email="behind the look-back@example.com")
    source = FakeSource()
    source.refuse(ReplayWindowLost("400::The replayId {41} you provided was invalid"))
    async with opened(tmp_path / "r.db", org, source=source) as way:
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            org.failures["query_more"].extend([LinkDown("cut")] * 9)
            with pytest.raises(LinkDown):
                await way.inbound.sync()
        assert len(await way.changes()) == 1 + 10
    org.failures.clear()
    async with opened(tmp_path / "r.db", org) as way:
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            await way.run(lambda unit: unit.mark_dirty([DirtyRecord("Contact", A, "older_event", T0, None)]))
            await way.inbound.sync()
            await way.inbound.settler.settle("Contact")
            way.source.send(event("UPDATE", B, at_ms=T0 + 2000, Phone="told"))
            await way.until_value(B, "Phone", "told")
            org.put("Contact", record_id(100), T0 + 3000, LastName="once more")
            await way.inbound.sync()
        assert (await way.messages())[-1].payload == b"closed replay_id_lost 26"


async def test_an_event_behind_the_poll_is_not_applied_twice(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 + 1000, Phone="1")
        await way.inbound.sync()
        async with way.running("stream"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"))
            await until(lambda: way.inbound.stream_state.events == 1)
        assert len(await way.changes()) == 1
        assert await way.dirty() == {}


async def test_what_a_healthy_stream_did_not_tell_is_counted(tmp_path: Path, org: FakeOrg) -> None:
    """A stream that is alive but silent proves nothing; what no event can tell is not held against it."""
    wanted = {"Contact": ("Phone", "LastActivityDate")}
    async with opened(tmp_path / "r.db", org, wanted=wanted) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            org.server_ms = T0 + 600_000
            org.put("Contact", A, T0 + 1000, Phone="1")
            org.put("Contact", B, T0 + 1000, LastActivityDate="2026-11-22")
            org.put("Contact", C, T0 + 599_000, Phone="just now")
            await way.inbound.sync()
        assert way.inbound.poller.states["Contact"].untold == 1


async def test_a_hole_that_a_doubt_kept_open_is_not_left_for_an_interval(tmp_path: Path, org: FakeOrg) -> None:
    """The poll that was to close it comes again soon, less and less so; then the interval is the usual one."""
    async with opened(tmp_path / "r.db", org, intervals_s={"Contact": 3600.0}) as way:
        await loaded(way)
        poller = way.inbound.poller

        def in_s() -> float:
            return poller.timetable.due_in_s("Contact")

        def doubt(unit: Unit) -> None:
            unit.open_hole("Contact", T0, "replay_id_lost", T0)
            unit.mark_dirty([DirtyRecord("Contact", A, "older_event", T0, None)])

        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            await way.run(doubt)
            for wait_s in (FASTEST_S, 2 * FASTEST_S, 4 * FASTEST_S):
                await way.inbound.sync()
                assert wait_s * 0.9 < in_s() <= wait_s
            await way.inbound.settler.settle("Contact")
            await way.inbound.sync()
            assert await way.holes() == []
            assert in_s() > 3000.0


async def test_a_pause_stops_the_timer_and_not_a_request(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        way.inbound.pause()
        async with way.running("poll"):
            org.put("Contact", A, T0 + 1000, Phone="1")
            await way.inbound.sync()
            assert await way.value(A, "Phone") == "1"
            assert org.calls["query_many"] == 1
            way.inbound.resume()
            await until(lambda: org.calls["query_many"] == 2)


async def test_a_quiet_day_of_polls_costs_a_call_each(tmp_path: Path, org: FakeOrg) -> None:
    """Nothing changes: a poll is one call, whatever was read before."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        before = org.calls_for(Purpose.CATCH_UP)
        for _ in range(96):
            await way.inbound.sync()
        assert org.calls_for(Purpose.CATCH_UP) - before == 96

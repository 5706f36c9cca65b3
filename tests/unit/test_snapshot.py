"""First loads: everything once, resumable, and not overtaken by what the stream tells meanwhile."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connector.errors import LinkDown, OrgRefused, StoreFull
from connector.inbound.snapshot import LoadRules
from connector.model.change import Operation, Origin
from connector.model.times import to_iso
from tests.events import CONTACT_FIELDS, T0, event, record_id
from tests.fakes import FakeOrg
from tests.waiting import until
from tests.way import Way, loaded, opened

A, B = record_id(1), record_id(2)
BULK = LoadRules(bulk_threshold=1, publish_backfill=False, subscribe_wait_s=0.05)
JOB = "7505f0000000000AAA"


@pytest.fixture
def org() -> FakeOrg:
    org = FakeOrg("Contact", server_ms=T0)
    for n in range(25):
        org.put("Contact", record_id(n), T0 - 60_000, FirstName="Jane", LastName=f"Doe {n}")
    return org


async def ready(way: Way) -> None:
    async def done() -> bool:
        state = await way.cursor("load:Contact")
        return bool(state and state["state"] == "done")

    await until(done)


@pytest.mark.parametrize("bulk", [False, True])
async def test_everything_is_loaded_and_nothing_published(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch, *, bulk: bool
) -> None:
    monkeypatch.setattr("connector.inbound.snapshot.PAGE_ROWS", 10)
    org.page_rows = 15
    org.delete("Contact", record_id(24))
    async with opened(tmp_path / "r.db", org, load=BULK if bulk else None) as way:
        await loaded(way)
        assert await way.equals_org()
        assert await way.changes() == []
        row = await way.row(A)
        assert row is not None
        assert row.version == 0
        (done,) = way.rounds
        assert (done.kind, done.objects, done.records, done.error) == ("load", ("Contact",), 24, None)
        assert done.api_calls == org.calls.total() - 1  # all but the description
        assert way.progress[0] == ("Contact", 0, 24)
        assert way.progress[-1] == ("Contact", 24, 24)
        assert (org.calls["bulk_page"], org.calls["query"]) == ((2, 1) if bulk else (0, 4))
        assert org.jobs == {}
        assert await way.cursor("poll:Contact") == {"high": to_iso(T0 - 60_000), "at": to_iso(T0)}


async def test_the_records_of_a_load_can_be_published(tmp_path: Path, org: FakeOrg) -> None:
    rules = LoadRules(bulk_threshold=1000, publish_backfill=True)
    async with opened(tmp_path / "r.db", org, load=rules) as way:
        await loaded(way)
        told = {(c.operation, c.origin) for c in await way.changes()}
        assert told == {(Operation.CREATE, Origin.BACKFILL)}
        assert len(await way.changes()) == 25


async def test_a_rest_load_resumes_at_the_last_id(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two pages: what is stored is not asked for again."""
    monkeypatch.setattr("connector.inbound.snapshot.PAGE_ROWS", 10)

    async def cut() -> None:
        org.failures["query"].append(LinkDown("cut"))

    org.after["query"].extend([lambda: None, cut])  # the count, the first page
    async with opened(tmp_path / "r.db", org) as way:
        with pytest.raises(LinkDown):
            await loaded(way)
    org.queries.clear()
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        assert f"WHERE Id > '{record_id(9)}'" in org.queries[0]
        assert len(org.queries) == 2
        assert await way.equals_org()


async def test_a_page_is_asked_for_while_the_last_one_is_stored(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for the other; the position is behind what is stored all the same."""
    monkeypatch.setattr("connector.inbound.snapshot.PAGE_ROWS", 10)
    stored: list[str | None] = []
    async with opened(tmp_path / "r.db", org) as way:

        async def look() -> None:
            stored.append((await way.cursor("load:Contact")).get("after"))

        org.after["query"].extend([lambda: None, look, look, look])  # behind the count, each page
        await loaded(way)
        assert stored == [None, None, record_id(9)]
        assert await way.equals_org()


async def test_a_page_that_cannot_be_stored_leaves_no_question_behind(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load ends with the store's error, and nobody waits for the page that was asked for meanwhile."""
    monkeypatch.setattr("connector.inbound.snapshot.PAGE_ROWS", 10)
    async with opened(tmp_path / "r.db", org) as way:
        org.after["query"].extend([lambda: None, lambda: None, asyncio.Event().wait])  # the second page never comes
        store = way.inbound.loader._page

        async def full(*_: object) -> None:
            await until(lambda: len(org.queries) == 3)
            raise StoreFull("no room")

        monkeypatch.setattr(way.inbound.loader, "_page", full)
        with pytest.raises(StoreFull):
            await loaded(way)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "load.Contact"]
        monkeypatch.setattr(way.inbound.loader, "_page", store)
        await loaded(way)
        assert await way.equals_org()


async def test_a_bulk_load_resumes_its_job(tmp_path: Path, org: FakeOrg) -> None:
    """The job and the page are on disk; what the stream told since the last run is not turned back."""
    org.page_rows = 10

    async def cut() -> None:
        org.failures["bulk_page"].append(LinkDown("cut"))

    org.after["bulk_page"].append(cut)
    async with opened(tmp_path / "r.db", org, load=BULK) as way:
        with pytest.raises(LinkDown):
            await loaded(way)
        assert (await way.cursor("load:Contact"))["locator"] == "10"
    async with opened(tmp_path / "r.db", org, load=BULK) as way:
        await loaded(way)
        assert org.calls["start_bulk_query"] == 1
        assert await way.equals_org()


async def test_a_bulk_page_is_asked_for_while_the_last_one_is_stored(tmp_path: Path, org: FakeOrg) -> None:
    """Neither waits for the other; the position is behind what is stored all the same."""
    org.page_rows = 10
    stored: list[str | None] = []
    async with opened(tmp_path / "r.db", org, load=BULK) as way:

        async def look() -> None:
            stored.append((await way.cursor("load:Contact"))["locator"])

        org.after["bulk_page"].extend([look, look, look])
        await loaded(way)
        assert stored == [None, None, "10"]
        assert await way.equals_org()


async def test_a_bulk_page_that_is_lost_is_asked_for_again(tmp_path: Path, org: FakeOrg) -> None:
    """By the locator behind what was stored while it was on its way."""
    org.page_rows = 10
    async with opened(tmp_path / "r.db", org, load=BULK) as way:

        async def lost() -> None:
            raise LinkDown("cut")

        org.after["bulk_page"].extend([lambda: None, lost])
        with pytest.raises(LinkDown):
            await loaded(way)
        state = await way.cursor("load:Contact")
        assert (state["locator"], state["done"]) == ("10", 10)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "load.Contact"]
        await loaded(way)
        assert await way.equals_org()
        assert (await way.cursor("load:Contact"))["done"] == 25


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_record_that_does_not_fit_is_left_out_and_told(tmp_path: Path, org: FakeOrg, *, bulk: bool) -> None:
    """The others of its page are loaded; the log names field and kind, and no value."""
    org.put("Contact", A, T0 - 60_000, Birthdate="1990-13-01")
    org.put("Contact", B, T0 - 60_000, Birthdate="1990-12-01")
    wanted = {"Contact": [*CONTACT_FIELDS, "Birthdate"]}
    async with opened(tmp_path / "r.db", org, load=BULK if bulk else None, wanted=wanted) as way:
        with capture_logs() as logs:
            await loaded(way)
        (told,) = [entry for entry in logs if entry["event"] == "read.rows_unreadable"]
        assert (told["rows"], told["error"]) == (1, "Birthdate: not a value of kind date")
        assert await way.row(A) is None
        assert await way.value(B, "Birthdate") == "1990-12-01"
        assert await way.run(lambda unit: unit.count(way.inbound.catalog.specs["Contact"])) == 24


async def test_a_job_that_is_gone_is_replaced_by_rest(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, load=BULK) as way:
        org.after["start_bulk_query"].append(org.jobs.clear)
        await loaded(way)
        assert await way.equals_org()
        assert org.calls["bulk_page"] == 0


async def test_events_during_a_bulk_load_win(tmp_path: Path, org: FakeOrg) -> None:
    """A Bulk result is not a snapshot: its rows may be older than what the stream told meanwhile (trap 15)."""
    async with opened(tmp_path / "r.db", org, load=BULK) as way, way.running("stream"):
        await until(lambda: way.inbound.stream_state.status == "live")
        new, gone = record_id(100), record_id(3)

        async def meanwhile() -> None:
            """After the job has read the rows, before its result is here."""
            org.put("Contact", A, T0 + 1000, Phone="1")
            org.delete("Contact", gone)
            org.put("Contact", new, T0 + 3000, LastName="New", FirstName=None)
            way.source.send(
                event("UPDATE", A, at_ms=T0 + 1000, Phone="1"),
                event("DELETE", gone, at_ms=T0 + 2000),
                event("CREATE", new, at_ms=T0 + 3000, Name={"LastName": "New"}),
                event("UPDATE", new, at_ms=T0 + 4000, Phone="2"),
            )
            org.put("Contact", new, T0 + 4000, Phone="2")
            await until(lambda: way.inbound.stream_state.events == 4)

        org.after["bulk_page"].append(meanwhile)
        await way.inbound.loader.load("Contact")
        assert await way.dirty() == {A: "unknown_record", gone: "unknown_record"}
        async with way.running("repair"):

            async def settled() -> bool:
                return not await way.dirty()

            await until(settled)
        assert await way.equals_org()


async def test_the_job_waits_for_the_stream_but_not_for_ever(tmp_path: Path, org: FakeOrg) -> None:
    patient = LoadRules(bulk_threshold=1000, publish_backfill=False, subscribe_wait_s=30)
    async with opened(tmp_path / "r.db", org, load=patient) as way, way.running("load"):
        assert not way.inbound.loader._idle.is_set()
        async with way.running("stream"):
            await ready(way)
    async with opened(tmp_path / "other.db", org) as way, way.running("load"):
        await ready(way)


async def test_the_job_retries_and_says_so(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        org.failures["query"].append(LinkDown("cut"))
        async with way.running("load"):
            await way.inbound.loader.finished()
        assert [(r.kind, r.error) for r in way.rounds] == [("load", "cut"), ("load", None)]


async def test_a_refused_object_is_reported_and_left(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        org.failures["query"].append(OrgRefused(403, ({"code": "FORBIDDEN", "message": "", "fields": []},)))
        async with way.running("load"):
            await until(lambda: bool(way.rounds))
        assert way.rounds[-1].error == "HTTP 403: FORBIDDEN"


async def test_an_empty_object_is_loaded_and_can_be_polled(tmp_path: Path) -> None:
    org = FakeOrg("Contact", server_ms=T0)
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 - 1000, LastName="First")
        await way.inbound.sync()
        assert await way.equals_org()


async def test_a_load_state_that_cannot_be_read_is_begun_again(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await way.run(lambda unit: unit.set_cursor("load:Contact", '{"what": 1}', 0))
        await loaded(way)
        assert await way.equals_org()
        assert len(way.rounds) == 1


async def test_a_stored_bulk_job_of_that_name_is_used(tmp_path: Path, org: FakeOrg) -> None:
    """The fake's first job has this id; the constant documents the stored form."""
    async with opened(tmp_path / "r.db", org, load=BULK) as way:
        org.failures["bulk_job"].append(LinkDown("cut"))
        with pytest.raises(LinkDown):
            await loaded(way)
        state = await way.cursor("load:Contact")
        assert (state["state"], state["via"], state["job"], state["done"]) == ("loading", "bulk", JOB, 0)

"""Objects as the org describes them, taken over while running, known without the org."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from connector.errors import LinkDown
from connector.ports import Purpose
from tests.events import T0, record_id
from tests.fakes import FakeOrg
from tests.waiting import until
from tests.way import loaded, opened

A = record_id(1)


@pytest.fixture
def org() -> FakeOrg:
    org = FakeOrg("Contact", server_ms=T0)
    org.put("Contact", A, T0 - 60_000, LastName="Doe", Phone="12", Department="Sales")
    return org


def redescribe(org: FakeOrg, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Pass every field of Contact through `change`; None removes it."""
    fields = [change(dict(f)) for f in org.describes["Contact"]["fields"]]
    org.describes["Contact"] = {**org.describes["Contact"], "fields": [f for f in fields if f is not None]}


async def test_a_start_without_the_org_knows_its_tables(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        known = way.inbound.catalog.specs["Contact"]
    org.failures["describe"].append(LinkDown("down"))
    async with opened(tmp_path / "r.db", org) as way:
        assert way.inbound.catalog.specs["Contact"].fields == known.fields
        assert await way.value(A, "LastName") == "Doe"


class SlowOrg(FakeOrg):
    """Answers no description before all are asked for."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self._all = asyncio.Barrier(len(names))

    async def describe(self, name: str, purpose: Purpose) -> Mapping[str, Any]:
        async with asyncio.timeout(20):
            await self._all.wait()
        return await super().describe(name, purpose)


async def test_objects_are_described_side_by_side(tmp_path: Path) -> None:
    """A start waits for the org once, however many there are; one that is not told now is known from before."""
    org = SlowOrg("Contact", "Account")
    wanted = {"Contact": ("LastName",), "Account": ("Name",)}
    for failures in ((), (LinkDown("down"),), (LinkDown("down"), LinkDown("down"))):
        org.failures["describe"].extend(failures)
        async with opened(tmp_path / "r.db", org, wanted=wanted) as way:
            assert way.inbound.catalog.specs.keys() == wanted.keys()


class BackwardOrg(FakeOrg):
    """Describes Contact once Account is known."""

    def __init__(self) -> None:
        super().__init__("Contact", "Account")
        self.known: Callable[[], bool] = lambda: False

    async def describe(self, name: str, purpose: Purpose) -> Mapping[str, Any]:
        if name == "Contact":
            await until(self.known)
        return await super().describe(name, purpose)


async def test_objects_keep_the_order_of_the_settings(tmp_path: Path) -> None:
    """In which they are loaded, whichever is described first."""
    org = BackwardOrg()
    wanted = {"Contact": ("LastName",), "Account": ("Name",)}
    org.known = lambda: org.calls["describe"] == 1
    async with opened(tmp_path / "r.db", org, wanted=wanted) as way:
        assert list(way.inbound.catalog.specs) == ["Contact", "Account"]


async def test_a_first_start_without_the_org_waits(tmp_path: Path, org: FakeOrg) -> None:
    org.failures["describe"].append(LinkDown("down"))
    with pytest.raises(LinkDown):
        async with opened(tmp_path / "r.db", org):
            pass


async def test_an_object_that_the_org_does_not_have(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, wanted={"Contact": "all", "Nothing__c": "all"}) as way:
        assert list(way.inbound.catalog.specs) == ["Contact"]
        assert "HTTP 404" in way.inbound.catalog.problems["Nothing__c"]
        assert not way.inbound.catalog.usable("Nothing__c")


@pytest.mark.parametrize("described", [{}, {"name": "Contact", "fields": 7}, {"name": "contact", "fields": []}])
async def test_a_description_that_cannot_be_used(tmp_path: Path, org: FakeOrg, described: dict[str, Any]) -> None:
    org.describes["Contact"] = described
    async with opened(tmp_path / "r.db", org) as way:
        assert way.inbound.catalog.specs == {}
        assert "Contact" in way.inbound.catalog.problems


async def test_the_same_description_changes_nothing(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        before = way.inbound.catalog.specs
        assert not await way.inbound.catalog.refresh("Contact")
        assert way.inbound.catalog.specs is before


async def test_a_field_that_came_is_filled_without_a_word(tmp_path: Path, org: FakeOrg) -> None:
    """The setting names it, the org has it now: its first values are no changes."""
    redescribe(org, lambda f: None if f["name"] == "Department" else f)
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("LastName", "Department")}) as way:
        await loaded(way)
        assert way.inbound.catalog.specs["Contact"].missing == ("Department",)
        org.describes["Contact"] = FakeOrg("Contact").describes["Contact"]
        async with way.running("load"):
            await way.inbound.catalog.refresh("Contact")
            await way.until_value(A, "Department", "Sales")
            await until(lambda: len(way.rounds) == 2)
        assert await way.changes() == []
        assert [r.kind for r in way.rounds] == ["load", "reread"]


async def test_a_field_that_settings_added_is_filled_at_the_next_start(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("LastName",)}) as way:
        await loaded(way)
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("LastName", "Phone")}) as way, way.running("load"):
        await way.until_value(A, "Phone", "12")


async def test_a_field_that_went_takes_its_column_along(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("LastName", "Phone")}) as way:
        await loaded(way)
        redescribe(org, lambda f: None if f["name"] == "Phone" else f)
        assert await way.inbound.catalog.refresh("Contact")
        row = await way.row(A)
        assert row is not None
        assert row.values == {"LastName": "Doe"}


async def test_a_field_that_was_retyped_is_read_again(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org, wanted={"Contact": ("LastName", "Phone")}) as way:
        await loaded(way)
        redescribe(org, lambda f: {**f, "type": "double"} if f["name"] == "Phone" else f)
        org.rows["Contact"][A]["Phone"] = 12.5
        async with way.running("load", "poll"):
            way.inbound.poller.poll_soon()
            await way.until_value(A, "Phone", 12.5)
            await until(lambda: [r.kind for r in way.rounds].count("reread") == 1)


async def test_a_request_under_the_old_description_is_asked_again(tmp_path: Path, org: FakeOrg) -> None:
    """Rows that were asked for before a field came must not be written into the new table."""
    async with opened(tmp_path / "r.db", org, wanted={"Contact": "all"}) as way:
        await loaded(way)
        org.put("Contact", A, T0, Phone="13")

        async def meanwhile() -> None:
            redescribe(org, lambda f: None if f["name"] == "Fax" else f)
            await way.inbound.catalog.refresh("Contact")

        org.after["query_many"].append(meanwhile)
        async with way.running("poll"):
            way.inbound.poller.poll_soon()
            await way.until_value(A, "Phone", "13")
        assert org.calls["query_many"] == 2
        assert not [r for r in way.rounds if r.error]

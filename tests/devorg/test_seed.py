"""Seeding: the same made-up records each time, quickly, with or without change events."""

from typing import Any

import pytest

from connector.devorg.admin.seed import SEED_ORIGIN, Seed, sow
from connector.devorg.server import DevOrg
from tests.devorg.conftest import Admin

SMALL = {"accounts": 3, "contacts": 20, "leads": 10, "opportunities": 5}


def names_in(org: DevOrg, name: str) -> list[str]:
    """Names of an object's records, in the order of their ids."""
    table = org.ctx.schema.require(name).table
    statement = f'SELECT "Name" FROM "{table}" ORDER BY "Id"'  # noqa: S608 - the table's name is the schema's
    return [row["Name"] for row in org.ctx.database.connection.execute(statement)]


async def everything(admin: Admin) -> dict[str, list[dict[str, Any]]]:
    names = ("Account", "Contact", "Lead", "Opportunity")
    return {name: (await admin("GET", f"/records/{name}"))["records"] for name in names}


async def test_a_historic_seed_was_always_there(org: DevOrg, admin: Admin) -> None:
    """No event tells of it, its stamps lie in the past in the right order, and references resolve."""
    before = org.ctx.bus.latest_id()
    made = await admin("POST", "/seed", SMALL)
    assert made == {"Account": 3, "Contact": 20, "Lead": 10, "Opportunity": 5}
    assert org.ctx.bus.latest_id() == before
    assert {entry["origin"] for entry in (await admin("GET", "/ledger"))["entries"]} == {SEED_ORIGIN}
    now = (await admin("GET", "/time"))["now"]
    seeded = await everything(admin)
    for records in seeded.values():
        for record in records:
            assert record["CreatedDate"] <= record["LastModifiedDate"] == record["SystemModstamp"] < now
    accounts = {record["Id"] for record in seeded["Account"]}
    assert {record["AccountId"] for record in seeded["Contact"]} <= accounts
    assert all(record["Name"] == f"{record['FirstName']} {record['LastName']}" for record in seeded["Contact"])
    assert all(record["Email"].endswith("@example.com") for record in seeded["Lead"])


async def test_a_live_seed_is_announced(org: DevOrg, admin: Admin) -> None:
    """As records that people make now."""
    before = org.ctx.bus.latest_id()
    await admin("POST", "/seed", {**SMALL, "historic": False})
    assert org.ctx.bus.latest_id() > before
    assert len((await everything(admin))["Contact"]) == 20


async def test_the_same_order_gives_the_same_records(org: DevOrg) -> None:
    """In every org; another number gives others."""
    await sow(org.ctx, Seed(contacts=20))
    async with DevOrg() as other:
        await sow(other.ctx, Seed(contacts=20))
        await sow(other.ctx, Seed(contacts=20, number=2))
        names = names_in(other, "Contact")
    assert names[:20] == names_in(org, "Contact")
    assert names[20:] != names[:20]


async def test_ids_go_on_behind_a_seed(org: DevOrg) -> None:
    """Two seeds and a record of somebody's own do not collide."""
    await sow(org.ctx, Seed(leads=5))
    await sow(org.ctx, Seed(leads=5, historic=False))
    assert len(names_in(org, "Lead")) == 10


def test_too_much_is_refused() -> None:
    """The org's file has a bound."""
    with pytest.raises(ValueError, match="at most"):
        Seed(contacts=2_000_001)

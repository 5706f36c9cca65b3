"""The way from the org to the replica against the local org: every field of the four objects, every kind of change."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.records.org import Org
from connector.devorg.records.transaction import Transaction
from connector.devorg.server import DevOrg
from connector.inbound.decode import NOT_STREAMED
from connector.model.change import Change, Operation
from tests.copies import OBJECTS, ORIGIN, copied
from tests.waiting import until

LONG = "\n".join(f"Row {n:02d} " + "x" * 60 for n in range(1, 41))


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        seed(started.ctx.org)
        yield started


def seed(org: Org) -> None:
    with org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
        for n in range(25):
            account = t.create("Account", {"Name": f"Acme {n}", "BillingCity": "Bergen", "AnnualRevenue": 1000 + n})
            t.create(
                "Contact",
                {"FirstName": "Jane", "LastName": f"Doe {n}", "AccountId": account, "Birthdate": "1990-01-02"},
            )
            t.create("Lead", {"FirstName": "Ola", "LastName": f"Berg {n}", "Company": f"Berg {n}", "City": "Oslo"})
            t.create(
                "Opportunity",
                {
                    "Name": f"Deal {n}",
                    "AccountId": account,
                    "StageName": "Prospecting",
                    "CloseDate": "2026-12-24",
                    "Amount": 10.5 * n,
                },
            )


async def test_a_load_by_bulk_is_equal_in_every_field(org: DevOrg, tmp_path: Path) -> None:
    """25 records each, above the threshold: nulls, numbers, booleans, dates and date-times out of CSV."""
    async with copied(org, tmp_path / "r.db") as copy:
        assert await copy.difference() == {}
        assert [r.kind for r in copy.rounds if r.objects] == ["load"] * 4
        assert await copy.changes() == []


async def test_every_kind_of_change_arrives_as_rest_would_tell_it(org: DevOrg, tmp_path: Path) -> None:
    """Compounds, nulls, merged ids, long texts, several writes of one record: by events alone, in every field."""
    async with copied(org, tmp_path / "r.db", jobs=("stream", "load", "repair")) as copy:
        contacts, accounts = await copy.ids("Contact"), await copy.ids("Account")
        leads, deals = await copy.ids("Lead"), await copy.ids("Opportunity")
        copy.update("Contact", contacts[0], {"FirstName": "Maren"})
        copy.update("Contact", contacts[1], {"FirstName": None, "Phone": "1", "MailingCity": "Oslo"})
        copy.update("Contact", contacts[1], {"Phone": None, "MailingCity": None})
        copy.update("Account", accounts[0], {"BillingCity": None, "BillingStreet": "1 Quay Rd\nB"})
        copy.update("Account", accounts[:5], {"Industry": "Apparel"})
        copy.update("Account", accounts[1], {"Description": LONG})
        copy.update("Account", accounts[1], {"Description": LONG.replace("Row 07", "Row 70")})
        copy.update("Opportunity", deals[0], {"Amount": 1}, {"Amount": 2.25}, {"Amount": 3})
        copy.update("Opportunity", deals[1], {"StageName": "Closed Won", "CloseDate": "2027-01-31"})
        copy.write(lambda t: t.delete("Lead", leads[0]))
        copy.write(lambda t: t.undelete("Lead", leads[0]))
        copy.write(lambda t: t.delete("Lead", leads[1]))
        copy.write(lambda t: t.create("Contact", {"LastName": "Ny", "Email": "ny@example.com", "MailingCity": "Bø"}))
        await copy.settled(but=NOT_STREAMED)
        assert copy.inbound.stream_state.quarantined == 0
        assert await copy.database.run(lambda unit: unit.queue_depths()["dirty"]) == 0
        assert copy.door.budget.snapshot()["own"].get("repair", 0) == 0
        await copy.inbound.sync()
        assert await copy.difference() == {}


async def test_merge_conversion_and_cascades(org: DevOrg, tmp_path: Path) -> None:
    """Losers deleted, children re-parented, what a lead becomes made before it is converted."""
    async with copied(org, tmp_path / "r.db", jobs=("stream", "load", "repair")) as copy:
        accounts, leads = await copy.ids("Account"), await copy.ids("Lead")
        copy.write(lambda t: t.merge("Account", accounts[0], [accounts[1], accounts[2]], {"Phone": "7"}))
        copy.write(lambda t: t.merge("Lead", leads[5], [leads[6]]))
        copy.write(lambda t: t.convert_lead(leads[0]))
        copy.write(lambda t: t.delete("Account", accounts[3]))
        await copy.settled(but=NOT_STREAMED)
        changes = await copy.changes()
        converted = [
            (c.object, c.operation) for c in changes if c.commit and c.commit.transaction == _key(changes, leads[0])
        ]
        assert converted == [
            ("Account", Operation.CREATE),
            ("Contact", Operation.CREATE),
            ("Opportunity", Operation.CREATE),
            ("Lead", Operation.UPDATE),
        ]


def _key(changes: Sequence[Change], record: str) -> str | None:
    return next(c.commit.transaction for c in reversed(changes) if c.id == record and c.commit is not None)


async def test_polls_alone_keep_it_equal(org: DevOrg, tmp_path: Path) -> None:
    """Without a stream: everything but what was removed for good comes by query."""
    async with copied(org, tmp_path / "r.db", streaming=False, jobs=("load",)) as copy:
        contacts, accounts = await copy.ids("Contact"), await copy.ids("Account")
        copy.update("Contact", contacts[0], {"FirstName": "Maren", "Birthdate": None})
        copy.write(lambda t: t.merge("Account", accounts[0], [accounts[1]]))
        copy.write(lambda t: t.delete("Contact", contacts[3]))
        copy.write(lambda t: t.create("Lead", {"LastName": "Ny", "Company": "Ny"}))
        await copy.inbound.sync()
        assert await copy.difference() == {}
        copy.write(lambda t: t.delete("Contact", contacts[4]))
        copy.write(lambda t: t.purge("Contact", contacts[4]))
        await copy.inbound.sync()
        assert list(await copy.difference()) == [f"Contact/{contacts[4]}"]
        (verified,) = await copy.inbound.verify(["Contact"])
        assert (verified.drift, verified.repaired) == (1, 1)
        assert await copy.difference() == {}


async def test_gaps_overflows_and_a_lost_position(org: DevOrg, tmp_path: Path) -> None:
    """What the stream could not tell is read; what nobody told is announced and caught up."""
    async with copied(org, tmp_path / "r.db") as copy:
        contacts = await copy.ids("Contact")
        copy.update("Contact", contacts[0], {"Phone": "1"}, announce=False)
        copy.write(lambda t: t.delete("Contact", contacts[1]), announce=False)
        org.ctx.bus.emit_without_body("Contact", "GAP_UPDATE", [contacts[0]])
        org.ctx.bus.emit_without_body("Contact", "GAP_DELETE", [contacts[1]])
        await copy.settled()
        copy.update("Contact", contacts[5:], {"Phone": "2"}, announce=False)
        copy.write(lambda t: t.delete("Contact", contacts[2]), announce=False)
        org.ctx.bus.emit_without_body("Contact", "GAP_OVERFLOW", ["000000000000000AAA"])
        await copy.settled()

        async def closed() -> bool:
            return not await copy.database.run(lambda unit: unit.open_holes())

        await until(closed)
        position = await copy.database.run(lambda unit: unit.cursor("stream:cometd:/data/ChangeEvents"))
        assert position is not None
    copy.update("Contact", contacts[7], {"Phone": "3"})
    copy.write(lambda t: t.delete("Contact", contacts[8]))
    org.ctx.bus.expire_all()
    async with copied(org, tmp_path / "r.db") as again:
        await again.settled()

        async def shut() -> bool:
            return not await again.database.run(lambda unit: unit.open_holes())

        await until(shut)
        found = [m.message.payload.decode() for m in await again.database.run(_messages)]
    assert [f.rsplit(" ", 1)[0] for f in found if "lost" in f].count("closed replay_id_lost") == len(OBJECTS)


def _messages(unit: Any) -> Any:
    unit.mark_published(unit.last_version(), 0)
    return unit.due(1000)


async def test_random_edits_of_everything(org: DevOrg, tmp_path: Path) -> None:
    """A few hundred transactions as fast as they come, polls in between: equal at the end, no version missing."""
    rng = random.Random(11)
    async with copied(org, tmp_path / "r.db") as copy:
        for n in range(300):
            name = rng.choice(OBJECTS)
            known = sorted(i for i in await copy.rows(name) if org.ctx.org.get(name, i) is not None)
            some = rng.sample(known, min(len(known), rng.choice([1, 1, 1, 3])))
            kind = rng.choice(["update"] * 6 + ["delete", "create"])

            def work(t: Transaction, name: str = name, some: list[str] = some, kind: str = kind, n: int = n) -> None:
                if kind == "create":
                    t.create(name, _values(name, n, rng) | _required(name))
                for i in some if kind != "create" else ():
                    t.delete(name, i) if kind == "delete" else t.update(name, i, _values(name, n, rng))

            with suppress(Exception):  # converted leads and the like are refused; nothing of it is kept
                copy.write(work)
            if rng.random() < 0.05:
                await copy.inbound.sync()
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await copy.settled(but=NOT_STREAMED)
        await copy.inbound.sync()
        assert await copy.difference() == {}
        versions = [c.version for c in await copy.changes()]
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) > 200


def _values(name: str, n: int, rng: random.Random) -> dict[str, Any]:
    text = rng.choice([None, "x", f"v{n}"])
    choices: dict[str, list[dict[str, Any]]] = {
        "Account": [{"Phone": text}, {"BillingCity": text}, {"AnnualRevenue": n}, {"Description": LONG + f"{n}"}],
        "Contact": [{"Phone": text}, {"FirstName": text}, {"LastName": f"L{n}"}, {"MailingCity": text}],
        "Lead": [{"Phone": text}, {"City": text, "Street": f"{n}\nB"}, {"LastName": f"L{n}"}, {"Email": None}],
        "Opportunity": [
            {"Amount": n / 4},
            {"NextStep": text},
            {"StageName": rng.choice(["Qualification", "Closed Lost"])},
        ],
    }
    return rng.choice(choices[name])


def _required(name: str) -> dict[str, Any]:
    return {
        "Account": {"Name": "New"},
        "Contact": {"LastName": "New"},
        "Lead": {"LastName": "New", "Company": "New"},
        "Opportunity": {"Name": "New", "StageName": "Prospecting", "CloseDate": "2026-12-24"},
    }[name]

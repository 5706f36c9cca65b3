"""Answers of the org are lost at random: every create has its one record, every edit its effect."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connector.devorg.server import DevOrg
from connector.model.command import CommandStatus
from tests.orgcommands import OrgBench, org_bench
from tests.waiting import until

# `make lost-answers` runs the long one.
CREATES = int(os.environ.get("LOST_ANSWER_CREATES", "600"))
WRITES = r"/composite(/sobjects)?$|/sobjects/Contact$"


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        started.ctx.settings.api_limit = 10**9
        yield started


async def lose_answers(org: DevOrg, rng: random.Random) -> None:
    """From now on some of the writes are carried out without an answer, and some are not even carried out."""
    while True:
        if not org.ctx.faults.in_force():
            effect = "drop_response" if rng.random() < 0.8 else "close"
            org.ctx.faults.add("rest", path=WRITES, skip=rng.randrange(4), **{effect: True})
        await asyncio.sleep(0.01)


async def give_in_waves(bench: OrgBench, names: list[str], rng: random.Random) -> None:
    at = 0
    while at < len(names):
        size = rng.choice([1, 3, 20, 80, 400])
        for number, name in enumerate(names[at : at + size], at):
            await bench.give("Contact", "create", {"command_id": f"c{number}", "fields": {"LastName": name}})
        at += size
        await asyncio.sleep(rng.random() * 0.1)


@pytest.mark.timeout(60 + CREATES // 10)
@pytest.mark.parametrize("external_id", ["", "BlackRoad_Key__c"])
async def test_creates_whose_answers_are_lost(org: DevOrg, tmp_path: Path, external_id: str) -> None:
    """Exactly one record each, found by what was written or by the external id; equal ones as many as were wanted."""
    rng = random.Random(11)
    # Some are equal in all they set: only their number can be told.
    names = [f"Lost {rng.randrange(CREATES // 2)}" if rng.random() < 0.2 else f"Only {n}" for n in range(CREATES)]
    if external_id:
        add_key(org, external_id)
    fields = {"Contact": ("FirstName", "LastName", *([external_id] if external_id else []))}
    began_s = time.monotonic()
    async with org_bench(tmp_path / "r.db", org, fields, external_id=external_id, settle_ms=1500) as bench:
        async with bench.sending():
            losing = asyncio.create_task(lose_answers(org, rng))
            await give_in_waves(bench, names, rng)
            await asyncio.sleep(0.5)
            losing.cancel()
            org.ctx.faults.clear()
            await until(bench.done, 30 + CREATES / 20)
        statuses = Counter((await bench.statuses()).values())
        lost = await bench.database.run(lambda unit: sum(c.answer_lost for c in unit.commands(None, 10**6)))
        made = Counter(row["LastName"] for row in rows(org))
        ids = [c.record_id for c in await bench.database.run(lambda unit: unit.commands(None, 10**6))]
    took_s = time.monotonic() - began_s
    print(f"{CREATES} creates, {lost} answers lost, {org.ctx.usage.api.used()} calls, {took_s:.0f} s")  # noqa: T201 - the long run's figures
    assert statuses == {CommandStatus.SUCCEEDED: CREATES}
    assert made == Counter(names)
    assert len(set(ids)) == CREATES
    assert lost > CREATES // 20


def add_key(org: DevOrg, name: str) -> None:
    """A unique external id field on contacts."""
    org.ctx.schema.add_field(
        "Contact", {"name": name, "type": "string", "length": 128, "externalId": True, "unique": True}
    )


def rows(org: DevOrg) -> list[dict[str, str]]:
    found = org.ctx.database.connection.execute("SELECT LastName FROM record_contact WHERE LastName LIKE '% %'")
    return [dict(row) for row in found]

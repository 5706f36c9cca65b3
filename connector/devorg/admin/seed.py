"""Fills an org with made-up records: the same ones for the same order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from connector.devorg.admin import names
from connector.devorg.clock import stamp
from connector.devorg.context import UI_ORIGIN, Context
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.residents import FIRST_EDITOR_ID, INTEGRATION_USER_ID, SECOND_EDITOR_ID
from connector.devorg.records.derive import STAGES, defaults, derive
from connector.devorg.records.transaction import Transaction

SEED_ORIGIN = "devorg/seed"
"""Origin, in the ledger, of records that no change event told of."""

MOST_RECORDS = 2_000_000
PER_TRANSACTION = 200
_HOUR_MS = 3600 * 1000
_YEAR_MS = 365 * 24 * _HOUR_MS
_EDITORS = (FIRST_EDITOR_ID, SECOND_EDITOR_ID)
_INDUSTRIES = ("Agriculture", "Banking", "Construction", "Electronics", "Energy", "Retail", "Technology")
_STATUSES = ("Open - Not Contacted", "Working - Contacted", "Closed - Not Converted")
_CITIES = ("Northport", "Eastbrook", "Southmoor", "Westfield")

Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What to sow.

    Attributes:
        number: Another one gives other records.
        historic: The records were there before: made within the last year, and no change event tells of them.
    """

    accounts: int = 0
    contacts: int = 0
    leads: int = 0
    opportunities: int = 0
    number: int = 1
    historic: bool = True

    def __post_init__(self) -> None:
        counts = (self.accounts, self.contacts, self.leads, self.opportunities)
        if min(counts) < 0 or sum(counts) > MOST_RECORDS:
            raise ValueError(f"expected counts of zero or more, together at most {MOST_RECORDS}")


async def sow(context: Context, seed: Seed) -> dict[str, int]:
    """Make the records and tell how many of each object there are now more.

    The org goes on answering meanwhile; a part may stand where this is cut short.
    """
    rng = Random(seed.number)  # noqa: S311 - the point is that it can be foretold
    plant = _plant_historic if seed.historic else _plant_now
    today = datetime.fromtimestamp(context.clock.now_ms() / 1000, UTC)
    accounts = await plant(context, rng, "Account", [_account(rng) for _ in range(seed.accounts)])
    contacts = [_contact(rng, number, accounts) for number in range(seed.contacts)]
    leads = [_lead(rng, number) for number in range(seed.leads)]
    opportunities = [_opportunity(rng, accounts, today) for _ in range(seed.opportunities)]
    return {
        "Account": len(accounts),
        "Contact": len(await plant(context, rng, "Contact", contacts)),
        "Lead": len(await plant(context, rng, "Lead", leads)),
        "Opportunity": len(await plant(context, rng, "Opportunity", opportunities)),
    }


def _account(rng: Random) -> Values:
    return {
        "Name": names.company(rng),
        "Industry": rng.choice(_INDUSTRIES),
        "AnnualRevenue": float(rng.randrange(10, 50_000) * 1000),
        "Phone": names.phone(rng),
        "BillingCity": rng.choice(_CITIES),
    }


def _contact(rng: Random, number: int, accounts: Sequence[str]) -> Values:
    first, last = names.word(rng, 2), names.word(rng, 3)
    return {
        "FirstName": first,
        "LastName": last,
        "Email": names.email(first, last, number),
        "Phone": names.phone(rng),
        "AccountId": rng.choice(accounts) if accounts else None,
        "MailingCity": rng.choice(_CITIES),
    }


def _lead(rng: Random, number: int) -> Values:
    first, last = names.word(rng, 2), names.word(rng, 3)
    return {
        "FirstName": first,
        "LastName": last,
        "Company": names.company(rng),
        "Email": names.email(first, last, number),
        "Status": rng.choice(_STATUSES),
    }


def _opportunity(rng: Random, accounts: Sequence[str], today: datetime) -> Values:
    return {
        "Name": f"{names.word(rng, 2)} order",
        "AccountId": rng.choice(accounts) if accounts else None,
        "Amount": float(rng.randrange(5, 5000) * 100),
        "StageName": rng.choice(tuple(STAGES)),
        "CloseDate": (today + timedelta(days=rng.randrange(-180, 180))).date().isoformat(),
    }


async def _plant_now(context: Context, rng: Random, name: str, records: Sequence[Values]) -> list[str]:
    """Make them as people do, with change events."""
    made: list[str] = []
    for start in range(0, len(records), PER_TRANSACTION):
        with context.org.transaction(rng.choice(_EDITORS), UI_ORIGIN) as transaction:
            made += [transaction.create(name, values) for values in records[start : start + PER_TRANSACTION]]
        await asyncio.sleep(0)
    return made


async def _plant_historic(context: Context, rng: Random, name: str, records: Sequence[Values]) -> list[str]:
    """Put them where they would be if they had been made within the last year."""
    schema = context.schema.require(name)
    made: list[str] = []
    for start in range(0, len(records), PER_TRANSACTION):
        with context.org.transaction(INTEGRATION_USER_ID, SEED_ORIGIN, announce=False) as transaction:
            for values in records[start : start + PER_TRANSACTION]:
                row = _row(transaction, rng, schema, values)
                transaction.write(schema, None, row)
                made.append(row["Id"])
        await asyncio.sleep(0)
    return made


def _row(transaction: Transaction, rng: Random, schema: ObjectSchema, values: Values) -> Values:
    now_ms = transaction.started_ms
    age_ms = rng.randrange(_HOUR_MS, _YEAR_MS)
    created, modified = stamp(now_ms - age_ms), stamp(now_ms - rng.randrange(_HOUR_MS - 1, age_ms))
    creator, modifier = rng.choice(_EDITORS), rng.choice(_EDITORS)
    system = {
        "Id": transaction.parts.ids.make(schema.key_prefix),
        "IsDeleted": False,
        "CreatedDate": created,
        "CreatedById": creator,
        "LastModifiedDate": modified,
        "LastModifiedById": modifier,
        "SystemModstamp": modified,
    }
    row = {**defaults(schema, creator), **values, **system}
    derive(schema, row, list(values), None)
    return row

"""A first load beside what people use for it today, in one run, from the same pages of the same org.

`docs/benchmarks.md` tells what each ends up with; `tests/e2e/test_bench_tools.py` holds it to that.
"""

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import pypi
from tests.bench import extract
from tests.bench.feed_rows import contact
from tests.bench.gateway import MY_DOMAIN, gateway
from tests.bench.harness import Figure
from tests.bench.load import RowsProcess, loaded, loading, plain
from tests.e2e.stack import Stack

SINGER = "tap-salesforce | target-sqlite"
CUMULUSCI = "CumulusCI's extract"
SCRIPT = "simple-salesforce and sqlite3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many contacts."""

    contacts: int = 100_000


FULL = Scale()


def beside(directory: Path, scale: Scale = FULL) -> list[Figure]:
    """Ours, then the others', each by its Bulk API; a tool that cannot be installed is left out, and a line says so."""
    count = scale.contacts
    with loading(directory) as stack, RowsProcess(stack.told["url"], count) as rows:
        done = loaded(stack, rows, count, bulk_threshold=1000)
        if stack.daemon.stop() != 0:
            raise RuntimeError(stack.daemon.last_words())
        _check(stack.replica.path, "FirstName, LastName, Email, Phone, AccountId FROM contact", count)
        script = plain(stack, rows, directory / "plain.db")
        _check(directory / "plain.db", "FirstName, LastName, Email, Phone, nullif(AccountId, '') FROM contact", count)
        return [
            *_figures("the daemon", count, done.took_s, done.used_s, done.peak_mb),
            *_figures(SCRIPT, count, script["seconds"], script["processor_s"], script["peak_mb"]),
            *_tools(directory, stack, rows, count),
        ]


def _tools(directory: Path, stack: Stack, rows: RowsProcess, count: int) -> Iterator[Figure]:
    stack.org.set(instance_url=MY_DOMAIN)
    names = fields(stack)
    with gateway(rows.url, directory) as through:
        tap = extract.singer_programs()
        if tap is None:
            sys.stderr.write(f"{SINGER}: left out: {pypi.MISSING}\n")
        else:
            rows.make(extract.singer_prepared(tap, directory, stack.told, through, names))
            spent = extract.singer(tap, directory, through)
            _check(spent.database, "first_name, last_name, email, phone, account_id FROM contact", count)
            yield from _figures(SINGER, count, spent.seconds, spent.processor_s, spent.peak_mb)
        cci = extract.cumulusci_programs()
        if cci is None:
            sys.stderr.write(f"{CUMULUSCI}: left out: {pypi.MISSING}, or there is no git\n")
        else:
            extract.cumulusci_prepared(directory, stack.told, names)
            rows.make(["Id", *names, "SystemModstamp"])
            spent = extract.cumulusci(cci, directory, through)
            _check(spent.database, "FirstName, LastName, Email, Phone, nullif(AccountId, '') FROM Contact", count)
            yield from _figures(CUMULUSCI, count, spent.seconds, spent.processor_s, spent.peak_mb)


def _figures(who: str, count: int, seconds: float, processor_s: float, peak_mb: float) -> Iterator[Figure]:
    yield Figure(name=f"{count:,} contacts, {who}: rows a second", value=count / seconds, unit="/s")
    yield Figure(name=f"{who}: rows a second of processor", value=count / processor_s, unit="/s")
    yield Figure(name=f"{who}: peak memory", value=peak_mb, unit="MB", better="less")


def fields(stack: Stack) -> list[str]:
    """Those of Contact that the daemon keeps, and everybody is to; but the id."""
    described = stack.replica.rows("SELECT name FROM pragma_table_info('contact')")
    return [row["name"] for row in described if row["name"] != "Id" and not row["name"].startswith("_")]


def _check(database: Path, columns: str, count: int) -> None:
    """Every contact is there, once, as the org has it."""
    with sqlite3.connect(database) as connection:
        found = sorted(connection.execute(f"SELECT {columns}"))
    expected = sorted(tuple(_told(contact(number))) for number in range(count))
    assert len(found) == count, f"{len(found)} of {count} rows"
    differing = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    assert not differing, f"{len(differing)} differ: {differing[:3]}"


def _told(row: Mapping[str, object]) -> Iterator[object]:
    return (row.get(name) for name in ("FirstName", "LastName", "Email", "Phone", "AccountId"))

"""Is the replica equal to the org? Read with plain SQLite and over HTTP, as anybody could."""

import sqlite3
from collections.abc import Mapping
from typing import Any

import aiohttp

from connector.demo.parts import Parts
from connector.settings import DEFAULT_OBJECTS

PAGE = 2000


async def differing_records(session: aiohttp.ClientSession, parts: Parts) -> int:
    """How many records of the default objects are not the same in the org and in the replica."""
    differing = 0
    for name, settings in DEFAULT_OBJECTS.items():
        fields = ("Id", *settings["fields"])
        org = await _in_org(session, parts.org["url"], name, fields)
        replica = _in_replica(parts, name, fields)
        differing += sum(org.get(record) != replica.get(record) for record in org.keys() | replica.keys())
    return differing


async def _in_org(
    session: aiohttp.ClientSession, url: str, name: str, fields: tuple[str, ...]
) -> dict[str, tuple[Any, ...]]:
    rows: dict[str, tuple[Any, ...]] = {}
    after = ""
    while True:
        query = {"limit": str(PAGE), "after": after}
        async with session.get(f"{url}/devorg/records/{name}", params=query) as answer:
            answer.raise_for_status()
            page: list[Mapping[str, Any]] = (await answer.json())["records"]
        rows.update({row["Id"]: tuple(row[field] for field in fields) for row in page})
        if len(page) < PAGE:
            return rows
        after = page[-1]["Id"]


def _in_replica(parts: Parts, name: str, fields: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{parts.database}?mode=ro", uri=True)
    try:
        columns = ", ".join(f'"{field}"' for field in fields)
        rows = connection.execute(f"SELECT {columns} FROM {name.lower()}_live")  # noqa: S608 - our own names
        return {row[0]: row for row in rows}
    finally:
        connection.close()

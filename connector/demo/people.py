"""People who work in the org: they edit records at a steady rate, now and then create, delete and bring back."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import aiohttp

_PHONES = "555-{:04d}"
_STATUSES = ("Open - Not Contacted", "Working - Contacted")
_STAGES = ("Prospecting", "Qualification", "Needs Analysis", "Value Proposition")
_INDUSTRIES = ("Banking", "Energy", "Retail", "Technology")
IDS_PER_OBJECT = 200


class People:
    """Edits through the org's admin interface, which acts as its pages would."""

    def __init__(self, url: str, session: aiohttp.ClientSession, rng: random.Random) -> None:
        self._url = f"{url}/devorg"
        self._session = session
        self._rng = rng
        self._ids: dict[str, list[str]] = {}
        self._bin: list[tuple[str, str]] = []
        self.edits = 0

    async def arrive(self) -> None:
        """Look at the records there are."""
        for name in ("Contact", "Lead", "Account", "Opportunity"):
            async with self._session.get(f"{self._url}/records/{name}", params={"limit": IDS_PER_OBJECT}) as answer:
                answer.raise_for_status()
                self._ids[name] = [row["Id"] for row in (await answer.json())["records"]]

    async def work(self, per_second: float, until: asyncio.Event) -> None:
        """Edit at that rate until told to stop."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while not until.is_set():
            await self._edit_one()
            next_at = max(next_at + 1 / per_second, loop.time() - 1)
            try:
                async with asyncio.timeout_at(next_at):
                    await until.wait()
            except TimeoutError:
                continue

    async def _edit_one(self) -> None:
        change = self._choose()
        async with self._session.post(f"{self._url}/changes", json={"changes": [change]}) as answer:
            answer.raise_for_status()
            done = (await answer.json())["results"][0]
        self.edits += 1
        if change["op"] == "create":
            self._ids[change["object"]].append(done["id"])

    def _choose(self) -> dict[str, Any]:
        rng = self._rng
        roll = rng.random()
        if roll < 0.04:  # noqa: PLR2004 - shares of a working day
            number = rng.randrange(10_000)
            values = {"FirstName": "New", "LastName": f"Contact {number:04d}", "Phone": _PHONES.format(number)}
            return {"op": "create", "object": "Contact", "values": values}
        if roll < 0.06 and len(self._ids["Contact"]) > IDS_PER_OBJECT // 2:  # noqa: PLR2004 - likewise
            record_id = self._ids["Contact"].pop(rng.randrange(len(self._ids["Contact"])))
            self._bin.append(("Contact", record_id))
            return {"op": "delete", "object": "Contact", "id": record_id}
        if roll < 0.07 and self._bin:  # noqa: PLR2004 - likewise
            name, record_id = self._bin.pop()
            self._ids[name].append(record_id)
            return {"op": "undelete", "object": name, "id": record_id}
        name = rng.choice(("Contact", "Contact", "Lead", "Account", "Opportunity"))
        return {"op": "update", "object": name, "id": rng.choice(self._ids[name]), "values": self._values(name)}

    def _values(self, name: str) -> Mapping[str, Any]:
        rng = self._rng
        match name:
            case "Contact":
                return rng.choice(
                    (
                        {"Phone": _PHONES.format(rng.randrange(10_000))},
                        {"Phone": None},
                        {"FirstName": f"First {rng.randrange(1000)}"},
                    )
                )
            case "Lead":
                return {"Status": rng.choice(_STATUSES)}
            case "Account":
                return {"Industry": rng.choice(_INDUSTRIES), "AnnualRevenue": rng.randrange(1, 1000) * 1000}
            case _:
                return {"StageName": rng.choice(_STAGES), "Amount": rng.randrange(1, 100_000)}

"""People and faults in the local org, through its admin interface."""

import itertools
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import requests

TIMEOUT_S = 20.0
_NUMBERS = itertools.count(1)


class OrgAdmin:
    """One client of `/devorg/`; one for each thread that uses it."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/devorg"
        self._http = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, method: str, path: str, body: object = None, **params: str) -> Any:
        """The answer to one order."""
        headers = {"Content-Type": "application/json"}
        url = f"{self._url}{path}"
        answer = self._http.request(method, url, json=body, params=params, headers=headers, timeout=TIMEOUT_S)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def change(self, *changes: Mapping[str, Any], **options: Any) -> list[str]:
        """Make changes in one transaction; the ids of the records."""
        done = self.call("POST", "/changes", {"changes": list(changes), **options})
        return [result["id"] for result in done["results"]]

    def create(self, name: str, **values: Any) -> str:
        """Create a record; fields that the org insists on are filled in."""
        return self.change(creation(name, **values))[0]

    def update(self, name: str, record_id: str, **values: Any) -> None:
        """Edit a record."""
        self.change({"op": "update", "object": name, "id": record_id, "values": values})

    def delete(self, name: str, record_id: str) -> None:
        """Move a record to the recycle bin."""
        self.change({"op": "delete", "object": name, "id": record_id})

    def undelete(self, name: str, record_id: str) -> None:
        """Bring a record back."""
        self.change({"op": "undelete", "object": name, "id": record_id})

    def records(self, name: str, *, deleted: bool = False) -> dict[str, dict[str, Any]]:
        """Every record as stored, by id."""
        found: dict[str, dict[str, Any]] = {}
        after = ""
        while True:
            page = self.call("GET", f"/records/{name}", after=after, limit="5000", deleted="1" if deleted else "0")
            found.update({row["Id"]: row for row in page["records"]})
            if page["next"] is None:
                return found
            after = page["next"]

    def seed(self, **counts: int) -> None:
        """Put made-up records there, as from long ago."""
        self.call("POST", "/seed", counts)

    def set(self, **settings: Any) -> None:
        """Change switches and scales."""
        self.call("PATCH", "/settings", settings)

    def fault(self, kind: str, **effect: Any) -> int:
        """Order a fault; its number."""
        number: int = self.call("POST", "/faults", {"kind": kind, **effect})["number"]
        return number

    def no_faults(self) -> None:
        """Take all faults out of force."""
        self.call("DELETE", "/faults", {})

    def advance(self, seconds: float) -> None:
        """Move the org's clock."""
        self.call("POST", "/time", {"advance_s": seconds})

    def usage(self) -> dict[str, Any]:
        """What the org has counted."""
        usage: dict[str, Any] = self.call("GET", "/usage")
        return usage


def creation(name: str, **values: Any) -> dict[str, Any]:
    """The order to create a record, with what the org insists on filled in."""
    number = next(_NUMBERS)
    needed: dict[str, dict[str, Any]] = {
        "Contact": {"LastName": f"Contact {number}"},
        "Lead": {"LastName": f"Lead {number}", "Company": f"Company {number}"},
        "Account": {"Name": f"Account {number}"},
        "Opportunity": {"Name": f"Deal {number}", "StageName": "Prospecting", "CloseDate": "2026-12-31"},
    }
    return {"op": "create", "object": name, "values": {**needed.get(name, {}), **values}}

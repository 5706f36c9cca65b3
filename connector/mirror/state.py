"""How far the mirror is, as its `cursor` table keeps it, always in the unit that got it there."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import orjson

from connector.errors import PoisonError
from connector.mirror.messages import Table, table
from connector.mirror.origin import COPY_CURSOR, Copy
from connector.ports import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectState:
    """How far the copy of one object is; cursor `mirror:{Object}`.

    Attributes:
        begun_ms: Of the copy that it belongs to.
        table: The object as it was described when its copy was begun.
        phase: `pages`: being listed; `replay`: changes that came meanwhile are being applied; `done`: in step.
        after: `next` of the last page taken in, None before the first.
        after_id: Id of the last record taken in.
        replayed: Up to which version the changes are in the rows: of the first page, then of what was applied again.
    """

    begun_ms: int
    table: Table
    phase: Literal["pages", "replay", "done"] = "pages"
    after: str | None = None
    after_id: str | None = None
    replayed: int | None = None

    @classmethod
    def stored(cls, unit: Unit, name: str, copy: Copy) -> Self | None:
        """The stored state; None where there is none of this copy: the object must be listed."""
        text = unit.cursor(f"{COPY_CURSOR}:{name}")
        if text is None:
            return None
        try:
            raw: dict[str, Any] = orjson.loads(text)
            state = cls(**{**raw, "table": table(raw["table"])})
        except (PoisonError, KeyError, TypeError, ValueError):
            return None
        return state if state.begun_ms == copy.begun_ms else None

    def store(self, unit: Unit, at_ms: int) -> None:
        """Keep it."""
        raw = {**asdict(self), "table": self.table.model_dump()}
        unit.set_cursor(f"{COPY_CURSOR}:{self.table.object}", orjson.dumps(raw).decode(), at_ms)

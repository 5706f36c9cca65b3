"""Positions of the load, of the poller and of comparisons, as the `cursor` table keeps them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, Self

import orjson

from connector.model.ids import RecordId
from connector.model.times import to_iso, to_ms
from connector.ports import Unit


class Positions(Protocol):
    """Where positions are read: a unit, or a snapshot."""

    def cursor(self, name: str) -> str | None:
        """The stored position, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadState:
    """How far an object's load is; cursor `load:{Object}`.

    Attributes:
        state: `loading` or `done`.
        kind: `first`, or `reread` for fields that the rows lack.
        fields: Of a reread: the fields whose first value is no change.
        via: How it is read; None: not decided yet.
        after: REST: the last id that is stored.
        job, locator: Bulk: the job, and the next page of its result.
        done, total: Records.
        started: The org's clock when the load began, ISO 8601.
        newest: The newest `SystemModstamp` read, ISO 8601.
    """

    state: Literal["loading", "done"] = "loading"
    kind: Literal["first", "reread"] = "first"
    fields: tuple[str, ...] = ()
    via: Literal["rest", "bulk"] | None = None
    after: RecordId | None = None
    job: str | None = None
    locator: str | None = None
    done: int = 0
    total: int = 0
    started: str | None = None
    newest: str | None = None

    @classmethod
    def stored(cls, unit: Positions, name: str) -> Self | None:
        """The stored state; None: the object was never loaded. One that cannot be read counts as never loaded."""
        text = unit.cursor(f"load:{name}")
        if text is None:
            return None
        try:
            raw: dict[str, Any] = orjson.loads(text)
            return cls(**{**raw, "fields": tuple(raw.get("fields", ()))})
        except (TypeError, ValueError):
            return None

    @property
    def token(self) -> str | None:
        """Which load the rows are of; None while one is under way."""
        return f"{self.kind}:{self.started}" if self.state == "done" else None

    def store(self, unit: Unit, name: str, at_ms: int) -> None:
        """Keep it."""
        unit.set_cursor(f"load:{name}", orjson.dumps(asdict(self)).decode(), at_ms)

    def reread(self, fields: Sequence[str]) -> "LoadState":
        """A load that brings these fields' values; one that is under way begins again."""
        if self.kind == "first" and self.state == "loading":
            return LoadState()
        older = self.fields if self.state == "loading" else ()
        return LoadState(kind="reread", fields=tuple(dict.fromkeys((*older, *fields))))

    def seen(self, newest_ms: int | None) -> "LoadState":
        """With the newest stamp of a page taken in."""
        if newest_ms is None or (self.newest is not None and to_ms(self.newest) >= newest_ms):
            return self
        return replace(self, newest=to_iso(newest_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class PollMark:
    """Up to where the poller has read an object; cursor `poll:{Object}`.

    Attributes:
        high_ms: `SystemModstamp` high water by the org's own stamps and clock.
        polled_ms: The org's clock at the last poll.
    """

    high_ms: int
    polled_ms: int

    @classmethod
    def stored(cls, unit: Unit, name: str) -> Self | None:
        """The stored mark; None: the object has not been loaded, so there is nothing to poll."""
        text = unit.cursor(f"poll:{name}")
        if text is None:
            return None
        raw: dict[str, str] = orjson.loads(text)
        return cls(high_ms=to_ms(raw["high"]), polled_ms=to_ms(raw["at"]))

    def store(self, unit: Unit, name: str, at_ms: int) -> None:
        """Keep it."""
        document = {"high": to_iso(self.high_ms), "at": to_iso(self.polled_ms)}
        unit.set_cursor(f"poll:{name}", orjson.dumps(document).decode(), at_ms)


def reconcile_cursor(name: str) -> str:
    """Cursor of an object that is to be compared as a whole."""
    return f"reconcile:{name}"


def asked_ms(unit: Unit, name: str) -> int | None:
    """The org's clock when it was last asked for what is new of the object, by a poll or a load that has begun.

    What had been committed by then was in the answer; a record that is not here nevertheless was gone already. None: it
    has never been asked.
    """
    mark = PollMark.stored(unit, name)
    if mark is not None:
        return mark.polled_ms
    load = LoadState.stored(unit, name)
    return to_ms(load.started) if load is not None and load.started is not None else None

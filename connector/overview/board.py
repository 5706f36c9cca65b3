"""The overview: one document of the replica, the daemon, what moves, and what wants attention."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from connector.errors import QueryTooSlow, StoreUnusable, TransientError
from connector.mesh.envelope import result_document
from connector.model.change import Change
from connector.model.command import Command, CommandStatus
from connector.model.times import to_iso
from connector.overview.attention import attention
from connector.overview.told import Told
from connector.overview.trend import Trend
from connector.ports import Moved, Movement, Onlooker, Overlook, ReplicaFigures
from connector.settings import Settings

NEWEST_CHANGES = 30
NEWEST_COMMANDS = 20
# Counting every object's records takes a while: not with every look.
FIGURES_EVERY_MS = 5000
# Changes looked at to draw the past at the first look, and at most with each later one; fewer where the disk is slow.
MOST_MOVED, LEAST_MOVED = 20_000, 500
_DAY_MS = 24 * 3600 * 1000
_HOUR_CHARS = len("2026-11-22T17")
_MAX_NAME_CHARS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRules:
    """What of the settings concerns the overview.

    Attributes:
        warn_at: Share of the API limit from which on it is worth a word.
        timeout_s: Of one look at the replica.
    """

    warn_at: float
    health_interval_s: float
    timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        return cls(
            warn_at=settings.limits.warn_at,
            health_interval_s=settings.health.interval.total_seconds(),
            timeout_s=settings.query.timeout.total_seconds(),
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at the replica."""

    figures: ReplicaFigures
    movement: Movement
    changes: Sequence[Change]
    commands: Sequence[Command]
    conflicts: Sequence[Command]


class Board:
    """Looks at everything, again and again; what moved is remembered from look to look."""

    def __init__(
        self,
        replica: Onlooker,
        told: Callable[[], Awaitable[Told]],
        rules: BoardRules,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._replica = replica
        self._told = told
        self._rules = rules
        self._now_ms = now_ms
        self._trend = Trend()
        self._upto = Moved(0, 0)
        self._figures: tuple[int, ReplicaFigures] | None = None
        self._most = MOST_MOVED

    async def look(self) -> dict[str, Any]:
        """The document of now; a replica that cannot be read is a part of it, under `problem`."""
        now_ms = self._now_ms()
        told = await self._told()
        board: dict[str, Any] = {
            "as_of": to_iso(now_ms),
            "daemon": told.document(),
            "replica": None,
            "problem": None,
            "changes": [],
            "commands": [],
            "conflicts": [],
        }
        known, upto = self._recent_figures(now_ms), self._upto
        try:
            seen = await self._replica.read(
                partial(_look, known, upto, self._most, now_ms), timeout_s=self._rules.timeout_s
            )
        except QueryTooSlow as error:
            board["problem"] = str(error)
            self._most = max(LEAST_MOVED, self._most // 2)
        except (StoreUnusable, TransientError) as error:
            board["problem"] = str(error)
        else:
            if known is None:
                self._figures = (now_ms, seen.figures)
            self._upto = seen.movement.upto
            self._trend.add(seen.movement, now_ms // 1000)
            board |= _shown(seen)
        board["rate"] = self._trend.rate(now_ms // 1000)
        board["lag_ms"] = self._trend.lag(now_ms // 1000)
        board["trend"] = self._trend.document(now_ms // 1000)
        board["attention"] = attention(
            board, now_ms=now_ms, warn_at=self._rules.warn_at, health_interval_s=self._rules.health_interval_s
        )
        return board

    def _recent_figures(self, now_ms: int) -> ReplicaFigures | None:
        if self._figures is None or not 0 <= now_ms - self._figures[0] < FIGURES_EVERY_MS:
            return None
        return self._figures[1]


def _look(known: ReplicaFigures | None, upto: Moved, most: int, now_ms: int, replica: Overlook) -> _Seen:
    """On a reader's thread."""
    now = replica.moved()
    if now.version < upto.version or now.published < upto.published:
        upto = Moved(0, 0)  # another replica has taken the file's place
    return _Seen(
        figures=known or replica.figures(to_iso(now_ms - _DAY_MS)[:_HOUR_CHARS]),
        movement=replica.movement(upto, most),
        changes=replica.newest_changes(NEWEST_CHANGES),
        commands=replica.commands(None, NEWEST_COMMANDS),
        conflicts=replica.commands(CommandStatus.CONFLICT, NEWEST_COMMANDS),
    )


def _shown(seen: _Seen) -> dict[str, Any]:
    return {
        "replica": {**figures_document(seen.figures), **_versions(seen.movement.upto)},
        "changes": [change_line(change) for change in seen.changes],
        "commands": [command_line(command) for command in seen.commands],
        "conflicts": [command_line(command) for command in seen.conflicts],
    }


def _versions(moved: Moved) -> dict[str, int]:
    return {"version": moved.version, "published": moved.published}


def figures_document(figures: ReplicaFigures) -> dict[str, Any]:
    """The replica in figures, as `status --json` has it."""
    return {
        "version": figures.version,
        "published": figures.published,
        "objects": {name: {"records": o.records, "deleted": o.deleted} for name, o in figures.objects.items()},
        "queues": dict(figures.queues),
        "api_calls_24h": dict(figures.calls),
        "commands": dict(figures.commands),
        "holes": [
            {"object": hole.object, "from": to_iso(hole.from_ms), "reason": hole.reason} for hole in figures.holes
        ],
    }


def change_line(change: Change) -> dict[str, Any]:
    """A change in one line: no values but the record's name."""
    return {
        "version": change.version,
        "object": change.object,
        "id": change.id,
        "operation": change.operation.value,
        "name": _name(change.record or change.before),
        "changed": list(change.changed) if change.operation.value == "update" else [],
        "origin": change.origin.value,
        "command_id": change.command_id,
        "at": to_iso(change.applied_ms),
    }


def command_line(command: Command) -> dict[str, Any]:
    """A command with its result, and who sent it."""
    return {**result_document(command), "sender": command.sender, "fields": sorted(command.fields)}


def _name(record: Mapping[str, Any] | None) -> str | None:
    name = None if record is None else record.get("Name")
    return name[:_MAX_NAME_CHARS] if isinstance(name, str) else None

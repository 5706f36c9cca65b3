"""Rate and lag over the last quarter of an hour, in columns of a few seconds. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from connector.model.times import to_iso
from connector.ports import Movement

STEP_S = 5
COLUMNS = 180
# Lags kept of one column: enough for a p99, whatever the rate.
MAX_LAGS = 1000
_NOW_S = 10


@dataclass(slots=True)
class _Column:
    applied: int = 0
    lags: list[int] = field(default_factory=list)
    _shown: tuple[int, int] | None = None

    def add_lag(self, lag_ms: int) -> None:
        if len(self.lags) < MAX_LAGS:
            self.lags.append(lag_ms)
            self._shown = None

    def lag(self) -> tuple[int, int] | None:
        """p50 and p99."""
        if self._shown is None and self.lags:
            ordered = sorted(self.lags)
            self._shown = (percentile(ordered, 50), percentile(ordered, 99))
        return self._shown


class Trend:
    """What moved, by column; times are seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._columns: dict[int, _Column] = {}
        self._seconds: dict[int, int] = {}

    def add(self, movement: Movement, now_s: int) -> None:
        """Take what happened since the last look."""
        oldest = now_s // STEP_S - COLUMNS
        for second, count in movement.applied:
            if second // STEP_S > oldest:
                self._column(second).applied += count
                self._seconds[second] = self._seconds.get(second, 0) + count
        for second, lag_ms in movement.lags:
            if second // STEP_S > oldest:
                self._column(second).add_lag(lag_ms)
        for number in [n for n in self._columns if n <= oldest]:
            del self._columns[number]
        for second in [s for s in self._seconds if s < now_s - _NOW_S]:
            del self._seconds[second]

    def rate(self, now_s: int) -> float:
        """Changes applied a second, over the last ten seconds that are over."""
        return sum(self._seconds.get(now_s - back, 0) for back in range(1, _NOW_S + 1)) / _NOW_S

    def lag(self, now_s: int) -> dict[str, int | None]:
        """p50 and p99 of the last minute; None where nothing was published."""
        newest = now_s // STEP_S
        columns = [self._columns[n] for n in range(newest - 60 // STEP_S, newest + 1) if n in self._columns]
        ordered = sorted(lag for column in columns for lag in column.lags)
        return {
            "p50": percentile(ordered, 50) if ordered else None,
            "p99": percentile(ordered, 99) if ordered else None,
        }

    def document(self, now_s: int) -> dict[str, Any]:
        """The columns, oldest first, the last one being the last that is over."""
        newest = now_s // STEP_S - 1
        columns = [self._columns.get(n, _EMPTY) for n in range(newest - COLUMNS + 1, newest + 1)]
        lags = [column.lag() for column in columns]
        return {
            "step_s": STEP_S,
            "to": to_iso((newest + 1) * STEP_S * 1000),
            "rate": [round(column.applied / STEP_S, 2) for column in columns],
            "lag_p50": [None if lag is None else lag[0] for lag in lags],
            "lag_p99": [None if lag is None else lag[1] for lag in lags],
        }

    def _column(self, second: int) -> _Column:
        return self._columns.setdefault(second // STEP_S, _Column())


_EMPTY = _Column()


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of what is in order and not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

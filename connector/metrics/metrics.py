"""What is measured, under the names of Prometheus; docs/metrics.md is the table of it.

Two kinds: what happens is counted as it happens (lag, changes, commands), what stands is taken from one observation per
scrape. Labels take their values from sets that are known (objects that are synced, operations, states, purposes).
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from connector.model.command import Command
from connector.ports import ChangeCount, Purpose
from connector.serve.health import Observations

PREFIX = "salesforce_sync"
# From a change on the same machine's local org to one that waited for a poll.
LAG_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
STREAM_STATES = ("live", "connecting", "down", "paused", "off")
HEALTH_STATES = ("ok", "degraded", "failing")
OTHER = "other"

# When a series began is told by the process; a second series for each would only double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library lacks the annotation


class Metrics:
    """All metrics of one daemon, in a registry of their own."""

    def __init__(
        self,
        *,
        node: str,
        version: str,
        objects: Callable[[], Collection[str]],
        api_calls: Callable[[Purpose], int],
    ) -> None:
        """`objects` are those that may be labels; `api_calls` tells the calls made since the start."""
        self.registry = CollectorRegistry(auto_describe=False)
        self._objects = objects
        self._stands = _Stands({"node": node, "version": version}, api_calls)
        self._lag = _Lag()
        self._changes = Counter(
            "changes",
            "Changes applied to the replica.",
            ("object", "operation", "origin"),
            namespace=PREFIX,
            registry=self.registry,
        )
        self._commands = Counter(
            "commands",
            "Commands that came to an end.",
            ("object", "operation", "status"),
            namespace=PREFIX,
            registry=self.registry,
        )
        self.registry.register(self._lag)
        self.registry.register(self._stands)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def observe_lag_ms(self, lag_ms: int) -> None:
        """A change was published so long after its commit."""
        self._lag.observe_ms(lag_ms)

    def count_changes(self, counts: Iterable[ChangeCount]) -> None:
        """So many changes were applied."""
        for one in counts:
            labels = (self._label(one.object), one.operation.value, one.origin.value)
            self._changes.labels(*labels).inc(one.count)

    def count_command(self, command: Command) -> None:
        """A command came to its end."""
        self._commands.labels(self._label(command.object), command.operation.value, command.status.value).inc()

    def exposition(
        self, seen: Observations, state: Literal["ok", "degraded", "failing"], accept: str
    ) -> tuple[bytes, str]:
        """Everything in the format that an `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        self._stands.seen = (seen, state)
        try:
            return encode(self.registry), content_type
        finally:
            self._stands.seen = None

    def _label(self, object_name: str) -> str:
        # Commands for objects that are not synced are rejected, under whatever name they came.
        return object_name if object_name in self._objects() else OTHER


class _Lag(Collector):
    """The lag of each change, counted in a fifth of the time that the library's histogram takes for it."""

    def __init__(self) -> None:
        self._bounds_ms = [bound_s * 1000 for bound_s in LAG_BUCKETS_S]
        self._counts = [0] * (len(LAG_BUCKETS_S) + 1)
        self._sum_ms = 0

    def observe_ms(self, lag_ms: int) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds_ms, lag_ms)] += 1
        self._sum_ms += lag_ms

    def collect(self) -> Iterator[Metric]:
        """The histogram."""
        family = HistogramMetricFamily(
            f"{PREFIX}_lag_seconds", "Commit in the org to the broker's acknowledgement of the change."
        )
        names = [*map(floatToGoString, LAG_BUCKETS_S), "+Inf"]
        family.add_metric((), list(zip(names, accumulate(self._counts), strict=True)), self._sum_ms / 1000)
        yield family


class _Stands(Collector):
    """What stands, out of one observation."""

    def __init__(self, build: Mapping[str, str], api_calls: Callable[[Purpose], int]) -> None:
        self._build = build
        self._api_calls = api_calls
        self.seen: tuple[Observations, str] | None = None

    def collect(self) -> Iterator[Metric]:
        """All families."""
        if self.seen is None:
            return
        seen, state = self.seen
        yield InfoMetricFamily(f"{PREFIX}_build", "Which connector this is.", dict(self._build))
        yield _one_of("health_state", "1 for the state of health.", "state", HEALTH_STATES, state)
        yield _one_of(
            "stream_state", "1 for the state of the change stream.", "state", STREAM_STATES, seen.stream.state
        )
        yield _plain("version", "Version of the newest change.", seen.version)
        yield from _times(seen)
        yield from self._objects(seen)
        yield _by("queue_depth", "Rows that wait.", "queue", seen.queues)
        yield _plain("parked_messages", "Messages that the broker refused for good.", seen.parked_count)
        yield from self._api(seen)

    @staticmethod
    def _objects(seen: Observations) -> Iterator[Metric]:
        objects = seen.objects
        yield _by("records", "Records in the replica.", "object", {n: o.records for n, o in objects.items()})
        yield _by("holes", "Open holes.", "object", {n: o.holes for n, o in objects.items()})
        yield _by(
            "drift_records", "Found different and not repaired.", "object", {n: o.drift for n, o in objects.items()}
        )
        yield _by("held_records", "Gone in the org, to be allowed.", "object", {n: o.held for n, o in objects.items()})
        untold = CounterMetricFamily(
            f"{PREFIX}_untold_changes", "Changes that a live stream had not told.", labels=("object",)
        )
        for object_name, one in objects.items():
            untold.add_metric((object_name,), one.untold)
        yield untold
        for name, help_text, times in (
            ("last_polled", "When the org was last asked.", {n: o.last_polled_ms for n, o in objects.items()}),
            ("verified", "When it was last proved equal to the org.", {n: o.verified_ms for n, o in objects.items()}),
        ):
            known = {object_name: ms / 1000 for object_name, ms in times.items() if ms is not None}
            yield _by(f"{name}_timestamp_seconds", help_text, "object", known)

    def _api(self, seen: Observations) -> Iterator[Metric]:
        calls = CounterMetricFamily(f"{PREFIX}_api_calls", "API calls of this connector.", labels=("purpose",))
        for purpose in Purpose:
            calls.add_metric((purpose.value,), self._api_calls(purpose))
        yield calls
        if seen.api_used is not None:
            yield _plain("api_used_calls", "API calls of the last 24 hours, of the whole org.", seen.api_used)
        if seen.api_max is not None:
            yield _plain("api_limit_calls", "API calls that may be used in 24 hours.", seen.api_max)


def _times(seen: Observations) -> Iterator[Metric]:
    for name, help_text, ms in (
        ("stream_since", "When the stream came into its state.", seen.stream.since_ms),
        ("last_event", "When the last change event came.", seen.stream.last_event_ms),
    ):
        if ms is not None:
            yield _plain(f"{name}_timestamp_seconds", help_text, ms / 1000)


def _plain(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def _by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _one_of(name: str, help_text: str, label: str, states: Sequence[str], now: str) -> Metric:
    return _by(name, help_text, label, {state: float(state == now) for state in states})

"""The metrics: their names and labels are those of the document, and their values those of what was seen."""

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from connector.metrics.metrics import LAG_BUCKETS_S, OTHER, Metrics
from connector.model.change import Operation, Origin
from connector.model.command import CommandStatus
from connector.ports import ChangeCount, Purpose
from connector.serve.health import ObjectNow, Observations, StreamNow
from tests.store_nouns import NOW_MS, command

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
SEEN = Observations(
    version=7,
    stream=StreamNow(state="live", transport="cometd", since_ms=NOW_MS, last_event_ms=NOW_MS),
    objects={"Contact": ObjectNow(records=12, streamed=True, last_polled_ms=NOW_MS, verified_ms=NOW_MS, holes=1)},
    queues={"outbox": 1, "commands": 2, "quarantine": 0, "dirty": 3},
    api_used=812,
    api_max=15000,
    api_own={},
)


@pytest.fixture
def metrics() -> Metrics:
    calls = dict.fromkeys(Purpose, 5)
    made = Metrics(node="lucidia", version="1", objects=lambda: {"Contact"}, api_calls=calls.__getitem__)
    made.observe_lag_ms(42)
    made.count_changes([ChangeCount("Contact", Operation.UPDATE, Origin.STREAM, 3)])
    made.count_command(command("one", object="Contact", status=CommandStatus.SUCCEEDED))
    return made


def samples(metrics: Metrics, seen: Observations = SEEN) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body, content_type = metrics.exposition(seen, "ok", "")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[f"salesforce_sync_{name}", frozenset(labels.items())]


def test_the_table_of_metrics_is_that_of_the_code(metrics: Metrics) -> None:
    """Name, type and labels of each."""
    lines = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    documented = {
        (
            row[0].strip("`").removesuffix("_total").removesuffix("_info"),
            row[1],
            *sorted(re.findall(r"`(\w+)`", row[2])),
        )
        for row in cells
    }
    body, _ = metrics.exposition(SEEN, "ok", "application/openmetrics-text; version=1.0.0")
    told = {
        (family.name, family.type, *sorted({name for s in family.samples for name in s.labels} - {"le"}))
        for family in openmetrics(body.decode())  # type: ignore[no-untyped-call]  # the library lacks the annotation
        if family.name.startswith("salesforce_sync")
    }
    assert documented == told


def test_values_are_those_that_were_seen(metrics: Metrics) -> None:
    """Counters, the histogram, states and times."""
    assert value(metrics, "changes_total", object="Contact", operation="update", origin="stream") == 3
    assert value(metrics, "commands_total", object="Contact", operation="update", status="succeeded") == 1
    assert value(metrics, "api_calls_total", purpose="load") == 5
    assert (value(metrics, "lag_seconds_count"), value(metrics, "lag_seconds_sum")) == (1, 0.042)
    assert value(metrics, "lag_seconds_bucket", le="0.025") == 0
    assert value(metrics, "lag_seconds_bucket", le="0.05") == 1
    metrics.observe_lag_ms(50)  # a bucket holds its bound
    metrics.observe_lag_ms(10_000_000)
    assert value(metrics, "lag_seconds_bucket", le="0.05") == 2
    assert (value(metrics, "lag_seconds_bucket", le="3600.0"), value(metrics, "lag_seconds_bucket", le="+Inf")) == (
        2,
        3,
    )
    assert (value(metrics, "stream_state", state="live"), value(metrics, "stream_state", state="down")) == (1, 0)
    assert (value(metrics, "health_state", state="ok"), value(metrics, "health_state", state="failing")) == (1, 0)
    assert value(metrics, "queue_depth", queue="dirty") == 3
    assert value(metrics, "verified_timestamp_seconds", object="Contact") == NOW_MS / 1000
    assert value(metrics, "holes", object="Contact") == 1


def test_labels_are_bounded(metrics: Metrics) -> None:
    """Commands for made-up objects make no new series."""
    before = len(samples(metrics))
    for number in range(50):
        metrics.count_command(command(f"c{number}", object=f"Made{number}__c", status=CommandStatus.REJECTED))
    assert value(metrics, "commands_total", object=OTHER, operation="update", status="rejected") == 50
    assert len(samples(metrics)) == before + 1
    assert list(LAG_BUCKETS_S) == sorted(set(LAG_BUCKETS_S))


def test_what_is_not_known_is_left_out(metrics: Metrics) -> None:
    """No zero where there was no measurement."""
    unknown = Observations(
        version=0,
        stream=StreamNow(state="off", transport="off"),
        objects={"Contact": ObjectNow(records=0, streamed=False)},
        queues={},
        api_used=None,
        api_max=None,
        api_own={},
    )
    names = {name for name, _ in samples(metrics, unknown)}
    for left_out in ("api_used_calls", "last_event_timestamp_seconds", "verified_timestamp_seconds"):
        assert f"salesforce_sync_{left_out}" not in names

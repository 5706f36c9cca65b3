"""The benchmarks, small: each runs to its end and tells every figure; how large a figure is says nothing here."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import npm, pypi
from tests.bench import beside, bridging, extract, load, million, stream
from tests.bench.harness import Figure, document, machine, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _told(figures: Sequence[Figure]) -> set[str]:
    """Their names, each of which is in the table and in the JSON with a value that was measured."""
    shown = table(figures)
    told = {figure["name"]: figure for figure in json.loads(document(figures, machine()))["figures"]}
    assert len(told) == len(figures)
    for name, figure in told.items():
        assert name in shown
        assert isinstance(figure["value"], float)
    return set(told)


def test_the_stream(tmp_path: Path) -> None:
    """From a CometD answer to a subscriber: rate, latency, backlog, each with its ceiling."""
    scale = stream.Scale(contacts=50, warm_up=20, sustained=300, repeats=1, latency_s=1, backlog=500)
    figures = stream.stream(tmp_path, scale)
    assert _told(figures) == {
        "changes a second",
        "of what paho alone publishes",
        "the daemon's processor per change",
        "bytes of a change message",
        "a backlog of 500 events",
        *(
            f"{name} at {rate}/s, {part}"
            for name in ("latency", "from due to subscriber", "a write to the disk alone")
            for rate in (50, 500)
            for part in ("p50", "p99")
        ),
    }
    by_name = {figure.name: figure for figure in figures}
    for name in ("changes a second", "latency at 50/s, p50", "latency at 500/s, p99", "a backlog of 500 events"):
        assert by_name[name].ceiling, name
    assert by_name["changes a second"].target == 8000


def test_beside_a_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and theirs in one run; without Node.js a line says so, and nothing is measured."""
    scale = stream.Scale(contacts=50, warm_up=20, sustained=300, repeats=1)
    if npm.installed(bridging.SOURCE, bridging.PLACE) is not None:
        figures = bridging.bridge(tmp_path, scale)
        assert _told(figures) == {"changes a second, beside a bridge", "processor per change", "peak memory"}
        assert all(figure.ceiling for figure in figures)
    monkeypatch.setattr(npm, "installed", lambda _source, _place: None)
    assert bridging.bridge(tmp_path, scale) == []
    assert npm.MISSING in capsys.readouterr().err


def test_a_first_load(tmp_path: Path) -> None:
    """By Bulk and by REST, with the bare work and the plain script beside it."""
    figures = load.load(tmp_path, load.Scale(bulk=30_000, rest=4_000, page_ms=20))
    assert _told(figures) == {
        "first load by Bulk, 30,000 contacts: rows a second of our own time",
        "rows a second, waiting included",
        "peak memory of the daemon",
        "its growth in the second half",
        "simple-salesforce and sqlite3: rows a second of its own time",
        "its rows a second",
        "its peak memory",
        "REST pages, 4,000 contacts, 20 ms each: not the org's of the time",
        "rows a second of our own time, by REST",
    }
    assert figures[0].ceiling


@pytest.mark.timeout(900)
def test_beside_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of those that can be installed loads the same contacts; without the others a line says so."""
    installed = {
        beside.SINGER: extract.singer_programs() is not None,
        beside.CUMULUSCI: extract.cumulusci_programs() is not None,
    }
    scale = beside.Scale(contacts=1500)
    figures = beside.beside(tmp_path / "all", scale)
    loaders = ["the daemon", beside.SCRIPT, *(name for name, there in installed.items() if there)]
    assert _told(figures) == {
        name
        for who in loaders
        for name in (
            f"1,500 contacts, {who}: rows a second",
            f"{who}: rows a second of processor",
            f"{who}: peak memory",
        )
    }
    assert all(figure.value > 0 for figure in figures)
    monkeypatch.setattr(pypi, "installed", lambda _source, _place: None)
    assert len(_told(beside.beside(tmp_path / "few", scale))) == 6
    said = capsys.readouterr().err
    assert f"{beside.SINGER}: left out" in said
    assert f"{beside.CUMULUSCI}: left out" in said


def test_a_million_records(tmp_path: Path) -> None:
    """Two sizes of replica, a start, memory and idling."""
    scale = million.Scale(few=50, many=500, touched=40, events=100, repeats=1, busy_s=2, rest_s=1, idle_s=1)
    figures = million.million(tmp_path, scale)
    assert _told(figures) == {
        "processor per change, 500 records to 50",
        "start with 500 records",
        "resident memory, 500 records, 100 events/s",
        "its peak",
        "its growth in the last 1 s",
        "idle, of a core",
    }

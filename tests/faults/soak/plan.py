"""What a seed stands for: how everything is set up, and what happens when. Pure: the same seed, the same plan."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connector.devorg.admin.seed import Seed
from connector.devorg.settings import OrgSettings
from tests.faults.soak.commands import KEY, KEYED, MARKED
from tests.faults.soak.fields import FIELDS, FORMULAS, OBJECTS

# Kind -> how often.
_STEPS: Mapping[str, int] = {
    "edit": 30,
    "edits": 12,
    "bulk": 6,
    "hold": 4,
    "release": 4,
    "abandon": 1,
    "silent": 2,
    "command": 26,
    "burst": 4,
    "repeat": 3,
    "malformed": 3,
    "control": 1,
}
# Faults that may be chosen for a seed; each seed has some of them, often.
_FAULTS: tuple[str, ...] = (
    "kill",
    "dies",
    "dies_writing",
    "terminate",
    "broker",
    "broker_forgets",
    "broker_freezes",
    "wire_cut",
    "wire_silent",
    "wire_slow",
    "rest",
    "rest_lost",
    "oauth",
    "stream",
    "stream_http",
    "deliver",
    "tokens",
    "connections",
    "org_down",
    "replay",
    "events",
    "overflow",
    "undecodable",
    "stall",
    "org_clock",
    "clock",
    "schema",
    "locked",
    "disk_full",
    "pause",
)
# Each has its turn, so that 25 consecutive seeds have nearly every fault; chance adds others.
_IN_TURN = 3
_APART = 8  # neighbours in the list hide each other: a lost position polls what a gap event stands for
_MOST_MORE = 4
_WITHOUT = 0.08
# Longer than the org can sit on a request whose sender has given up.
SETTLE_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How a seed's world is set up.

    Attributes:
        org: Scales and switches of the org.
        events: Its event options.
        settings: Sections of the daemon's settings file.
        records: What the org holds from the start.
        unseen: Edits include what only a comparison finds.
        silent: Edits include what only a poll finds.
        patient: The first load is waited for.
        page_rows: Rows of a page of loads and comparisons.
        batch_rows: Commands that go together: the fewer, the longer the queue, from which ingest jobs are made.
        jobs: Commands come in bursts.
    """

    org: OrgSettings
    events: Mapping[str, Any]
    insert_delete_events: bool
    settings: Mapping[str, Mapping[str, Any]]
    records: Seed | None
    unseen: bool
    silent: bool
    patient: bool
    page_rows: int
    batch_rows: int
    jobs: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Attributes:
        at_s: Seconds since the upheaval began.
        seed: Of the choices that it makes when it happens.
    """

    at_s: float
    kind: str
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A seed's plan; `faults` are those that it may have."""

    seed: int
    variant: Variant
    faults: tuple[str, ...]
    steps: tuple[Step, ...]


def plan_of(seed: int, seconds: float, transport: str = "cometd") -> Plan:
    """The plan of a seed whose upheaval takes so many seconds, with the stream over `transport`."""
    rng = random.Random(seed)
    variant = _variant(rng, transport)
    turn = _turn(rng, seed)
    more = rng.sample(_FAULTS, rng.randint(0, _MOST_MORE)) if turn else []
    faults = tuple(dict.fromkeys(turn + more))
    pace_s = rng.choice((0.005, 0.015, 0.04))
    share = rng.uniform(0.15, 0.5) if faults else 0.0
    steps = [Step(rng.uniform(0.1, 0.8) * seconds, fault, rng.getrandbits(48)) for fault in turn]
    without = {"silent": not variant.silent, "burst": not variant.jobs}
    usual = {kind: weight for kind, weight in _STEPS.items() if not without.get(kind)}
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(1 / pace_s)) < seconds:
        fault = rng.random() < share * min(1.0, pace_s / 0.01)
        kind = rng.choice(faults) if fault else rng.choices(list(usual), list(usual.values()))[0]
        steps.append(Step(at_s, kind, rng.getrandbits(48)))
    return Plan(seed, variant, faults, tuple(sorted(steps, key=lambda step: step.at_s)))


def _turn(rng: random.Random, seed: int) -> list[str]:
    if rng.random() < _WITHOUT:
        return []
    return [_FAULTS[(seed + _APART * number) % len(_FAULTS)] for number in range(_IN_TURN)]


def _variant(rng: random.Random, transport: str) -> Variant:
    jobs = rng.random() < 0.4
    return Variant(
        org=OrgSettings(
            connect_hold_s=rng.choice((0.3, 1.0, 3.0)),
            connect_gap_s=rng.choice((1.0, 5.0)),
            max_events_per_response=rng.choice((1, 7, 1000)),
            events_before_reply=rng.random() < 0.7,
            stream_delay_s=rng.choice((0.0, 0.0, 0.0, 0.1)),
            composite_client_origin=rng.random() < 0.5,
            gzip=rng.random() < 0.8,
            pubsub_keepalive_s=1.0,
            bulk_job_s=rng.choice((0.0, 0.1, 0.4)),
        ),
        events=_events(rng),
        insert_delete_events=rng.random() < 0.2,
        settings={**_settings(rng, jobs=jobs), "salesforce": {"stream": transport}},
        records=_records(rng) if rng.random() < 0.9 else None,
        unseen=rng.random() < 0.3,
        silent=rng.random() < 0.3,
        patient=rng.random() < 0.75,
        page_rows=rng.choice((3, 10, 2000)),
        batch_rows=rng.choice((3, 6)) if jobs else 400,
        jobs=jobs,
    )


def _records(rng: random.Random) -> Seed:
    return Seed(
        accounts=rng.randint(0, 4),
        contacts=rng.randint(0, 12),
        leads=rng.randint(0, 6),
        opportunities=rng.randint(0, 5),
    )


def _events(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {
        "changed_fields": rng.random() < 0.8,
        "event_uuid": rng.random() < 0.2,
        "nested_nulls": rng.random() < 0.7,
        "partial_names": rng.random() < 0.7,
        "text_dates": rng.random() < 0.8,
        "text_diffs": rng.random() < 0.8,
        "conversion_modified_date": rng.random() < 0.7,
        "whole_second_commits": rng.random() < 0.7,
    }
    if rng.random() < 0.1:
        options["overflow_changes"] = rng.randint(2, 12)
    if rng.random() < 0.1:
        options["max_event_bytes"] = rng.choice((700, 1500))
    if rng.random() < 0.2:
        options["max_merged_records"] = 2
    return options


def _settings(rng: random.Random, *, jobs: bool) -> dict[str, dict[str, Any]]:
    everything = rng.random() < 0.25
    objects: dict[str, dict[str, Any]] = {}
    interval = rng.choice(("300ms", "1h", "1h", "1h"))
    for name in OBJECTS:
        fields = ["Name", *FIELDS[name], MARKED[name], *([KEY] if name == KEYED else [])]
        fields += [FORMULAS[name]["name"]] if name in FORMULAS else []
        fields += ["CreatedDate", "LastModifiedDate", "LastModifiedById"] if rng.random() < 0.5 else []
        objects[name] = {"fields": "all" if everything else list(dict.fromkeys(fields)), "poll_interval": interval}
    objects[KEYED]["external_id"] = KEY
    return {
        "sync": {
            "backoff_max": "200ms",
            "batch_size": rng.choice((1, 5, 200)),
            "bulk_threshold": rng.choice((2, 20000, 20000)),
            "publish_backfill": rng.random() < 0.2,
        },
        "objects": objects,
        "mqtt": {"protocol": rng.choice(("5", "5", "3.1.1")), "retain_records": rng.random() < 0.2},
        "commands": {"settle_for": f"{SETTLE_S}s", "bulk_threshold": rng.choice((2, 5)) if jobs else 5000},
        "health": {"interval": "500ms"},
        "signals": {"batch_interval": "200ms"},
    }

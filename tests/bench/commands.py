"""Commands through the whole product: how many a second, at how many API calls, and how soon when there is only one.

Broker, local org and daemon are processes of their own, and so is the service that sends: this one.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import requests

from tests.bench.harness import Figure, cpu_s, percentile
from tests.bench.service import Service
from tests.broker import ProcessBroker
from tests.e2e.stack import Stack

UPDATES = 10_000
SINGLE = 200
MOST_CALLS = 60
LEAST_PER_S = 1_000
MOST_IDLE_MS = 20
_PART, _CALL = 200, 400
_TIMEOUT_S = 120.0
_API = "/services/data/v58.0"


def throughput(stack: Stack) -> list[Figure]:
    """Updates of different records under the default policy: accepted, sent, answered."""
    ids = sorted(stack.org.records("Contact"))[:UPDATES]
    called, worked_s = _calls(stack), _cpu_s(stack)
    began_s = time.monotonic()
    with Service(stack.broker.host, stack.broker.port) as service:
        service.send("Contact", "update", _updates(ids))
        accepted_s = time.monotonic() - began_s
        service.until_answered(len(ids), _TIMEOUT_S)
        took_s = service.last_answer_s - began_s
        worked_s = {name: used_s - worked_s[name] for name, used_s in _cpu_s(stack).items()}
    statuses = Counter(result["status"] for result in service.answered.values())
    assert statuses == {"succeeded": len(ids)}, statuses
    written = stack.org.records("Contact")
    phones = {written[record_id]["Phone"] for record_id in ids}
    assert len(phones) == len(ids), "not every update is in the org"
    calls = _calls(stack) - called
    ceiling = _org_alone(stack, ids)  # behind it: what it writes would be the daemon's to apply meanwhile
    return [
        Figure(
            name=f"{len(ids)} updates answered", value=len(ids) / took_s, unit="/s", target=LEAST_PER_S, ceiling=ceiling
        ),
        Figure(name="accepted over MQTT QoS 1", value=len(ids) / accepted_s, unit="/s"),
        Figure(name="API calls for them", value=calls, unit="calls", better="less", target=MOST_CALLS),
        *(
            Figure(name=f"processor time of the {name}", value=used_s * 1000 / len(ids), unit="ms each", better="less")
            for name, used_s in worked_s.items()
        ),
    ]


def idle(stack: Stack) -> list[Figure]:
    """One update at a time: from `accepted_at` to the commit in the org, which is behind the API call."""
    rng = random.Random(1)
    ids = sorted(stack.org.records("Contact"))[:SINGLE]
    after = max((entry["number"] for entry in _ledger(stack, 0)), default=0)
    accepted_ms: dict[str, int] = {}
    with Service(stack.broker.host, stack.broker.port) as service:
        for number, record_id in enumerate(ids):
            command_id = f"single-{number}"
            service.send(
                "Contact", "update", [{"command_id": command_id, "id": record_id, "fields": {"Phone": f"s{number}"}}]
            )
            service.until_answered(number + 1, _TIMEOUT_S)
            accepted_ms[record_id] = _ms(service.accepted[command_id]["accepted_at"])
            time.sleep(rng.uniform(0.0, 0.05))
    committed_ms = {entry["id"]: entry["commit_ms"] for entry in _ledger(stack, after)}
    waits = [committed_ms[record_id] - at for record_id, at in accepted_ms.items()]
    return [
        Figure(name="idle: accepted to committed, p50", value=percentile(waits, 0.5), unit="ms", better="less"),
        Figure(
            name="idle: accepted to committed, p95",
            value=percentile(waits, 0.95),
            unit="ms",
            better="less",
            target=MOST_IDLE_MS,
        ),
    ]


def _updates(ids: list[str]) -> Iterator[dict[str, Any]]:
    for number, record_id in enumerate(ids):
        yield {
            "command_id": f"many-{number}",
            "id": record_id,
            "fields": {"Phone": f"+1 555 {number}"},
            "sender": "bench",
        }


def _org_alone(stack: Stack, ids: list[str]) -> float:
    """Updates a second that the org takes from a plain client in calls of the same size."""
    headers = {"Authorization": f"Bearer {stack.told['access_token']}"}
    began_s = time.monotonic()
    with requests.Session() as http:
        for start in range(0, len(ids), _CALL):
            parts = [ids[at : at + _PART] for at in range(start, min(start + _CALL, len(ids)), _PART)]
            body = {"allOrNone": False, "compositeRequest": [_part(number, part) for number, part in enumerate(parts)]}
            answer = http.post(f"{stack.told['url']}{_API}/composite", json=body, headers=headers, timeout=_TIMEOUT_S)
            answer.raise_for_status()
    return len(ids) / (time.monotonic() - began_s)


def _part(number: int, ids: list[str]) -> dict[str, Any]:
    records = [{"attributes": {"type": "Contact"}, "id": i, "Phone": f"0 {n}"} for n, i in enumerate(ids)]
    url = f"{_API}/composite/sobjects"
    return {
        "method": "PATCH",
        "url": url,
        "referenceId": f"w{number}",
        "body": {"allOrNone": False, "records": records},
    }


def _cpu_s(stack: Stack) -> dict[str, float]:
    assert isinstance(stack.broker, ProcessBroker)
    return {
        "daemon": cpu_s(stack.daemon.pid),
        "local org": cpu_s(stack.org_process.pid),
        "broker": cpu_s(stack.broker.pid),
        "service": time.process_time(),
    }


def _calls(stack: Stack) -> int:
    """API calls that the org has counted, whoever made them and whatever for."""
    return int(stack.org.usage()["api"])


def _ledger(stack: Stack, after: int) -> list[dict[str, Any]]:
    """What was committed behind a row of the org's ledger."""
    found: list[dict[str, Any]] = []
    while True:
        page = stack.org.call("GET", "/ledger", after=str(after), limit="5000")
        found += page["entries"]
        if page["next"] is None:
            return found
        after = page["next"]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)

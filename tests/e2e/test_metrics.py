"""A daemon's metrics, scraped as Prometheus does."""

import asyncio
import re

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.broker import free_port
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until


class Scraped(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    def at(self, name: str, **labels: str) -> float:
        return self.get((f"salesforce_sync_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack, port: int) -> Stack:
    settings = {"metrics": {"listen": f"127.0.0.1:{port}"}, "sync": {"objects": ["Contact"]}}
    made = make_stack(settings, seed={"contacts": 3}, objects=("Contact",))
    made.start()
    return made


def scrape(port: int) -> Scraped:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return Scraped(
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    )


def test_a_scrape_tells_what_happened(stack: Stack, port: int) -> None:
    """A change by somebody, a command of ours and a rejected one are each counted once; gauges show what stands."""
    someone = next(iter(stack.org.records("Contact")))
    stack.org.update("Contact", someone, Phone="555-0101")
    stack.until_change(someone)
    topic = "blackroad/salesforce/command/Contact/update"
    stack.watcher.send(topic, {"command_id": "ours", "id": someone, "fields": {"Phone": "555-0102"}})
    stack.watcher.send("blackroad/salesforce/command/Nonsense/update", {"command_id": "wrong", "id": someone})
    stack.until_change(someone, count=2)
    seen = Scraped()

    def counted() -> bool:
        seen.clear()
        seen.update(scrape(port))
        return (
            seen.at("changes_total", object="Contact", operation="update", origin="command") == 1
            and seen.at("commands_total", object="other", operation="update", status="rejected") == 1
        )

    until(counted, say=lambda: "\n".join(map(str, seen.items())))
    assert seen.at("changes_total", object="Contact", operation="update", origin="stream") == 1
    assert seen.at("commands_total", object="Contact", operation="update", status="succeeded") == 1
    assert seen.at("lag_seconds_count") == 2
    assert 0 < seen.at("lag_seconds_sum") < 60
    assert seen.at("records", object="Contact") == 3
    assert seen.at("stream_state", state="live") == 1
    assert seen.at("api_calls_total", purpose="command") == 1
    assert seen.at("api_limit_calls") > seen.at("api_used_calls") > 0
    assert seen["process_resident_memory_bytes", frozenset()] > 0


def test_a_taken_address_does_not_stop_the_daemon(stack: Stack, port: int) -> None:
    """It is logged and tried again; everything else goes on, and the metrics come when the address is free."""
    assert stack.daemon.stop() == 0

    async def taken() -> None:
        async with await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", port):
            await asyncio.to_thread(stack.start)

    asyncio.run(taken())
    (retry, *_) = [e for e in stack.daemon.events("app.job_retry_scheduled") if e["job"] == "metrics.endpoint"]
    assert re.search(rf"metrics.listen = 127.0.0.1:{port} cannot be listened on", retry["error"])
    stack.daemon.until_logged("metrics.listening")
    assert scrape(port).at("records", object="Contact") == 3

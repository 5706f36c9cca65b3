"""The mesh side of the demo: a subscriber that watches and measures, and a service that sends commands."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from connector.mesh.visitor import Visitor
from connector.model.times import to_ms
from connector.settings import DEFAULT_OBJECTS

ROOT = "blackroad/salesforce"
RESULT_TIMEOUT_S = 20.0
MAX_MEASURED = 1_000_000


class Watcher:
    """Counts every change and measures commit in the org -> message here. Both clocks are this machine's."""

    def __init__(self, client: Visitor, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop
        self._results: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._loads: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.latencies_ms: list[int] = []
        self.changes: Counter[str] = Counter()
        self.last_version = 0
        self.missed = 0
        self.health: Mapping[str, Any] = {}
        self.last_change = ""

    def watch(self) -> None:
        """Subscribe to what the daemon publishes."""
        self._client.subscribe(f"{ROOT}/change/#", self._on_change)
        self._client.subscribe(f"{ROOT}/result/+", self._on_result)
        self._client.subscribe(f"{ROOT}/health", self._on_health)
        self._client.subscribe("blackroad/signals/FND/OS", self._on_signal)

    async def all_loaded(self) -> int:
        """Records loaded, once every default object is."""
        records: dict[str, int] = {}
        while set(records) != set(DEFAULT_OBJECTS):
            done = await self._loads.get()
            records[done["objects"][0]] = done["records"]
        return sum(records.values())

    def expect(self, command_id: str) -> asyncio.Future[Mapping[str, Any]]:
        """The final result of a command, once it comes."""
        future: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self._results[command_id] = future
        return future

    def _on_change(self, _topic: str, payload: bytes) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._loop.call_soon_threadsafe(self._count, payload, now_ms)

    def _count(self, payload: bytes, now_ms: int) -> None:
        data = orjson.loads(payload)["data"]
        if data["version"] <= self.last_version:
            return  # delivered again
        self.missed += data["version"] - self.last_version - 1
        self.last_version = data["version"]
        self.changes[data["operation"]] += 1
        self.last_change = f"{data['object']} {data['operation']} {', '.join(data['changed'][:3])}"
        if data["commit"] is not None and len(self.latencies_ms) < MAX_MEASURED:
            self.latencies_ms.append(now_ms - to_ms(data["commit"]["timestamp"]))

    def _on_result(self, _topic: str, payload: bytes) -> None:
        self._loop.call_soon_threadsafe(self._settle, orjson.loads(payload))

    def _settle(self, result: Mapping[str, Any]) -> None:
        future = self._results.get(result["command_id"])
        if result["status"] != "accepted" and future is not None and not future.done():
            future.set_result(result)

    def _on_health(self, _topic: str, payload: bytes) -> None:
        self.health = orjson.loads(payload)

    def _on_signal(self, _topic: str, payload: bytes) -> None:
        signal = orjson.loads(payload)
        if signal["signal"] == "sync_complete" and signal["data"].get("kind") == "first_load":
            self._loop.call_soon_threadsafe(self._loads.put_nowait, signal["data"])


class Service:
    """A service of the mesh: makes a lead, works on it, now and then drops it; each step waits for its result."""

    def __init__(self, client: Visitor, watcher: Watcher) -> None:
        self._client = client
        self._watcher = watcher
        self.statuses: Counter[str] = Counter()
        self.round_trip_ms: list[float] = []
        self.leads: dict[str, Mapping[str, Any]] = {}

    async def work(self, pause_s: float, until: asyncio.Event) -> None:
        """Send commands until told to stop."""
        number = 0
        while not until.is_set():
            number += 1
            await self._one_lead(number)
            try:
                async with asyncio.timeout(pause_s):
                    await until.wait()
            except TimeoutError:
                continue

    async def _one_lead(self, number: int) -> None:
        fields = {"LastName": f"Prospect {number}", "Company": "Local Example", "Status": "Open - Not Contacted"}
        made = await self._command("Lead", "create", {"fields": fields})
        if made["status"] != "succeeded":
            return
        status = {"Status": "Working - Contacted"}
        await self._command("Lead", "update", {"id": made["id"], "fields": status})
        self.leads[made["id"]] = {**fields, **status}
        if number % 4 == 0:
            await self._command("Lead", "delete", {"id": made["id"]})
            del self.leads[made["id"]]

    async def _command(self, name: str, operation: str, command: Mapping[str, Any]) -> Mapping[str, Any]:
        command_id = str(uuid.uuid4())
        answered = self._watcher.expect(command_id)
        payload = orjson.dumps({"command_id": command_id, "sender": "demo", **command})
        began = time.perf_counter()
        await asyncio.to_thread(self._client.publish, f"{ROOT}/command/{name}/{operation}", payload)
        try:
            async with asyncio.timeout(RESULT_TIMEOUT_S):
                result = await answered
        except TimeoutError:
            result = {"status": "unanswered"}
        self.round_trip_ms.append((time.perf_counter() - began) * 1000)
        self.statuses[result["status"]] += 1
        return result

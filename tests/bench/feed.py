"""The org's stream, faster than any consumer: CometD answers put together from events that are JSON already.

`python -m tests.bench.feed --org URL` stands before a local org, which answers everything else, and is told over HTTP
what to send: `POST /feed/make` makes events and holds them back, `POST /feed/go` lets them go, at a rate or at once.
Each event gives a contact another phone number, which is the event's number in the feed.

Source: Streaming API Developer Guide, "Bayeux Protocol, CometD, and Long Polling"; Change Data Capture Developer Guide,
"Change Event Message Structure".
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import ClientSession, web

CHANNEL = "/data/ChangeEvents"
EVENTS_PER_ANSWER = 100
FIRST_REPLAY_ID = 1000
SCHEMA_ID = "IeRuaY6cbI_HsV8Rv1Mc5g"
_HOLD_S = 110.0
_LONGEST_HEADER = 65_536
_HOP_BY_HOP = frozenset({"transfer-encoding", "content-length", "content-encoding", "connection", "date", "server"})


class Feed:
    """Events made and not sent, the log of those that may be sent, and one client that reads it."""

    def __init__(self) -> None:
        self._made: list[bytes] = []
        self._log: list[bytes] = []
        self._due_s: list[float] = []
        self._sent_s: list[float] = []
        self._count = 0
        self._at = 0  # of the log, what the client gets next
        self._advised = False
        self._session = 0  # the client's newest; what an earlier one still asks for is answered with nothing
        self._more = asyncio.Event()
        self._pacing: asyncio.Task[None] | None = None

    async def make(self, request: web.Request) -> web.Response:
        """`{"ids": [...], "count": n}`: events for these contacts in turn."""
        order = await request.json()
        ids = order["ids"]
        for number in range(self._count, self._count + order["count"]):
            self._made.append(self.event(number, ids[number * 7919 % len(ids)]))
        self._count += order["count"]
        return web.json_response({"made": len(self._made), "bytes": sum(map(len, self._made))})

    def event(self, number: int, record_id: str) -> bytes:
        """An event as it goes over the wire."""
        place = {"replayId": FIRST_REPLAY_ID + number}
        data = {"schema": SCHEMA_ID, "payload": payload_of(number, record_id), "event": place}
        return orjson.dumps({"data": data, "channel": CHANNEL})

    async def go(self, request: web.Request) -> web.Response:
        """`{"rate": events a second, or 0}`: send what was made."""
        order = await request.json()
        made, self._made = self._made, []
        if order["rate"]:
            self._pacing = asyncio.create_task(self._pace(made, order["rate"]))
        else:
            self._release(made, time.monotonic())
        return web.json_response({"at_s": time.monotonic()})

    async def times(self, _request: web.Request) -> web.Response:
        """When each event of the log was to be sent, and when it was, by the machine's monotonic clock."""
        return web.json_response({"due": self._due_s, "sent": self._sent_s})

    async def _pace(self, made: list[bytes], rate: float) -> None:
        began_s = time.monotonic()
        for number, event in enumerate(made):
            due_s = began_s + number / rate
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._release([event], due_s)

    def _release(self, events: list[bytes], due_s: float) -> None:
        self._log += events
        self._due_s += [due_s] * len(events)
        self._more.set()

    async def cometd(self, request: web.Request) -> web.Response:
        """One HTTP request of the client."""
        answers = [part for message in await request.json() for part in await self._answer(message)]
        return web.Response(body=b"[" + b",".join(answers) + b"]", content_type="application/json")

    async def _answer(self, message: dict[str, Any]) -> list[bytes]:
        told = {"channel": message["channel"], "id": message.get("id"), "successful": True, "clientId": "feed"}
        events: list[bytes] = []
        match message["channel"]:
            case "/meta/handshake":
                self._advised = False
                self._session += 1
                self._more.set()
                told |= {"version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": {"replay": True}}
            case "/meta/subscribe":
                replay = message["ext"]["replay"][CHANNEL]
                self._at = len(self._log) if replay < 0 else replay - FIRST_REPLAY_ID + 1
                told["subscription"] = message["subscription"]
            case "/meta/connect" if not self._advised:
                self._advised = True
                told["advice"] = {"reconnect": "retry", "interval": 0, "timeout": round(_HOLD_S * 1000)}
            case "/meta/connect":
                events = await self._next()
        return [*events, orjson.dumps(told)]

    async def _next(self) -> list[bytes]:
        session, deadline_s = self._session, asyncio.get_running_loop().time() + _HOLD_S
        while self._at >= len(self._log):
            self._more.clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._more.wait()
            except TimeoutError:
                return []
            if session != self._session:
                return []
        return self._take(EVENTS_PER_ANSWER)

    def _take(self, most: int) -> list[bytes]:
        """What the client gets now."""
        at = self._at
        events = self._log[at : at + most]
        self._at += len(events)
        self._sent_s[at : self._at] = [time.monotonic()] * len(events)
        return events


def payload_of(number: int, record_id: str) -> dict[str, Any]:
    """As Salesforce sends it, with the position behind it; every hundred share a second."""
    now_ms = time.time_ns() // 1_000_000
    modified = datetime.fromtimestamp(now_ms // 1000, UTC)
    header = {
        "entityName": "Contact",
        "recordIds": [record_id],
        "changeType": "UPDATE",
        "changeOrigin": "com/salesforce/api/soap/66.0;client=Feed",
        "transactionKey": f"{number:08x}-0000-1111-2222-333344445555",
        "sequenceNumber": 1,
        "commitTimestamp": now_ms,
        "commitNumber": 10_696_000_000_000 + number,
        "commitUser": "005bn000000feedAAA",
        "nulledFields": [],
        "diffFields": [],
        "changedFields": ["Phone", "LastModifiedDate"],
    }
    return {
        "LastModifiedDate": f"{modified:%Y-%m-%dT%H:%M:%S}.000Z",
        "Phone": str(number),
        "ChangeEventHeader": header,
    }


class Front:
    """Everything but the stream goes to the org, whose address becomes ours in its answers."""

    def __init__(self, org: str) -> None:
        self._org = org
        self._http: ClientSession | None = None

    async def ask(self, request: web.Request) -> web.Response:
        """Hand a request on."""
        if self._http is None:
            self._http = ClientSession(auto_decompress=True)
        here = f"http://{request.host}"
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in {"host", "accept-encoding"}
        }
        body = await request.read()
        async with self._http.request(
            request.method, f"{self._org}{request.rel_url}", data=body, headers=headers, allow_redirects=False
        ) as answer:
            told = (await answer.read()).replace(self._org.encode(), here.encode())
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return web.Response(status=answer.status, body=told, headers=kept)

    async def close(self, _app: web.Application) -> None:
        """Close the connections to the org."""
        if self._http is not None:
            await self._http.close()


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org", required=True, help="address of the local org")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    serve(Feed(), given.org, given.port)


def serve(
    feed: Feed, org: str, port: int, *, beside: Callable[[web.Application], AsyncIterator[None]] | None = None
) -> None:
    """Take orders, and be the org, until told to end; `beside` runs meanwhile."""
    front = Front(org)
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.post("/feed/make", feed.make),
            web.post("/feed/go", feed.go),
            web.get("/feed/times", feed.times),
            web.post("/cometd/{version:.*}", feed.cometd),
            web.route("*", "/{path:.*}", front.ask),
        ]
    )
    app.on_cleanup.append(front.close)
    if beside is not None:
        app.cleanup_ctx.append(beside)
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        print=None,
        access_log=None,
        max_line_size=_LONGEST_HEADER,
        shutdown_timeout=0.1,  # the client's poll is held, and would be waited for
    )


if __name__ == "__main__":
    main()

"""The page's server on a real file, as browsers and other programs meet it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from connector.errors import TransientError
from connector.listener import MAX_CONNECTIONS
from connector.model.change import CommitInfo
from connector.model.command import CommandStatus
from connector.overview.board import Board, BoardRules
from connector.overview.opened import OpenedReplica
from connector.overview.told import Told
from connector.store import Session
from connector.web.feed import MAX_CLIENTS
from connector.web.page import Page
from connector.web.records import MAX_ASKING, PAGE_RECORDS
from tests.broker import free_port
from tests.store_nouns import NOW_MS, WIDGET, change, command, record, record_id
from tests.waiting import until

RULES = BoardRules(warn_at=0.8, health_interval_s=30, timeout_s=2)
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"


@dataclass
class Site:
    port: int
    client: aiohttp.ClientSession

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(f"http://127.0.0.1:{self.port}{path}", headers=headers)

    async def json(self, path: str) -> Any:
        async with self.get(path) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        rows = [record(n, Name=f"bolt {n}", Size__c=n) for n in range(PAGE_RECORDS + 5)]
        opened.run(lambda unit: unit.put(WIDGET, [*rows, record(99, Name=HOSTILE)]))
        while opened.run(lambda unit: unit.extend_indexes("Widget__c", 1000)):
            pass
        yield opened


async def unheard() -> Told:
    return Told(state="unknown", reason="nobody was asked")


@pytest.fixture
async def site(session: Session, tmp_path: Path) -> AsyncIterator[Site]:  # noqa: ARG001 - it makes the file
    port = free_port()
    async with OpenedReplica(tmp_path / "replica.db", 2) as replica, aiohttp.ClientSession() as client:
        board = Board(replica, unheard, RULES, now_ms=lambda: NOW_MS)
        page = Page(board, replica, ("127.0.0.1", port), timeout_s=2, now_ms=lambda: NOW_MS)
        serving = asyncio.create_task(page.run())
        made = Site(port, client)

        async def answers() -> bool:
            try:
                async with made.get("/") as answer:
                    return bool(answer.status == 200)
            except aiohttp.ClientConnectionError:
                return False

        await until(answers)
        yield made
        serving.cancel()
        await asyncio.wait([serving])


async def event(answer: aiohttp.ClientResponse) -> Any:
    """The next overview of a feed."""
    async with asyncio.timeout(10):
        async for line in answer.content:
            if line.startswith(b"data: "):
                return orjson.loads(line.removeprefix(b"data: "))
    raise AssertionError("the feed has ended")


async def test_the_page_and_its_files_are_served_and_sent_again_only_if_they_changed(site: Site) -> None:
    """With a type that the browser will not guess."""
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        async with site.get(path) as answer:
            assert (answer.status, answer.content_type) == (200, kind)
            tag = answer.headers["ETag"]
        async with site.get(path, **{"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")
    async with site.get("/../records.py") as outside:
        assert outside.status == 404


@pytest.mark.parametrize("path", ["/", "/api/commands", "/api/records/Nonsense", "/nothing"])
async def test_every_answer_carries_the_headers_that_keep_a_browser_safe(site: Site, path: str) -> None:
    """Errors too; and no other site is allowed to read."""
    async with site.get(path, Origin="https://evil.example") as answer:
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8099", "127.0.0.1.evil.example", "localhost.evil", "8.8.8.8"]
)
async def test_a_name_that_is_not_ours_is_refused(site: Site, host: str) -> None:
    """DNS rebinding makes a foreign name resolve to loopback."""
    async with site.get("/api/commands", Host=host) as answer:
        assert answer.status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "127.0.0.2", "[::1]", "[::1]:8099"])
async def test_loopback_is_ours_under_any_port(site: Site, host: str) -> None:
    """A tunnel may have another one."""
    async with site.get("/api/commands", Host=host) as answer:
        assert answer.status == 200


async def test_other_sites_may_link_here_and_do_nothing_else(site: Site) -> None:
    """Their requests would take up what is bounded."""
    for where in ("cross-site", "same-site"):
        async with site.get("/api/feed", **{"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "cors"}) as answer:
            assert answer.status == 403
        async with site.get("/", **{"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "navigate"}) as link:
            assert link.status == 200
        async with site.get("/api/commands", **{"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "navigate"}) as link:
            assert link.status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_is_written_here(site: Site, method: str) -> None:
    """Only GET and HEAD are answered."""
    async with site.client.request(method, f"http://127.0.0.1:{site.port}/api/commands") as answer:
        assert answer.status == 405


async def test_a_head_of_the_feed_takes_nobodys_place(site: Site) -> None:
    """It has no end that could be told; of everything else a HEAD is answered."""
    for path, status in (("/api/feed", 405), ("/", 200), ("/api/commands", 200)):
        async with site.client.head(f"http://127.0.0.1:{site.port}{path}") as answer:
            assert answer.status == status


async def test_the_feed_tells_what_stands_and_then_what_changed(site: Site, session: Session) -> None:
    """Who comes second is told at once, too."""
    async with site.get("/api/feed") as feed:
        assert feed.content_type == "text/event-stream"
        assert (await event(feed))["changes"] == []
        session.run(lambda unit: unit.append([change(1, commit=CommitInfo(timestamp_ms=NOW_MS))]))
        seen = await event(feed)
        while not seen["changes"]:
            seen = await event(feed)
        assert (seen["changes"][0]["id"], seen["replica"]["version"]) == (record_id(1), 1)
        async with site.get("/api/feed") as second:
            assert (await event(second))["replica"]["version"] == 1


async def test_who_watches_is_bounded_and_who_leaves_makes_room(site: Site) -> None:
    """One more than there is room for is told so."""
    watching = [await site.get("/api/feed") for _ in range(MAX_CLIENTS)]
    assert {answer.status for answer in watching} == {200}
    async with site.get("/api/feed") as one_more:
        assert one_more.status == 503
    for answer in watching:
        answer.close()

    async def room() -> bool:
        async with site.get("/api/feed") as answer:
            return bool(answer.status == 200)

    await until(room)


async def test_connections_are_bounded_and_idle_ones_do_not_keep_the_page_from_ending(site: Site) -> None:
    """A program that opens connections and says nothing gets so many and no more."""
    idle = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(MAX_CONNECTIONS + 10)]

    async def ended() -> bool:
        return sum(reader.at_eof() for reader, _ in idle) >= 10

    try:
        await until(ended)
        assert sum(reader.at_eof() for reader, _ in idle) <= 11  # the fixture's own connection is one more
    finally:
        for _, writer in idle:
            writer.close()


async def test_records_are_listed_searched_and_paged(site: Site) -> None:
    """A page is bounded; its `next` goes on behind it."""
    status, first = await site.json("/api/records/Widget__c")
    assert (status, len(first["records"])) == (200, PAGE_RECORDS)
    _, then = await site.json(f"/api/records/Widget__c?after={first['next']}")
    assert (len(then["records"]), then["next"]) == (6, None)
    _, found = await site.json("/api/records/Widget__c?text=bolt%2017")
    assert [one["Name"] for one in found["records"]] == ["bolt 17"]


async def test_a_record_comes_with_its_past_and_what_is_under_way(site: Site, session: Session) -> None:
    """Newest first, with the values before and after; hostile values come as they are, in JSON."""
    changes = [
        change(1, before={"Name": None}, after={"Name": "first"}),
        change(1, before={"Name": "first"}, after={"Name": HOSTILE}),
    ]
    session.run(lambda unit: unit.append(changes))
    session.run(lambda unit: unit.add_command(command("open")))
    status, found = await site.json(f"/api/records/Widget__c/{record_id(1)}")
    assert (status, found["record"]["Name"]) == (200, "bolt 1")
    assert [one["values"] for one in found["changes"]] == [
        [{"field": "Name", "before": "first", "after": HOSTILE}],
        [{"field": "Name", "before": None, "after": "first"}],
    ]
    assert [one["command_id"] for one in found["pending"]] == ["open"]


async def test_commands_come_by_status(site: Site, session: Session) -> None:
    """With what became of them, and without the values that they write."""
    torn = {"Name": {"base": "a", "local": "b", "remote": "c"}}
    session.run(lambda unit: unit.add_command(command("torn", status=CommandStatus.CONFLICT, conflict=torn)))
    session.run(lambda unit: unit.add_command(command("open")))
    _, every = await site.json("/api/commands")
    assert [one["command_id"] for one in every["commands"]] == ["open", "torn"]
    _, found = await site.json("/api/commands?status=conflict")
    assert [(one["command_id"], one["conflict"], one["fields"]) for one in found["commands"]] == [
        ("torn", torn, ["Active__c", "Name"])
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/records/Nonsense", 404, "unknown_object"),
        ("/api/records/change", 404, "unknown_object"),
        ("/api/records/Widget__c?after=nonsense", 400, "invalid_request"),
        ("/api/records/Widget__c/nonsense", 400, "invalid_request"),
        (f"/api/records/Widget__c/{record_id(500)}", 404, "not_found"),
        ("/api/commands?status=nonsense", 400, "invalid_request"),
        (f"/api/records/Widget__c?text={'x' * 1500}", 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_answered_says_why(site: Site, path: str, status: int, code: str) -> None:
    """For programs and for people."""
    told, body = await site.json(path)
    assert (told, body["error"]["code"]) == (status, code)
    assert body["error"]["message"]


async def test_too_much_at_once_is_told_to_come_again(site: Site, session: Session) -> None:
    """Readers are few; who waits for them is bounded."""
    rows = [record(n, Name="bolt " * 50) for n in range(1000, 21000)]
    session.run(lambda unit: unit.put(WIDGET, rows))
    asked = await asyncio.gather(*(site.json("/api/records/Widget__c?text=bo") for _ in range(4 * MAX_ASKING)))
    told = {status for status, _ in asked}
    assert told == {200, 503}
    assert [body["error"]["code"] for status, body in asked if status == 503].count("busy") > 0


async def test_a_taken_address_is_told(site: Site) -> None:
    """With the setting that named it."""
    async with OpenedReplica(Path("nowhere"), 1) as replica:
        board = Board(replica, unheard, RULES, now_ms=lambda: NOW_MS)
        page = Page(board, replica, ("127.0.0.1", site.port), timeout_s=1, now_ms=lambda: NOW_MS)
        with pytest.raises(TransientError, match=r"web\.listen = 127\.0\.0\.1:\d+ cannot"):
            await page.run()


async def test_the_command_says_that_its_address_is_taken(site: Site, tmp_path: Path) -> None:
    """Exit 1 with one line that names the setting."""
    settings = tmp_path / "settings.toml"
    org, web = '[salesforce]\ninstance_url = "http://localhost:9"\n', f'[web]\nlisten = "127.0.0.1:{site.port}"\n'
    settings.write_text(f"{org}{web}[mqtt]\nport = 9\n", "utf-8")
    words = [sys.executable, "-m", "connector", "--settings", str(settings), "web"]
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert "web.listen = 127.0.0.1" in said.decode().splitlines()[-1]
    assert "Traceback" not in said.decode()

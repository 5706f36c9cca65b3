"""The overview: what moved by column, what wants attention, what is taken for the daemon's word."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar, cast

import orjson
import pytest
from rich.console import Console

from connector.app.page import own_word
from connector.cli.plain import milliseconds, plain, span
from connector.cli.read import print_record
from connector.cli.screen import status_screen
from connector.errors import QueryTooSlow, StoreBusy
from connector.mesh.topics import Topics
from connector.mesh.visitor import BrokerAddress
from connector.model.change import Change
from connector.model.command import Command, CommandStatus
from connector.model.times import to_iso
from connector.overview.attention import attention
from connector.overview.board import Board, BoardRules
from connector.overview.told import MAX_DOCUMENT_BYTES, DaemonWatch, Told
from connector.overview.trend import COLUMNS, MAX_LAGS, STEP_S, Trend
from connector.ports import Moved, Movement, Overlook, ReplicaFigures

NOW_MS = 1_795_368_400_000
NOW_S = NOW_MS // 1000
RULES = BoardRules(warn_at=0.8, health_interval_s=30, timeout_s=2)

T = TypeVar("T")

HEALTH: dict[str, Any] = {
    "state": "ok", "node": "lucidia", "as_of": to_iso(NOW_MS - 1000), "version": 7, "uptime_s": 86400,
    "stream": {"state": "live", "transport": "cometd", "since": to_iso(NOW_MS - 60_000), "last_frame_at": None,
               "last_event_at": to_iso(NOW_MS - 3000)},
    "objects": {"Contact": {"records": 1200, "streamed": True, "last_polled_at": to_iso(NOW_MS - 120_000),
                            "verified_at": None, "drift": 0, "holes": 0}},
    "queues": {"outbox": 0, "commands": 0, "quarantine": 0},
    "api": {"used": 812, "max": 15000, "own": {"command": 12}},
    "lag_ms": {"p50": 4, "p99": 31}, "last_error": None,
}  # fmt: skip
STATUS = {"state": "online", "node": "lucidia", "version": "0.1.0", "since": to_iso(NOW_MS - 60_000)}


def delivered(used: int) -> dict[str, Any]:
    """The stream on an org that has delivered so many of its events of a day."""
    return {**HEALTH["stream"], "delivered": {"used": used, "max": 10_000, "own": used}}


def board(**health: Any) -> dict[str, Any]:
    """An overview where all is well, but for what health tells."""
    return {
        "as_of": to_iso(NOW_MS),
        "daemon": {**STATUS, "health": deepcopy({**HEALTH, **health})},
        "problem": None,
        "replica": {
            "version": 7, "published": 7, "objects": {"Contact": {"records": 1200, "deleted": 3}},
            "queues": {"outbox": 0, "commands": 0, "quarantine": 0, "dirty": 0}, "holes": [],
        },
        "rate": 1.5, "lag_ms": {"p50": 4, "p99": 31}, "attention": [], "changes": [], "commands": [],
    }  # fmt: skip


def found(seen: dict[str, Any]) -> list[tuple[str, str]]:
    told = attention(seen, now_ms=NOW_MS, warn_at=0.8, health_interval_s=30)
    return [(one["level"], one["text"]) for one in told]


def test_the_trend_counts_each_change_once_in_its_column() -> None:
    """Two looks into one column add up; what is a quarter of an hour old is gone; the running column is not shown."""
    trend = Trend()
    start = NOW_S - NOW_S % STEP_S
    trend.add(Movement(Moved(3, 0), ((start - STEP_S, 2), (start, 1)), ((start - STEP_S, 10),)), start)
    trend.add(Movement(Moved(4, 4), ((start - STEP_S, 3),), ((start - STEP_S, 30), (start - STEP_S, 20))), start)
    shown = trend.document(start)
    assert (len(shown["rate"]), shown["to"]) == (COLUMNS, to_iso(start * 1000))
    assert (shown["rate"][-1], shown["lag_p50"][-1], shown["lag_p99"][-1]) == (1.0, 20, 30)
    assert set(shown["rate"][:-1]) == {0.0}
    assert set(shown["lag_p50"][:-1]) == {None}
    assert (trend.rate(start), trend.lag(start)) == (0.5, {"p50": 20, "p99": 30})
    later = start + STEP_S * COLUMNS
    trend.add(Movement(Moved(4, 4), ((start, 9),), ()), later)
    assert set(trend.document(later)["rate"]) == {0.0}
    assert (trend.rate(later), trend.lag(later)) == (0.0, {"p50": None, "p99": None})


def test_the_trend_is_bounded() -> None:
    """However much moves, a column keeps so many lags."""
    trend = Trend()
    trend.add(Movement(Moved(1, 1), (), tuple((NOW_S, lag) for lag in range(3 * MAX_LAGS))), NOW_S)
    assert trend.lag(NOW_S)["p99"] == MAX_LAGS * 99 // 100 - 1


def test_nothing_wants_attention_where_all_is_well() -> None:
    """No news is good news."""
    assert found(board()) == []


@pytest.mark.parametrize(
    ("health", "level", "words"),
    [
        ({"stream": {**HEALTH["stream"], "state": "down"}}, "warn", "stream is down"),
        ({"stream": {**HEALTH["stream"], "state": "paused"}}, "warn", "paused"),
        ({"api": {"used": 12001, "max": 15000, "own": {}}}, "warn", "12,001 of 15,000"),
        ({"api": {"used": 15000, "max": 15000, "own": {}}}, "bad", "spent"),
        ({"stream": delivered(8500)}, "warn", "8,500 of 10,000 events that the org delivers"),
        ({"stream": delivered(10_000)}, "bad", "10,000 of 10,000 events that the org delivers"),
        ({"state": "failing"}, "bad", "needs a person"),
        ({"as_of": to_iso(NOW_MS - 200_000)}, "warn", "told nothing for 200 s"),
        ({"last_error": {"at": to_iso(NOW_MS - 1000), "source": "poll", "error": "no route"}}, "warn", "no route"),
        ({"objects": {"Contact": {**HEALTH["objects"]["Contact"], "drift": 9}}}, "warn", "9 records of Contact"),
        (
            {"state": "ok", "objects": {"Contact": {**HEALTH["objects"]["Contact"], "drift": 9, "held": 9}}},
            "bad",
            "9 Contact are gone",
        ),
    ],
)
def test_what_health_tells_wants_attention(health: dict[str, Any], level: str, words: str) -> None:
    """Each trouble has its line."""
    ((how, text),) = found(board(**health))
    assert how == level
    assert words in text


def test_an_old_error_is_no_trouble_and_the_worst_comes_first() -> None:
    """A daemon that is not online is worse than a hole; what it said last is no news any more."""
    old = {"at": to_iso(NOW_MS - 600_000), "source": "poll", "error": "no route"}
    assert found(board(last_error=old)) == []
    seen = board(state="failing")
    seen["daemon"]["state"] = "offline"
    seen["replica"]["holes"] = [{"object": "Lead", "from": to_iso(NOW_MS), "reason": "away"}]
    seen["replica"]["queues"] = {"quarantine": 2, "outbox": 1001, "commands": 5000}
    assert [level for level, _ in found(seen)] == ["bad", "warn", "warn", "warn", "warn"]
    assert "offline" in found(seen)[0][1]
    assert "cannot be read: gone" in found({**board(), "replica": None, "problem": "gone"})[0][1]


async def unheard() -> Told:
    return Told(state="unknown", reason="nobody was asked")


def heard(watch: DaemonWatch) -> Any:
    watch._problem = None
    return watch.told()


def test_what_is_no_health_document_is_not_taken_for_one() -> None:
    """Anybody may publish there; members of a newer daemon are kept."""
    watch = DaemonWatch(BrokerAddress(host="127.0.0.1", port=9), Topics())
    assert watch.told().state == "unknown"
    watch._take_status("", orjson.dumps(STATUS))
    newer = {**HEALTH, "api": {**HEALTH["api"], "events": {"used": 1}}}
    watch._take_health("", orjson.dumps(newer))
    assert (heard(watch).state, heard(watch).health) == ("online", newer)
    for wrong in (b"", b"{", b"[]", b"{}", orjson.dumps({**HEALTH, "stream": 1}), b" " * MAX_DOCUMENT_BYTES + b"{}"):
        watch._take_health("", wrong)
        assert heard(watch).health is None
    watch._take_status("", b"null")
    assert heard(watch).state == "unknown"


def test_text_from_elsewhere_cannot_drive_the_terminal() -> None:
    """Escape sequences, line breaks and marks that reorder text become dots; markup stays text."""
    assert plain("a\x1b[31mb\nc\u202ed\x9b") == "a·[31mb·c·d·"
    assert plain("ab" * 9, 5) == "abab…"
    seen = board(last_error={"at": to_iso(NOW_MS), "source": "x", "error": "\x1b]0;owned\x07[red]boo[/red]"})
    seen["attention"] = [{"level": "bad", "text": "\x1b[2J"}]
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(status_screen(seen))
    assert "\x1b[2J" not in captured.get()
    assert "\x07" not in captured.get()
    assert "[red]boo[/red]" in captured.get()


def test_the_screen_shows_both_allocations_of_a_day() -> None:
    """API calls, and events delivered where the org has told of them."""
    shown = {}
    for name, stream in (("told", delivered(412)), ("untold", HEALTH["stream"])):
        console = Console(width=100, color_system=None)
        with console.capture() as captured:
            console.print(status_screen(board(stream=stream)))
        shown[name] = captured.get()
    assert "412 of 10,000 (4%)" in shown["told"]
    assert "events" not in shown["untold"]
    assert all("812 of 15,000 (5%)" in text for text in shown.values())


def test_a_record_on_the_terminal_cannot_drive_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`get` and `list` print values as they are, but for what a terminal would act on."""
    print_record({"Name": "\x1b]52;c;cHduZWQ=\x07[bold]x", "Street": "1 Main St\nSpringfield"}, as_json=False)
    printed = capsys.readouterr().out
    assert "·]52;c;cHduZWQ=·[bold]x" in printed
    assert "1 Main St Springfield" in printed


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (59, "59 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_durations_are_told_in_their_largest_unit(seconds: float, words: str) -> None:
    """Short enough for a column."""
    assert span(seconds) == words


def test_lags_are_told_as_a_person_reads_them() -> None:
    """From milliseconds to minutes."""
    assert [milliseconds(ms) for ms in (None, 4, 1234, 900_000)] == ["-", "4 ms", "1.2 s", "15 min"]


class SlowReplica:
    """Answers only what is asked of few changes."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, work: Callable[[Overlook], T], *, timeout_s: float) -> T:
        assert timeout_s == 2
        return work(cast("Overlook", self))

    def moved(self) -> Moved:
        return Moved(9, 9)

    def figures(self, _since: str) -> ReplicaFigures:
        return ReplicaFigures(
            version=9, published=9, objects={}, queues={}, cursors=(), calls={}, holes=(), commands={}
        )

    def movement(self, _since: Moved, most: int) -> Movement:
        self.asked.append(most)
        if most > 3000:
            raise QueryTooSlow("too much")
        return Movement(Moved(9, 9), ((NOW_S - 1, 50),), ())

    def newest_changes(self, _limit: int) -> Sequence[Change]:
        return ()

    def commands(self, _status: CommandStatus | None, _limit: int) -> Sequence[Command]:
        return ()


async def test_a_slow_disk_is_asked_for_less_until_it_answers() -> None:
    """The past is drawn from fewer changes rather than never."""
    replica = SlowReplica()
    board = Board(replica, unheard, RULES, now_ms=lambda: NOW_MS)
    problems = []
    while (seen := await board.look())["problem"] is not None:
        problems.append(seen["problem"])
    assert problems == ["too much"] * 3
    assert replica.asked == [20_000, 10_000, 5000, 2500]
    assert seen["rate"] == 5.0


async def test_the_word_of_a_daemon_whose_store_is_busy_is_its_last_one() -> None:
    """The page goes on with what it has; health is asked for every few seconds only."""
    documents: list[dict[str, Any] | Exception] = [StoreBusy("locked"), HEALTH]

    async def document() -> dict[str, Any]:
        found = documents.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    told = own_word(document, node="lucidia", version="1", since="2026-11-22T17:26:40.000Z")
    assert ((await told()).state, (await told()).health) == ("online", HEALTH)
    assert (await told()).document()["health"] == HEALTH
    assert documents == []

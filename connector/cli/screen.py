"""The overview on a terminal: the parts that `status` and `top` put together."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connector.cli.plain import milliseconds, plain, span
from connector.model.times import to_ms

STYLES = {"ok": "green", "warn": "yellow", "bad": "red"}
STATUS_STYLES = {
    "succeeded": "green", "accepted": "cyan", "failed": "red", "rejected": "red", "conflict": "yellow",
    "expired": "yellow", "unknown": "yellow",
}  # fmt: skip
OPERATION_STYLES = {"create": "green", "update": "cyan", "delete": "red", "undelete": "magenta"}
_HEADLINES = {"ok": "all is well", "warn": "degraded", "bad": "needs attention"}
_BAR_CHARS = 24
_WIDEST_NAME = 28


def level(board: Mapping[str, Any]) -> str:
    """ok, warn or bad."""
    return next((one["level"] for one in board["attention"]), "ok")


def headline(board: Mapping[str, Any]) -> Text:
    """The one line that says whether all is well."""
    daemon, how = board["daemon"], level(board)
    text = Text.assemble((f"● {_HEADLINES[how]}", f"bold {STYLES[how]}"), no_wrap=True, overflow="ellipsis")
    parts = [plain(str(daemon.get("node") or "")), f"daemon {daemon['state']}"]
    health = daemon["health"]
    if health is not None and daemon["state"] == "online":
        parts.append(f"up {span(health['uptime_s'])}")
    if board["replica"] is not None:
        parts.append(f"version {board['replica']['version']:,}")
    return text.append("  " + " · ".join(part for part in parts if part))


def attention(board: Mapping[str, Any], most: int | None = None) -> Iterable[Text]:
    """What wants an eye, a line each; of more than `most` the first ones and how many there are besides."""
    found = board["attention"]
    shown = found if most is None or len(found) <= most else found[: max(0, most - 1)]
    for one in shown:
        yield Text.assemble(("▲ ", STYLES[one["level"]]), plain(one["text"]), no_wrap=True, overflow="ellipsis")
    if len(shown) < len(found):
        yield Text(f"▲ and {len(found) - len(shown)} more: see `salesforce-sync status`", style="yellow")


def vitals(board: Mapping[str, Any]) -> Table:
    """Stream, lag, API budget, queues."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=len("API 24 h"))
    table.add_column(no_wrap=True, overflow="ellipsis")
    health, now_ms = board["daemon"]["health"], to_ms(board["as_of"])
    if health is not None:
        table.add_row("stream", _stream(health["stream"], now_ms))
    lag = board["lag_ms"]
    moving = f"{board['rate']:.1f} changes/s · lag p50 {milliseconds(lag['p50'])}, p99 {milliseconds(lag['p99'])}"
    table.add_row("moving", moving if lag["p50"] is not None else f"{board['rate']:.1f} changes/s")
    if health is not None:
        table.add_row("API 24 h", budget(health["api"]))
        # A daemon of an older version does not tell; on an org that has not told either there is nothing to see.
        delivered = health["stream"].get("delivered", {})
        if delivered.get("max"):
            table.add_row("events", budget(delivered))
    if board["replica"] is not None:
        table.add_row("waiting", queues(board["replica"]["queues"]))
    return table


def _stream(stream: Mapping[str, Any], now_ms: int) -> Text:
    style = {"live": "green", "off": "dim"}.get(stream["state"], "yellow")
    text = Text.assemble((stream["state"], style), f" ({plain(stream['transport'], 20)})")
    if stream["since"]:
        text.append(f" for {span((now_ms - to_ms(stream['since'])) / 1000)}")
    if stream["last_event_at"]:
        text.append(f", last event {span((now_ms - to_ms(stream['last_event_at'])) / 1000)} ago")
    return text


def budget(api: Mapping[str, Any]) -> Text:
    """What of a day's allocation is used (API calls, events delivered), as a bar."""
    used, most = api["used"], api["max"]
    if used is None or not most:
        return Text("not known yet", style="dim")
    share = min(1.0, used / most)
    style = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"  # noqa: PLR2004 - as limits.warn_at has it
    full = round(share * _BAR_CHARS)
    return Text.assemble(
        ("█" * full, style), ("░" * (_BAR_CHARS - full), "dim"), f" {used:,} of {most:,} ({used / most:.0%})"
    )


def queues(waiting: Mapping[str, int]) -> Text:
    """What waits, by queue."""
    words = {"outbox": "to publish", "commands": "commands", "quarantine": "in quarantine", "dirty": "in doubt"}
    text = Text()
    for name, count in waiting.items():
        style = "dim" if not count else "yellow" if name == "quarantine" else "bold"
        text.append(" · " if text else "").append(f"{count:,} {words.get(name, plain(name))}", style=style)
    return text


def objects(board: Mapping[str, Any], most: int | None = None) -> Table:
    """A line per object."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("object", no_wrap=True, overflow="ellipsis", max_width=_WIDEST_NAME)
    for name in ("records", "deleted", "polled", "verified", "drift", "holes"):
        table.add_column(name, justify="right", no_wrap=True)
    health = (board["daemon"]["health"] or {}).get("objects", {})
    now_ms, replica = to_ms(board["as_of"]), board["replica"] or {"objects": {}, "holes": []}
    for name, figures in list(replica["objects"].items())[:most]:
        told = health.get(name, {})
        holes = sum(hole["object"] == name for hole in replica["holes"])
        table.add_row(
            plain(name, _WIDEST_NAME),
            f"{figures['records']:,}",
            f"{figures['deleted']:,}",
            _ago(told.get("last_polled_at"), now_ms),
            _ago(told.get("verified_at"), now_ms),
            _count(told.get("drift")),
            _count(holes),
        )
    return table


def _ago(at: str | None, now_ms: int) -> Text:
    return Text("-", style="dim") if at is None else Text(f"{span((now_ms - to_ms(at)) / 1000)} ago")


def _count(number: int | None) -> Text:
    return Text("-", style="dim") if not number else Text(f"{number:,}", style="yellow")


def changes(board: Mapping[str, Any], most: int) -> Table:
    """The last changes, newest first."""
    table = _lines("time", "object", "operation", "record", "what")
    for one in board["changes"][:most]:
        what = ", ".join(one["changed"]) if one["origin"] == "stream" else one["origin"]
        table.add_row(
            one["at"][11:19],
            plain(one["object"], _WIDEST_NAME),
            Text(one["operation"], style=OPERATION_STYLES.get(one["operation"], "")),
            plain(one["name"] or one["id"], _WIDEST_NAME),
            Text(plain(what), style="dim"),
        )
    return table


def commands(board: Mapping[str, Any], most: int) -> Table:
    """The last commands with what became of them, newest first."""
    table = _lines("time", "object", "operation", "status", "why")
    for one in board["commands"][:most]:
        table.add_row(
            one["accepted_at"][11:19],
            plain(one["object"], _WIDEST_NAME),
            one["operation"],
            Text(one["status"], style=STATUS_STYLES.get(one["status"], "")),
            Text(plain(why(one)), style="dim"),
        )
    return table


def why(command: Mapping[str, Any]) -> str:
    """In a few words why a command ended as it did; else who sent it."""
    if command["conflict"]:
        return "both sides changed " + ", ".join(command["conflict"])
    if command["errors"]:
        return "; ".join(f"{error['code']}: {error['message']}" for error in command["errors"])
    return command["sender"] or ""


def _lines(*headings: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    table.columns[-1].ratio = 1
    return table


def status_screen(board: Mapping[str, Any]) -> RenderableType:
    """Everything that `status` shows."""
    parts: list[RenderableType] = [headline(board), *attention(board), Text(), vitals(board), Text(), objects(board)]
    error = (board["daemon"]["health"] or {}).get("last_error")
    if error is not None:
        parts += [
            Text(),
            Text.assemble(("last error ", "dim"), plain(f"{error['at']} {error['source']}: {error['error']}")),
        ]
    return Group(*parts)

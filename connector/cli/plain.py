"""Text from elsewhere made safe for a terminal, and figures in words."""

import unicodedata

from rich.console import Console

# Of a table in a pipe, which has no width of its own: ids and times stay in one piece.
_PIPE_COLUMNS = 200

_KINDS_REPLACED = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def plain(text: str, widest: int | None = None) -> str:
    """One line without control characters and marks that reorder text: a value must not drive the terminal.

    Args:
        text: Anything.
        widest: Characters at most, an ellipsis included; None: all.
    """
    clean = "".join("·" if unicodedata.category(c) in _KINDS_REPLACED else c for c in text)
    return clean if widest is None or len(clean) <= widest else clean[: widest - 1] + "…"


def span(seconds: float) -> str:
    """A duration in its largest unit: `4 s`, `12 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def milliseconds(ms: int | None) -> str:
    """A lag: `4 ms`, `1.2 s`, `15 min`."""
    if ms is None:
        return "-"
    if ms < 1000:  # noqa: PLR2004 - a second
        return f"{ms} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else span(ms / 1000)  # noqa: PLR2004 - a minute


def table_console() -> Console:
    """Where tables are printed to: as wide as the terminal, or as a line of a table in a pipe may be."""
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console

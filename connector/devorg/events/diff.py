"""Long texts of change events as unified diffs."""

import hashlib
import re
from difflib import SequenceMatcher

DIFF_LENGTH = 1000
MOST_LENGTH_CHANGE = 0.5
MOST_LINES_CHANGED = 0.25
MOST_LINES_COMPARED = 2000

_BREAK = re.compile(r"\r\n|\n|\r")


def text_diff(old: str, new: str) -> str | None:
    """The unified diff without context that rebuilds `new` from `old`, or None where `new` is sent as it is.

    None is the answer for a new text below 1,000 characters, for lengths that differ by more than half of the old
    one, for more than a quarter of all lines changed, and for a diff that is longer than the new text. The header
    names the SHA-256 of the new text's UTF-8 bytes; lines are split at the texts' own breaks.

    Source: Change Data Capture Developer Guide, "Data Diff" and "Data Diff Considerations".
    """
    if len(new) < DIFF_LENGTH or abs(len(new) - len(old)) > MOST_LENGTH_CHANGE * len(old):
        return None
    before, after = _BREAK.split(old), _BREAK.split(new)
    edits = _edits(before, after)
    if edits is None:
        return None
    changed = sum((old_end - old_start) + (new_end - new_start) for old_start, old_end, new_start, new_end in edits)
    if changed > MOST_LINES_CHANGED * (len(before) + len(after)):
        return None
    digest = hashlib.sha256(new.encode()).hexdigest()
    lines = ["--- ", f"+++ {digest}"]
    for old_start, old_end, new_start, new_end in edits:
        lines.append(f"@@ -{_range(old_start, old_end)} +{_range(new_start, new_end)} @@")
        lines += [f"-{line}" for line in before[old_start:old_end]]
        lines += [f"+{line}" for line in after[new_start:new_end]]
    diff = "\n".join(lines)
    return None if len(diff) > len(new) else diff


def _edits(before: list[str], after: list[str]) -> list[tuple[int, int, int, int]] | None:
    """What differs, as (old start, old end, new start, new end); None where comparing would take too long."""
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if len(old) + len(new) > MOST_LINES_COMPARED:
        return None
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(head + a, head + b, head + c, head + d) for tag, a, b, c, d in codes if tag != "equal"]


def _common(first: list[str], second: list[str]) -> int:
    """How many lines the two begin with in common."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _range(start: int, end: int) -> str:
    """A hunk's `line,count`; an empty range names the line before it, as unified diffs do."""
    return f"{start + 1 if end > start else start},{end - start}"

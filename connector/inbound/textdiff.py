"""Long texts that arrive as a unified diff instead of the value.

Source: Change Data Capture Developer Guide, "Change Data Capture and Data Diffs in Large Text Fields".
"""

import hashlib
import re

_TARGET = re.compile(r"\+\+\+ ([0-9a-fA-F]{64})")
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_BREAK = re.compile(r"\r\n|\n|\r")


def is_applied(value: object, diff: str) -> bool:
    """True if `value` is already what the diff leads to."""
    return isinstance(value, str) and _digest(value) == _target(diff)


def apply_diff(base: object, diff: str) -> str | None:
    """The text that `diff` makes of `base`; None where it does not fit, so that the record must be read instead.

    The diff names the SHA-256 of its result: a diff that fits a stale base by chance is found out by that.
    """
    target = _target(diff)
    if not isinstance(base, str) or target is None:
        return None
    found = _BREAK.search(base)
    newline = found[0] if found else "\n"
    lines = _patched(_BREAK.split(base), _BREAK.split(diff)[2:])
    if lines is None:
        return None
    for joint in dict.fromkeys((newline, "\n", "\r\n")):
        text = joint.join(lines)
        if _digest(text) == target:
            return text
    return None


def _patched(old: list[str], diff: list[str]) -> list[str] | None:
    out: list[str] = []
    at = 0
    for line in diff:
        hunk = _HUNK.fullmatch(line)
        if hunk:
            # "-7,0" stands for an insertion behind line 7, "-7,1" for line 7 itself.
            start = int(hunk[1]) - (0 if hunk[2] == "0" else 1)
            if not at <= start <= len(old):
                return None
            out += old[at:start]
            at = start
        elif line[:1] == "+":
            out.append(line[1:])
        elif line[:1] in ("-", " "):
            if at >= len(old) or old[at] != line[1:]:
                return None
            out += [old[at]] if line[0] == " " else []
            at += 1
        elif line and not line.startswith("\\"):
            return None
    return out + old[at:]


def _target(diff: str) -> str | None:
    head = _BREAK.split(diff, maxsplit=2)
    match = _TARGET.fullmatch(head[1].strip()) if len(head) > 1 and head[0].startswith("---") else None
    return match[1].lower() if match else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

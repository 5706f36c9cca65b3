"""Record ids. Source: REST API Developer Guide, "Record ids"; the suffix rule is checked against published ids."""

import re
import string
from typing import NewType

RecordId = NewType("RecordId", str)  # always the 18-character form

_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", re.ASCII)
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_CAPITAL = str.maketrans({char: "1" if char.isupper() else "0" for char in string.ascii_letters + string.digits})


def to_record_id(text: str) -> RecordId:
    """The 18-character form of a 15- or 18-character id.

    An 18-character id whose letters lost their case gets it back from the suffix.

    Raises:
        ValueError: Not 15 or 18 letters and digits, or the three check characters do not fit.
    """
    if not _ID.fullmatch(text):
        raise ValueError("a record id has 15 or 18 letters and digits")
    if len(text) == len("000000000000000"):
        return RecordId(text + _suffix(text))
    if _suffix(text[:15]) == text[15:]:
        return RecordId(text)
    body = _recased(text[:15], text[15:].upper())
    if body + _suffix(body) != body + text[15:].upper():
        raise ValueError("the last three characters of the record id do not fit the rest")
    return RecordId(body + _suffix(body))


def key_prefix(record_id: str) -> str:
    """The three characters that name the object."""
    return record_id[:3]


def _suffix(body: str) -> str:
    bits = int(body[::-1].translate(_CAPITAL), 2)
    return _SUFFIX[bits & 31] + _SUFFIX[bits >> 5 & 31] + _SUFFIX[bits >> 10]


def _recased(body: str, suffix: str) -> str:
    out = []
    for group, check in enumerate(suffix):
        bits = _SUFFIX.find(check)
        for i, char in enumerate(body[group * 5 : group * 5 + 5]):
            out.append(char.upper() if bits >> i & 1 else char.lower())
    return "".join(out)

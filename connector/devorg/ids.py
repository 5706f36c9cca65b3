"""Record ids: 15 case-sensitive characters, or 18 with a suffix that carries the case.

Source: REST API Developer Guide; object prefixes as in the recorded describe results.
"""

import re
import string
from collections.abc import Mapping

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SUFFIX = string.ascii_uppercase + "012345"
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Z0-5]{3})?", re.ASCII)
_SHORT_LENGTH = 15
_GROUP_LENGTH = 5
_COUNTER_LENGTH = 9
INSTANCE = "5f0"
"""Characters 4 to 6 of every id: the part a real org calls instance or pod."""


def to_18(id15: str) -> str:
    """Return the 18-character form of a 15-character id."""
    groups = (id15[start : start + _GROUP_LENGTH] for start in range(0, _SHORT_LENGTH, _GROUP_LENGTH))
    return id15 + "".join(_suffix_character(group) for group in groups)


def _suffix_character(group: str) -> str:
    return _SUFFIX[sum(1 << place for place, character in enumerate(group) if "A" <= character <= "Z")]


def is_id(text: object) -> bool:
    """Tell whether `text` is a 15-character id or an 18-character id with the right suffix."""
    if not isinstance(text, str) or _ID.fullmatch(text) is None:
        return False
    return len(text) == _SHORT_LENGTH or to_18(text[:_SHORT_LENGTH]) == text


def normal_id(text: str) -> str:
    """Return an id, already checked with `is_id`, in its 18-character form."""
    return to_18(text) if len(text) == _SHORT_LENGTH else text


class IdFactory:
    """Makes record ids, counting up per key prefix.

    Args:
        counters: Number of the next id by key prefix, as saved before a restart.
    """

    def __init__(self, counters: Mapping[str, int] | None = None) -> None:
        self.counters = dict(counters or {})

    def make(self, key_prefix: str) -> str:
        """Return the next 18-character id under `key_prefix`."""
        number = self.counters.get(key_prefix, 1)
        self.counters[key_prefix] = number + 1
        return to_18(key_prefix + INSTANCE + _base62(number))


def _base62(number: int) -> str:
    digits = ""
    for _ in range(_COUNTER_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits

"""A JSON object that is kept as text until somebody looks into it: most are only handed on."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson


class JsonText(Mapping[str, Any]):
    """Reads as the mapping that it is, and equals it.

    Attributes:
        text: The object's JSON, which has been ours before: it is not looked at until it is read.
    """

    __slots__ = ("_read", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._read: dict[str, Any] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "JsonText":
        """These values as they are kept.

        Raises:
            TypeError: One of them has no JSON form (an integer over 64 bits, a lone surrogate, a foreign type).
        """
        return values if type(values) is cls else cls(orjson.dumps(values, default=dict).decode())

    def opened_with(self, member: str) -> str:
        """The text with a member, as JSON, in front of its own."""
        return f"{{{member}}}" if self.text == "{}" else f"{{{member},{self.text[1:]}"

    def _values(self) -> dict[str, Any]:
        if self._read is None:
            self._read = orjson.loads(self.text)
        return self._read

    def __getitem__(self, name: str) -> Any:
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return repr(self._values())

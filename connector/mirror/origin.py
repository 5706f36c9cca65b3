"""What a mirror's file is a copy of; known to who works for an org as well, and leaves such a file alone."""

from dataclasses import dataclass
from typing import Self

import orjson

from connector.ports import Unit

COPY_CURSOR = "mirror"


@dataclass(frozen=True, slots=True)
class Copy:
    """What this file is a copy of; cursor `mirror`.

    Attributes:
        replica: Id of the connector's replica.
        begun_ms: When it was begun, milliseconds since the Unix epoch, UTC; tells one copy from the next.
    """

    replica: str
    begun_ms: int

    @classmethod
    def stored(cls, unit: Unit) -> Self | None:
        """None for a file that has not been a copy yet."""
        text = unit.cursor(COPY_CURSOR)
        return None if text is None else cls(*orjson.loads(text))

    def store(self, unit: Unit, at_ms: int) -> None:
        """Keep it."""
        unit.set_cursor(COPY_CURSOR, orjson.dumps([self.replica, self.begun_ms]).decode(), at_ms)

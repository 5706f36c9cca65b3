"""What is proved of each object, and what is known to differ from the org."""

from collections.abc import Mapping

from connector.inbound.progress import PollMark, reconcile_cursor
from connector.model.times import to_iso, to_ms
from connector.ports import Unit


class Proofs:
    """In memory for health, with the times on disk (cursors `verified:{Object}` and `reread:{Object}`).

    Attributes:
        verified_ms: Object -> the org's clock when it was last found, or made, equal as a whole.
        reread_ms: Object -> the org's clock since when no value of it was left unread.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.verified_ms: dict[str, int] = {}
        self.reread_ms: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._unrepaired: dict[str, int] = {}

    @property
    def held(self) -> Mapping[str, int]:
        """Deletions that were not taken over and wait for a person's word, by object."""
        return {name: count for name, count in self._held.items() if count}

    def drift(self, name: str) -> int:
        """Records of the object that are known to differ from the org: found by a comparison, and not put right."""
        return self._unrepaired.get(name, 0) + self._held.get(name, 0)

    def hold(self, name: str, count: int) -> None:
        """So many deletions more are held."""
        self._held[name] = self._held.get(name, 0) + count

    def compared(self, name: str, *, held: int, unrepaired: int) -> None:
        """The outcome of a comparison, in place of what was known before."""
        self._held[name], self._unrepaired[name] = held, unrepaired

    def recall(self, unit: Unit, name: str, mark: PollMark, now_ms: int) -> int:
        """When the object was last proved equal, by the org's clock; a load that is complete proves as much."""
        stored = unit.cursor(_verified_cursor(name))
        verified_ms = to_ms(stored) if stored else mark.polled_ms
        if stored is None:
            unit.set_cursor(_verified_cursor(name), to_iso(verified_ms), now_ms)
        self.verified_ms.setdefault(name, verified_ms)
        reread = unit.cursor(_reread_cursor(name))
        self.reread_ms.setdefault(name, to_ms(reread) if reread else verified_ms)
        return verified_ms


def comparison_asked(unit: Unit, name: str) -> bool:
    """True if an event said that any record of the object may differ."""
    return unit.cursor(reconcile_cursor(name)) is not None


def store_verified(unit: Unit, name: str, server_ms: int, now_ms: int) -> None:
    """Keep that the object was equal at a moment of the org's clock."""
    unit.set_cursor(_verified_cursor(name), to_iso(server_ms), now_ms)


def store_reread(unit: Unit, name: str, server_ms: int, now_ms: int) -> None:
    """Keep that every value was read at a moment of the org's clock."""
    unit.set_cursor(_reread_cursor(name), to_iso(server_ms), now_ms)


def _verified_cursor(name: str) -> str:
    return f"verified:{name}"


def _reread_cursor(name: str) -> str:
    return f"reread:{name}"

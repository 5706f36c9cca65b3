"""What this process remembers of recent applies: which reads were overtaken, where rows came from, which events it had.

All of it is memory only and bounded. What is forgotten costs a read of the record, never a wrong one.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from connector.inbound.merge import Source
from connector.model.ids import RecordId

MAX_RACED = 200_000
MAX_SOURCES = 100_000
MAX_SEEN = 50_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ReadFence:
    """The records of one object to which something was applied since a read was asked for.

    A read record outside the fence is as new as the row or newer: everything that was applied before the request was
    sent had been committed in the org by then, and so is in the answer.
    """

    def __init__(self, *, complete: bool = True) -> None:
        """`complete` False: the read began in an earlier run, so what was applied since is not known."""
        self.complete = complete
        self._raced: set[RecordId] = set()

    def note(self, ids: Iterable[RecordId]) -> None:
        """Something was applied to these."""
        if not self.complete:
            return
        self._raced.update(ids)
        if len(self._raced) > MAX_RACED:
            self.complete = False
            self._raced.clear()

    def raced(self, record_id: RecordId) -> bool:
        """True if the record may have moved on since the request was sent."""
        return not self.complete or record_id in self._raced

    def overtaken(self, ids: Iterable[RecordId]) -> set[RecordId]:
        """Those of the records to which something is known to have been applied since."""
        return self._raced.intersection(ids)


class Fences:
    """The open fences. `open` is used on the event loop, `note` within a unit, which may be on the database thread."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[ReadFence, ...]] = {}

    @contextmanager
    def open(self, object_name: str, *, complete: bool = True) -> Iterator[ReadFence]:
        """A fence to be opened before a request is sent and kept until its answer has been applied."""
        fence = ReadFence(complete=complete)
        # Tuples are replaced, never changed, so that the other thread always sees a whole one.
        self._open[object_name] = (*self._open.get(object_name, ()), fence)
        try:
            yield fence
        finally:
            self._open[object_name] = tuple(f for f in self._open[object_name] if f is not fence)

    def note(self, object_name: str, ids: Iterable[RecordId], own: ReadFence | None = None) -> None:
        """Something was applied to these records; `own` is the fence of the read that was."""
        fences = [f for f in self._open.get(object_name, ()) if f is not own]
        if fences:
            ids = list(ids)
            for fence in fences:
                fence.note(ids)


class Bounded(Generic[K, V]):
    """A mapping that forgets its oldest entries, half of them at once.

    One by one, in an `OrderedDict`, an entry takes three times the memory.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: entries at most; the newest half of so many is never forgotten."""
        self._half = limit // 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The entry, or None where there is none (any more)."""
        return self._young[key] if key in self._young else self._old.get(key)

    def among(self, keys: Iterable[K]) -> set[K]:
        """Those of the keys that have an entry."""
        return {key for key in keys if key in self._young or key in self._old}

    def set(self, key: K, value: V) -> None:
        """Add, or make the newest."""
        self._young[key] = value
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget everything."""
        self._old, self._young = {}, {}


class Memory:
    """Recent events and where recent rows came from; used within units, one at a time.

    Attributes:
        sources: By record; an id is of one object alone.
        seen: `transaction/sequence/record` of events. One string takes a third of what a tuple of three takes.
    """

    def __init__(self, *, max_sources: int = MAX_SOURCES, max_seen: int = MAX_SEEN) -> None:
        self.sources: Bounded[RecordId, Source] = Bounded(max_sources)
        self.seen: Bounded[str, bool] = Bounded(max_seen)

    def forget(self) -> None:
        """A unit failed: what it noted may not have happened."""
        self.sources.clear()
        self.seen.clear()

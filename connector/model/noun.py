"""Frozen dataclasses that are made thousands a second: frozen where the type checker looks, plain when they run.

A frozen dataclass sets each field by a call that goes past its own guard: one of twelve fields takes 4 microseconds
where a plain one takes 0.7, and a change on its way from the stream to the mesh is a dozen such nouns. That nobody sets
a field of one is proved by the type checker, over all of the code and the tests.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(*, frozen: bool = False, **options: Any) -> Any:
        """`dataclasses.dataclass`; a frozen one has its hash, and no guard."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)


__all__ = ["dataclass"]

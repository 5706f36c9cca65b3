"""A record's state at a time is what it was when that time was now."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.history import History
from tests.store_nouns import record_id

VALUES = st.fixed_dictionaries({"A": st.sampled_from([None, "x", "y"]), "B": st.sampled_from([None, 1, 2])})
STATES = st.lists(st.none() | VALUES, min_size=1, max_size=8)


def change(
    version: int, before: dict[str, Any] | None, after: dict[str, Any] | None, at_ms: int, *, committed: bool
) -> Change:
    """The change from one state to the next."""
    whole = None if after is None else {"Id": record_id(1), **after}
    changed = [name for name in after or {} if (before or {}).get(name) != (after or {})[name]]
    match before, after:
        case None, _:
            operation, old, new = Operation.CREATE, None, whole
        case _, None:
            operation, old, new = Operation.DELETE, {"Id": record_id(1), **(before or {})}, None
        case _:
            operation = Operation.UPDATE
            old = {name: (before or {})[name] for name in changed}
            new = {name: (after or {})[name] for name in changed}
    return Change(
        version=version,
        object="Widget__c",
        id=record_id(1),
        operation=operation,
        changed=tuple(changed),
        before=old,
        after=new,
        record=whole,
        origin=Origin.STREAM,
        command_id=None,
        commit=CommitInfo(at_ms) if committed else None,
        applied_ms=at_ms if not committed else at_ms + 5,
    )


def told(states: list[dict[str, Any] | None], *, committed: bool) -> list[Change]:
    """State n holds from time 10 n on."""
    pairs = enumerate(pairwise(states), 1)
    return [change(n, old, new, 10 * n, committed=committed) for n, (old, new) in pairs if old != new]


@given(STATES, st.booleans())
def test_every_state_is_found_again(states: list[dict[str, Any] | None], committed: bool) -> None:
    """At the moment of each change and in between; before the first one as it was loaded."""
    history = History(changes=told(states, committed=committed), now=states[-1], known_since_ms=None)
    for number, state in enumerate(states):
        assert history.at(10 * number) == state
        assert history.at(10 * number + 9) == state
    assert history.at(-1) == states[0]


@given(STATES, st.integers(0, 8))
def test_a_trimmed_log_tells_what_it_knows(states: list[dict[str, Any] | None], cut: int) -> None:
    """From its beginning on the same; before that it says that it does not know, and never something else."""
    begins_ms = 10 * min(cut, len(states) - 1)
    kept = [c for c in told(states, committed=True) if c.applied_ms >= begins_ms]
    history = History(changes=kept, now=states[-1], known_since_ms=begins_ms)
    for number, state in enumerate(states):
        if 10 * number >= begins_ms:
            assert history.at(10 * number) == state
        else:
            with pytest.raises(ValueError, match="reaches back to"):
                history.at(10 * number)

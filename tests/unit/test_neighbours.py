"""Another connector on the same root is told of, once, and its leaving."""

import orjson
import pytest

from connector.mesh.neighbours import Neighbours


def status(node: object, state: str = "online") -> bytes:
    return orjson.dumps({"state": state, "node": node, "version": "1", "since": None})


def test_another_node_is_told_once_and_its_leaving() -> None:
    """Our own messages come back to us, and mean nothing."""
    told: list[str | None] = []
    neighbours = Neighbours("lucidia", told.append)
    for payload in (status("lucidia"), status("aria"), status("aria"), status("aria", "offline"), status("aria")):
        neighbours.heard(payload)
    assert [t and "aria" in t for t in told] == [True, None, True]


def test_over_when_the_last_one_has_gone() -> None:
    """Of several."""
    told: list[str | None] = []
    neighbours = Neighbours("lucidia", told.append)
    for node, state in (("a", "online"), ("b", "online"), ("a", "offline"), ("b", "offline")):
        neighbours.heard(status(node, state))
    assert [t is None for t in told] == [False, False, True]


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"1", status(5), status(None), status("a", "offline")])
def test_what_is_no_neighbour(payload: bytes) -> None:
    """Whatever arrives there."""
    told: list[str | None] = []
    Neighbours("lucidia", told.append).heard(payload)
    assert told == []

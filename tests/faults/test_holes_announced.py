"""Holes are announced when they open and close, whatever else happens."""

from tests.e2e.making import MakeStack
from tests.e2e.watcher import ROOT

# Whatever else would wake the publisher (signals, another change) comes much later.
QUIET = {"signals": {"enabled": False}, "health": {"interval": "1h"}}


def test_a_hole_in_which_nothing_had_changed_is_announced_at_once(make_stack: MakeStack) -> None:
    """Opening and closing are told though no record changes with them."""
    stack = make_stack(QUIET)
    stack.start()
    stack.org.call("POST", "/events", {"object": "Lead", "kind": "GAP_OVERFLOW"})
    topic = f"{ROOT}/hole/Lead"
    stack.watcher.until(topic, lambda m: bool(m.payload) and m.json["state"] == "closed", timeout_s=5.0)
    assert any(m.json["state"] == "open" for m in stack.watcher.messages(topic) if m.payload)

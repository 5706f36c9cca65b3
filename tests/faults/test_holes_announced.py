"""Holes are announced when they open and close, whatever else happens."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
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


def test_an_operator_sees_an_open_hole(make_stack: MakeStack) -> None:
    """`status` names the object and since when, for people and for machines, until it is closed."""
    stack = make_stack()
    stack.start()
    stack.org.fault("rest", status=503, code="SERVER_UNAVAILABLE", count=None)
    stack.org.call("POST", "/events", {"object": "Lead", "kind": "GAP_OVERFLOW"})
    topic = f"{ROOT}/hole/Lead"
    opened = stack.watcher.until(topic, lambda m: bool(m.payload) and m.json["state"] == "open").json
    (hole,) = json.loads(status(stack, "--json"))["replica"]["holes"]
    assert (hole["object"], hole["from"]) == ("Lead", opened["from"])
    shown = status(stack)
    assert "Lead" in next(line for line in shown.splitlines() if "▲" in line and "hole" in line)
    stack.org.no_faults()
    stack.watcher.until(topic, lambda m: bool(m.payload) and m.json["state"] == "closed")
    assert json.loads(status(stack, "--json"))["replica"]["holes"] == []


def status(stack: Stack, *arguments: str) -> Any:
    """What `salesforce-sync status` prints, with the daemon's settings."""
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "connector", "--settings", str(stack.daemon.settings), "status", *arguments],
        env={**os.environ, **stack.secrets(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout

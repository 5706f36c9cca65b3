"""The whole product with its change stream over the Pub/Sub API."""

import pytest

from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """A daemon that streams over the Pub/Sub API."""
    made = make_stack({"salesforce": {"stream": "pubsub"}})
    made.start()
    return made


def test_an_edit_comes_as_a_change_of_the_stream(stack: Stack) -> None:
    """Cleared, set and part of a compound; nothing that did not change."""
    contact = stack.org.create("Contact", FirstName="Jane", LastName="Doe", Phone="1")
    stack.until_change(contact, "create")
    stack.org.update("Contact", contact, FirstName="Maren", Phone=None)
    data = stack.until_change(contact, "update").json["data"]
    assert data["origin"] == "stream"
    assert data["before"] == {"FirstName": "Jane", "Name": "Jane Doe", "Phone": "1"}
    assert data["after"] == {"FirstName": "Maren", "Name": "Maren Doe", "Phone": None}


def test_the_health_document_names_the_transport(stack: Stack) -> None:
    """And when the org last answered."""
    stream = stack.health(lambda h: bool(h["stream"]["state"] == "live"))["stream"]
    assert stream["transport"] == "pubsub"
    assert stream["last_frame_at"] is not None


def test_nothing_is_lost_over_an_org_that_was_away(stack: Stack) -> None:
    """It comes back on its port, and the stream goes on behind the stored position."""
    stack.org_process.stop()
    stack.daemon.until_logged("stream.down")
    stack.org_process.start()
    contact = stack.org.create("Contact", LastName="After")
    assert stack.until_change(contact, "create").json["data"]["origin"] == "stream"


def test_nothing_is_lost_over_a_restart(stack: Stack) -> None:
    """What was done meanwhile comes by the stream, from the stored position."""
    assert stack.daemon.stop() == 0
    contact = stack.org.create("Contact", LastName="Meanwhile")
    stack.start()
    assert stack.until_change(contact, "create").json["data"]["origin"] == "stream"


def test_all_that_it_logged_was_its_own(stack: Stack) -> None:
    """One JSON object per line: gRPC writes nothing of its own between them."""
    lines = stack.daemon.log.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("{")] == []

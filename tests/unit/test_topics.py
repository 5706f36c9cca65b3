"""Topics of the interface, and which reply addresses may be used."""

import pytest

from connector.mesh.topics import Incoming, Topics, is_command_id
from connector.model.ids import to_record_id

TOPICS = Topics()
CONTACT = to_record_id("0037e00000XyzAb")


def test_every_topic_is_as_the_contract_spells_it() -> None:
    """Section 1."""
    assert TOPICS.status == "blackroad/salesforce/status"
    assert TOPICS.health == "blackroad/salesforce/health"
    assert TOPICS.rejected == "blackroad/salesforce/rejected"
    assert TOPICS.change("Contact", "update", CONTACT) == f"blackroad/salesforce/change/Contact/update/{CONTACT}"
    assert TOPICS.record("Contact", CONTACT) == f"blackroad/salesforce/record/Contact/{CONTACT}"
    assert TOPICS.hole("Lead") == "blackroad/salesforce/hole/Lead"
    assert TOPICS.result("9b2e:a.b_c-D") == "blackroad/salesforce/result/9b2e:a.b_c-D"
    assert TOPICS.reply("sync") == "blackroad/salesforce/reply/sync"
    assert TOPICS.signals_out == "blackroad/signals/FND/OS"
    assert TOPICS.signals_in == "blackroad/signals/OS/FND"


@pytest.mark.parametrize(
    ("topic", "incoming"),
    [
        ("command/Contact/create", Incoming("command", "Contact", "create")),
        ("command/Invoice__c/upsert", Incoming("command", "Invoice__c", "upsert")),
        ("query/Contact/search", Incoming("query", "Contact", "search")),
        ("query/_all/changes", Incoming("query", "_all", "changes")),
        ("control/status", Incoming("control", "", "status")),
        ("control/dance", Incoming("control", "", "dance")),
        ("query/_all/get", None),
        ("command", None),
        ("command/Contact", None),
        ("command/Contact/undelete", None),
        ("command/Contact/update/more", None),
        ("command//update", None),
        ("command/Con tact/update", None),
        ("query/Contact/drop", None),
        ("control", None),
        ("control/Status", None),
        ("status", Incoming("status")),
    ],
)
def test_parse_below_the_root(topic: str, incoming: Incoming | None) -> None:
    """Well-formed topics say what they are; everything else is nothing."""
    assert TOPICS.parse(f"blackroad/salesforce/{topic}") == incoming


def test_parse_elsewhere() -> None:
    """Signals to us are known, other topics are not."""
    assert TOPICS.parse("blackroad/signals/OS/FND") == Incoming("signal")
    assert TOPICS.parse("blackroad/signals/FND/OS") is None
    assert TOPICS.parse("blackroad/salesforces/control/status") is None
    assert TOPICS.parse("") is None


@pytest.mark.parametrize("address", ["billing/inbox", "blackroad/salesforce/reply/x/y", "blackroad/other", "a b/ü"])
def test_reply_addresses_that_may_be_used(address: str) -> None:
    """Anything outside what others trust, and our reply branch."""
    assert TOPICS.reply_problem(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "blackroad/salesforce",
        "blackroad/salesforce/",
        "blackroad/salesforce/status",
        "blackroad/salesforce/reply",
        "blackroad/salesforce/change/Contact/update/x",
        "blackroad/signals",
        "blackroad/signals/FND/OS",
        "$SYS/broker",
        "$share/g/t",
        "a/+/b",
        "a/#",
        "a\x00b",
        "a\nb",
        "a\ud800",
        "x" * 1025,
    ],
)
def test_reply_addresses_that_are_refused(address: str) -> None:
    """Section 1: the connector may publish where the asker may not."""
    assert TOPICS.reply_problem(address) is not None


@pytest.mark.parametrize("text", ["", "a/b", "a+b", "a#", "x" * 129, "é", "a b", "a\n"])
def test_text_that_is_no_command_id(text: str) -> None:
    """A command id is one level of a topic and cannot leave it."""
    assert not is_command_id(text)
    with pytest.raises(ValueError, match="command id"):
        TOPICS.result(text)


def test_another_root_and_other_codes() -> None:
    """The settings decide."""
    topics = Topics(root="a/b", org_code="ABC", target="XY")
    assert topics.signals_out == "blackroad/signals/ABC/XY"
    assert topics.subscriptions() == (
        "a/b/command/#",
        "a/b/query/#",
        "a/b/control/#",
        "blackroad/signals/XY/ABC",
        "a/b/status",
    )
    assert topics.reply_problem("a/b/status") is not None
    assert topics.reply_problem("blackroad/salesforce/status") is None


def test_an_odd_verb_cannot_bend_the_reply_topic() -> None:
    """The verb comes from outside."""
    assert TOPICS.reply("../status") == "blackroad/salesforce/reply/unknown"

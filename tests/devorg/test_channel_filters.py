"""Channels that filter, and replay ids of events that a channel does not carry."""

from typing import Any

import orjson
import pytest

from connector.devorg.events.channels import Channel, channel_named
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from tests.devorg.conftest import Admin
from tests.devorg.streaming import ALL, ORIGIN

SALES = "/data/Sales__chn"
BERGEN = {"Contact": "MailingCity = 'Bergen' AND (NOT LastName LIKE 'X%')"}


def channel(org: DevOrg, name: str) -> Channel:
    found = channel_named(name, org.ctx.schema, org.ctx.bus.custom_channels, org.ctx.bus.channel_filters)
    assert found is not None
    return found


def told(org: DevOrg, name: str, *, gaps: bool = True) -> list[dict[str, Any]]:
    """The payloads that a channel delivers, from the log's beginning."""
    seen, bus = channel(org, name), org.ctx.bus
    return [orjson.loads(p) for event in bus.read(seen, 0, 1000) for p in bus.told(seen, event, gaps=gaps)]


def contacts(org: DevOrg) -> list[str]:
    with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
        cities = {"Ann": "Bergen", "Bo": "Oslo", "Xerxes": "Bergen"}
        return [t.create("Contact", {"LastName": name, "MailingCity": city}) for name, city in cities.items()]


async def test_only_records_that_pass(org: DevOrg) -> None:
    """As they stand when the event is delivered; of a merged event those that pass, one by one."""
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], filters=BERGEN)
    ann, bo, xerxes = contacts(org)
    with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
        for contact in (ann, bo, xerxes):
            t.update("Contact", contact, {"Phone": "1"})
    events = told(org, SALES)
    assert [(e["ChangeEventHeader"]["changeType"], e["ChangeEventHeader"]["recordIds"]) for e in events] == [
        ("CREATE", [ann]),
        ("UPDATE", [ann]),
    ]
    # The fields that the filter looks at are always there.
    assert (events[1]["MailingAddress"], events[1]["Name"]) == ({"City": "Bergen"}, {"LastName": "Ann"})
    with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
        t.update("Contact", ann, {"MailingCity": "Oslo"})
    assert told(org, SALES) == []
    assert len(told(org, ALL)) == 5


async def test_events_without_a_body(org: DevOrg) -> None:
    """They have nothing to be judged by: a switch."""
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], filters=BERGEN)
    _, bo, _ = contacts(org)
    org.ctx.bus.emit_without_body("Contact", "GAP_UPDATE", [bo])
    org.ctx.bus.emit_without_body("Contact", "GAP_OVERFLOW")
    kinds = [e["ChangeEventHeader"]["changeType"] for e in told(org, SALES)]
    assert kinds == ["CREATE", "GAP_UPDATE", "GAP_OVERFLOW"]
    assert len(told(org, SALES, gaps=False)) == 1


async def test_filters_are_ordered_and_checked(org: DevOrg, admin: Admin) -> None:
    """Through the admin interface; an expression over fields that are not there is refused."""
    await admin("PUT", "/channels/Sales__chn", {"objects": ["Contact"], "filters": BERGEN})
    assert channel(org, SALES).filters == BERGEN
    assert sorted(channel(org, SALES).enriched["Contact"]) == ["LastName", "MailingCity"]
    for wrong in ("Nothing = 1", "MailingCity =", "SELECT"):
        with pytest.raises(ValueError, match="filter of Contact"):
            org.ctx.bus.define_channel("Sales__chn", ["Contact"], filters={"Contact": wrong})
    org.ctx.bus.define_channel("Sales__chn", [])
    assert org.ctx.bus.channel_filters == {}


async def test_ids_of_another_channels_events(org: DevOrg) -> None:
    """Foreign to a channel that does not carry the event; no event at all is nobody's."""
    contacts(org)
    newest, bus = org.ctx.bus.latest_id(), org.ctx.bus
    assert bus.is_foreign(channel(org, "/data/LeadChangeEvent"), newest)
    assert not bus.is_foreign(channel(org, "/data/ContactChangeEvent"), newest)
    assert not bus.is_foreign(channel(org, "/data/LeadChangeEvent"), newest + 1)

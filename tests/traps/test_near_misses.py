"""Seven smaller traps: what looks like a loss and is none, or like an order and is none."""

import asyncio
from pathlib import Path

import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from connector.errors import LoginRefused
from connector.model.change import Origin
from connector.salesforce.login import Session
from connector.salesforce.token_store import FileTokenStore
from tests.copies import ORIGIN
from tests.orgs import now_ms, org_session, org_settings, secrets_of
from tests.traps.scene import CONTACTS, Making, stand_still
from tests.waiting import until


async def test_near_miss_01_sequence_numbers_have_holes(org: DevOrg, copy: Making) -> None:
    """An object in the middle of the transaction is not selected: the others come, and nobody waits for the missing."""
    org.ctx.schema.select("Account", "Contact")
    async with copy(wanted={"Account": ("Name", "Phone"), "Contact": ("Phone",)}) as made:
        account, contact = (await made.ids("Account"))[0], (await made.ids("Contact"))[0]
        lead = next(iter(org.ctx.org.find("Lead", "Company", "Berg 0")))
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
            t.update("Account", account, {"Phone": "1"})
            t.update("Lead", lead, {"Phone": "1"})
            t.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
        commits = [c.commit for c in await made.changes()]
        assert [c.sequence for c in commits if c is not None] == [1, 3]
        assert await made.holes() == []
        assert made.calls().get("repair", 0) == 0


async def test_near_miss_02_commit_timestamps_are_no_order(org: DevOrg, copy: Making) -> None:
    """Three commits of one timestamp: the stream's order counts."""
    async with copy(wanted=CONTACTS, jobs=("stream", "load", "repair")) as made:
        contact, *_ = await made.ids("Contact")
        stand_still(org)
        for phone in ("1", "2", "3"):
            made.update("Contact", contact, {"Phone": phone})
        changes = await made.until_changes(contact, 3)
        assert len({c.commit.timestamp_ms for c in changes if c.commit is not None}) == 1
        assert [(c.after or {})["Phone"] for c in changes] == ["1", "2", "3"]


async def test_near_miss_03_delivered_events_count_per_subscriber(org: DevOrg, copy: Making) -> None:
    """A second connector halves the allowance; at its end the stream waits, the poller goes on, nothing is lost."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.settings.delivered_event_limit = org.ctx.usage.delivered.used() + 1
        for phone in ("1", "2"):
            made.update("Contact", contact, {"Phone": phone})
        await until(lambda: made.inbound.stream_state.status == "down")
        assert "delivered events" in (made.inbound.stream_state.last_error or "")
        await made.inbound.sync()
        assert await made.difference() == {}


async def test_near_miss_04_bulk_results_are_no_snapshot(org: DevOrg, copy: Making) -> None:
    """Null and empty are one in CSV, and what is edited while the job is read is not lost to the job's older rows."""
    org.ctx.settings.bulk_job_s = 0.6
    edited = org.ctx.org.find("Contact", "LastName", "Doe 0")[0]

    def edit() -> bool:
        if not org.ctx.usage.bulk_query_jobs.used():
            return False
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
            t.update("Contact", edited, {"Phone": "4", "MailingCity": None})
        return True

    editing = asyncio.ensure_future(until(edit))
    async with copy(wanted=CONTACTS, bulk_threshold=1) as made:
        await editing
        await made.settled()
        row = await made.row("Contact", edited)
        assert row is not None
        assert (row.values["Phone"], row.values["MailingCity"], row.values["Email"]) == ("4", None, None)


async def test_near_miss_05_the_server_says_goodbye(org: DevOrg, copy: Making) -> None:
    """An unsolicited `/meta/disconnect`: a new session behind the stored position, with the same token."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        logins = sum(org.ctx.usage.logins.values())
        made.update("Contact", contact, {"Phone": "0"}, {"Phone": "1"})
        await made.until_changes(contact, 1)
        org.ctx.faults.add("cometd:connect", disconnect=True)
        for phone in ("2", "3"):
            made.update("Contact", contact, {"Phone": phone})
        changes = await made.until_changes(contact, 3)
        assert {c.origin for c in changes} == {Origin.STREAM}
        assert sum(org.ctx.usage.logins.values()) == logins


async def test_near_miss_06_client_credentials_work_on_my_domain_only(org: DevOrg) -> None:
    """login.salesforce.com refuses them: told with what to do, and not tried again."""
    org.ctx.settings.login_host = True
    async with org_session(org) as session:
        with pytest.raises(LoginRefused, match="My Domain"):
            await session.token()
        with pytest.raises(LoginRefused):
            await session.token()
    assert not org.ctx.usage.logins


async def test_near_miss_07_a_rotated_refresh_token_is_stored_before_it_is_used(org: DevOrg, tmp_path: Path) -> None:
    """The old one is dead with the answer: what a later process finds on disk opens the org."""
    org.ctx.settings.rotate_refresh_tokens = True
    path = tmp_path / "refresh_token.json"
    for _ in range(3):
        store = FileTokenStore(path)
        async with Session(
            org_settings(org.url), secrets_of(org), "refresh_token", now_ms=now_ms, store=store
        ) as session:
            token = await session.token()
            assert path.exists()
            assert org.ctx.tokens.check(token.value) == INTEGRATION_USER_ID

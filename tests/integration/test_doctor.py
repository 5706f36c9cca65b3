"""Doctor against a local org, a broker and a replica: each fault is found, every other check made, selection mended."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.faults import Fault
from connector.devorg.server import DevOrg
from connector.doctor import local, node
from connector.doctor.examine import examine
from connector.doctor.findings import Finding, Report
from connector.ports import Unit
from connector.salesforce.token_store import FileTokenStore
from connector.store.database import Database
from tests.broker import Broker, BrokerOptions, free_port
from tests.conftest import BrokerFactory
from tests.orgs import now_ms, org_session, says, says_text, scripted

EVERY_CHECK = {
    "settings", "secrets", "versions", "timesync", "disk", "replica", "backup", "broker",
    "org", "clock", "login", "api", "objects", "selection",
}  # fmt: skip
OTHER_ORG = "00D5f000000AbCdEAK"


@dataclass
class Ward:
    """A working directory to be examined.

    Attributes:
        settings: Sections of settings.toml.
        env: What `.env` holds.
        told: Findings in the order they were told, of all examinations.
    """

    path: Path
    settings: dict[str, dict[str, Any]]
    env: dict[str, str]
    told: list[Finding] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.path / "data" / "salesforce.db"

    async def examine(self, *, fix: bool = False, **settings: dict[str, Any]) -> Report:
        """Write the files and look; `settings` are further sections."""
        lines = []
        for section, keys in {**self.settings, **settings}.items():
            lines += [f"[{section.replace('objects_', 'objects.')}]", *(f"{k} = {_toml(v)}" for k, v in keys.items())]
        (self.path / "settings.toml").write_text("\n".join(lines), "utf-8")
        secrets = self.path / ".env"
        secrets.write_text("".join(f"{name}={value}\n" for name, value in self.env.items()), "utf-8")
        secrets.chmod(0o600)
        return await examine(None, directory=self.path, fix=fix, tell=self.told.append, now_ms=now_ms)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def of(report: Report, check: str, *states: str) -> list[Finding]:
    """The findings of a check, in the given states or in any."""
    return [f for f in report.findings if f.check == check and (not states or f.state in states)]


def only(report: Report, check: str, state: str) -> Finding:
    """The one finding of a check in a state that is the only one to mend or watch."""
    [finding] = [f for f in report.findings if f.state != "ok"]
    assert (finding.check, finding.state) == (check, state), finding
    return finding


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
def ward(org: DevOrg, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    for name in os.environ:
        if name.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_", "CREDENTIALS_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(node, "_synchronised", lambda: "yes")
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / datetime.now(UTC).strftime("salesforce-%Y%m%dT%H%M%SZ.db")).touch()
    known = org.ctx.credentials
    path = tmp_path / "ward"
    path.mkdir()
    return Ward(
        path,
        {
            "salesforce": {"instance_url": org.url, "timeout": "5s"},
            "storage": {"path": str(path / "data" / "salesforce.db"), "backups": str(copies)},
            "mqtt": {"port": broker.port},
        },
        {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret},
    )


async def test_where_all_is_well_every_check_says_so(ward: Ward, org: DevOrg) -> None:
    """Told one by one as they come, for two API calls and one for each object; nothing is written."""
    report = await ward.examine()
    assert {f.check for f in report.findings} == EVERY_CHECK
    assert {f.state for f in report.findings} == {"ok"}
    assert tuple(ward.told) == report.findings
    assert report.skipped == ()
    assert org.ctx.usage.calls == {
        "GET /limits": 1,
        "GET /sobjects/{object}/describe": 4,
        "GET /tooling/query": 1,
    }
    assert {entry.name for entry in ward.path.iterdir()} == {"settings.toml", ".env"}


async def test_it_works_beside_a_running_daemon_and_counts_its_calls(ward: Ward, org: DevOrg) -> None:
    """The daemon holds the database's lock; calls made here are counted in it all the same."""
    async with Database(ward.database) as database:
        await database.run(lambda unit: unit.set_cursor("org", org.ctx.tokens.org_id, now_ms()))
        report = await ward.examine()
        assert {f.state for f in report.findings} == {"ok"}
        assert any("of this org" in f.message for f in of(report, "replica"))
        calls = await database.run(lambda unit: unit.calls_since("2026"))
    assert calls == {"verify": 6}


async def test_calls_of_the_day_count_towards_our_own_ceiling(ward: Ward) -> None:
    """What the daemon used up is not there for doctor, which says so instead of calling."""
    async with Database(ward.database) as database:
        hour = "2999-01-01T00"  # ahead of every clock: stays in the window
        await database.run(lambda unit: unit.count_call(hour, "catch_up", 100))
    report = await ward.examine(limits={"daily_api_calls": 100})
    assert any("limits.daily_api_calls" in f.message for f in of(report, "api", "fail"))


async def test_fix_selects_what_is_not_selected(ward: Ward, org: DevOrg) -> None:
    """Without it each unselected object is a failure; with it one call each; then all is well."""
    org.ctx.schema.select("Contact")
    invoice = {"fields": ["Name", "Amount__c"], "external_id": "BlackRoad_Key__c"}
    broken = await ward.examine(objects_Invoice__c=invoice)
    assert [f.message.split()[0] for f in of(broken, "selection", "fail")] == [
        "Lead", "Account", "Opportunity", "Invoice__c"
    ]  # fmt: skip
    assert all("--fix" in f.mend for f in of(broken, "selection", "fail"))
    mended = await ward.examine(fix=True, objects_Invoice__c=invoice)
    assert mended.failed == frozenset()
    assert org.ctx.schema.selected == {"Contact", "Lead", "Account", "Opportunity", "Invoice__c"}
    org.ctx.usage.calls.clear()
    assert {f.state for f in (await ward.examine(fix=True, objects_Invoice__c=invoice)).findings} == {"ok"}
    assert "POST /tooling/sobjects/PlatformEventChannelMember" not in org.ctx.usage.calls


async def test_fix_goes_to_the_channel_that_is_subscribed(ward: Ward, org: DevOrg) -> None:
    """A channel of the org's own has members of its own, and an id for a name."""
    org.ctx.bus.define_channel("Sales__chn", ["Lead"])
    salesforce = {**ward.settings["salesforce"], "channel": "/data/Sales__chn"}
    report = await ward.examine(fix=True, salesforce=salesforce, sync={"objects": ["Lead", "Contact"]})
    assert [f.message for f in of(report, "selection")] == [
        "selected in Sales__chn: Lead",
        "Contact is selected in Sales__chn now",
    ]
    assert set(org.ctx.bus.custom_channels["Sales__chn"]) == {"Lead", "Contact"}


async def test_a_channel_of_one_object_leaves_the_others_to_the_poller(ward: Ward) -> None:
    """Which is worth a warning, not more."""
    salesforce = {**ward.settings["salesforce"], "channel": "/data/ContactChangeEvent"}
    report = await ward.examine(salesforce=salesforce, sync={"objects": ["Lead", "Contact"]})
    assert "Lead" in only(report, "selection", "warn").message


async def test_without_a_stream_nothing_needs_to_be_selected(ward: Ward, org: DevOrg) -> None:
    """And nothing is asked."""
    org.ctx.schema.select()
    report = await ward.examine(fix=True, salesforce={**ward.settings["salesforce"], "stream": "off"})
    assert {f.state for f in report.findings} == {"ok"}
    assert org.ctx.schema.selected == set()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(kind="rest", path="tooling/sobjects", status=403, code="INSUFFICIENT_ACCESS"), "Customize Application"),
        (Fault(kind="rest", path="tooling/sobjects", status=400, code="LIMIT_EXCEEDED"), "five"),
        (Fault(kind="rest", path="tooling/sobjects", status=503, code="SERVER_UNAVAILABLE"), "run it again"),
        (Fault(kind="rest", path="tooling/sobjects", drop_response=True), "run it again"),
    ],
)
async def test_a_selection_that_fails_says_what_is_needed(ward: Ward, org: DevOrg, fault: Fault, words: str) -> None:
    """The right, room, or another try."""
    org.ctx.schema.select("Contact", "Lead", "Account")
    org.ctx.faults.order(fault)
    finding = only(await ward.examine(fix=True), "selection", "fail")
    assert finding.message.startswith("Opportunity is not selected")
    assert words in finding.mend


@pytest.mark.parametrize(
    ("path", "check", "words"),
    [
        ("tooling/query", "selection", "View Setup and Configuration"),
        ("/limits", "api", "View Setup and Configuration"),
    ],
)
async def test_what_the_user_may_not_ask_is_a_warning(
    ward: Ward, org: DevOrg, path: str, check: str, words: str
) -> None:
    """The daemon works without; doctor cannot tell, and says which right it lacks."""
    org.ctx.faults.order(Fault(kind="rest", path=path, status=403, code="INSUFFICIENT_ACCESS", message="no right"))
    finding = only(await ward.examine(), check, "warn")
    assert "INSUFFICIENT_ACCESS: no right" in finding.message
    assert words in finding.mend


async def test_objects_and_fields_that_are_not_there_are_named(ward: Ward, org: DevOrg) -> None:
    """One finding each; what the org does not describe is not selected either."""
    report = await ward.examine(
        fix=True, objects_Nope__c={"fields": ["Name"]}, objects_Contact={"fields": ["Email", "Nope"]}
    )
    missing, unknown = sorted(of(report, "objects", "fail"), key=lambda f: f.message)
    assert "Contact: the org has no Nope" in missing.message
    assert "Nope__c: the org does not describe it: NOT_FOUND" in unknown.message
    assert report.failed == {"objects"}
    assert "Nope__c" not in org.ctx.schema.selected


async def test_the_orgs_words_are_made_fit_for_a_terminal(ward: Ward, org: DevOrg) -> None:
    """One line of printable characters, of bounded length."""
    words = "\x1b[2Jgone\r\n" + "x" * 2000
    org.ctx.faults.order(Fault(kind="rest", path="Lead/describe", status=403, code="NO", message=words))
    message = only(await ward.examine(), "objects", "fail").message
    assert message.isprintable()
    assert "gone" in message
    assert len(message) == 500


async def test_a_refused_login_leaves_the_other_checks(ward: Ward, broker: Broker) -> None:
    """The org's own words, what to do, and no secret."""
    ward.env["SF_CLIENT_SECRET"] = "a-wrong-secret"
    report = await ward.examine()
    finding = only(report, "login", "fail")
    assert "SF_CLIENT_SECRET" in finding.message
    assert report.skipped == ("api", "objects", "selection")
    assert {f.check for f in report.findings} == EVERY_CHECK - {*report.skipped}
    assert "a-wrong-secret" not in str(report)
    assert str(broker.port) in of(report, "broker")[0].message


@pytest.mark.parametrize("dead", [True, False])
async def test_a_given_token_is_tried_and_warned_of(ward: Ward, org: DevOrg, dead: bool) -> None:
    """It comes without a login, so only a call proves it; and it will not last."""
    ward.env = {"SF_ACCESS_TOKEN": org.ctx.tokens.default_access_token}
    if dead:
        org.ctx.tokens.revoke(org.ctx.tokens.default_access_token)
    finding = only(await ward.examine(), "login", "fail" if dead else "warn")
    assert "SF_ACCESS_TOKEN" in finding.message or "renewed" in finding.message
    assert org.ctx.tokens.default_access_token not in str(finding)


async def test_a_refresh_token_that_doctor_rotates_is_not_lost_to_the_daemon(ward: Ward, org: DevOrg) -> None:
    """The daemon finds the new one where both keep it."""
    org.ctx.settings.rotate_refresh_tokens = True
    ward.env |= {"SF_REFRESH_TOKEN": org.ctx.credentials.refresh_token}
    store = FileTokenStore(ward.database.with_name("refresh_token.json"))
    async with org_session(org, "refresh_token", store=store) as daemon:
        first = await daemon.token()
        assert {f.state for f in (await ward.examine()).findings} == {"ok"}
        assert (await daemon.renew(first)).value != first.value


async def test_a_key_file_that_is_not_there_is_a_mistake_of_the_settings(ward: Ward, org: DevOrg) -> None:
    """Told as such, by its path."""
    ward.env |= {"SF_USERNAME": org.ctx.credentials.username, "SF_PRIVATE_KEY_FILE": str(ward.path / "nope.pem")}
    assert "nope.pem" in only(await ward.examine(), "settings", "fail").message


async def test_secrets_that_others_may_read_are_a_warning(ward: Ward, org: DevOrg) -> None:
    """The key file and `.env`, each with the command that mends it."""
    key = ward.path / "key.pem"
    key.write_bytes(org.keys.private_key_file().read_bytes())
    key.chmod(0o640)
    ward.env |= {"SF_USERNAME": org.ctx.credentials.username, "SF_PRIVATE_KEY_FILE": str(key)}
    assert only(await ward.examine(), "secrets", "warn").mend == f"chmod 600 {key}"
    (ward.path / ".env").chmod(0o644)
    findings = list(local.secret_files(ward.path, None))
    assert [(f.state, f.mend) for f in findings] == [("warn", f"chmod 600 {ward.path / '.env'}")]


async def test_an_org_that_is_away_leaves_the_checks_of_this_machine(ward: Ward, org: DevOrg) -> None:
    """Way and login fail; broker, disk and replica are looked at."""
    await org.hang_up()
    report = await ward.examine()
    assert report.failed == {"org", "login"}
    assert report.skipped == ("clock", "api", "objects", "selection")
    assert {f.state for f in of(report, "broker") + of(report, "disk") + of(report, "replica")} == {"ok"}


async def test_something_else_at_the_address_is_no_org(ward: Ward) -> None:
    """A page instead of the versions; an old org that does not speak our version."""
    async with scripted(says_text("<html>")) as server:
        report = await ward.examine(salesforce={"instance_url": server.url})
        assert "no answer of a Salesforce org" in of(report, "org", "fail")[0].message
    async with scripted(says([{"version": "40.0"}, {"version": "57.0"}]), says_text("<html>")) as server:
        report = await ward.examine(salesforce={"instance_url": server.url})
        assert "40.0 to 57.0" in of(report, "org", "fail")[0].message


async def test_a_clock_that_is_wrong_is_a_warning(ward: Ward, org: DevOrg) -> None:
    """Held against the org's."""
    org.ctx.org.advance(3600)
    assert "behind" in only(await ward.examine(), "clock", "warn").message


async def test_a_day_that_is_nearly_or_wholly_used_up(ward: Ward, org: DevOrg) -> None:
    """High use is a warning, the end of it a failure; checks that cannot be afforded are not failures."""
    org.ctx.usage.api.set(12_050)
    assert "12,05" in only(await ward.examine(), "api", "warn").message
    org.ctx.usage.api.set(14_000)
    report = await ward.examine()
    assert report.failed == frozenset()
    assert {f.check for f in report.findings if f.state == "warn"} == {"api", "objects"}
    assert report.skipped == ("selection",)
    org.ctx.usage.api.set(15_000)
    report = await ward.examine()
    assert report.failed == {"api"}
    assert of(report, "login", "ok")
    assert of(report, "broker", "ok")


async def test_a_replica_of_another_org_is_a_failure(ward: Ward, org: DevOrg) -> None:
    """Both are named; nothing is changed in an org that is perhaps not meant."""
    org.ctx.schema.select("Contact", "Lead", "Account")
    async with Database(ward.database) as database:
        await database.run(lambda unit: unit.set_cursor("org", OTHER_ORG, now_ms()))
    report = await ward.examine(fix=True)
    [finding] = of(report, "replica", "fail")
    assert OTHER_ORG in finding.message
    assert org.ctx.tokens.org_id in finding.message
    assert "Opportunity" not in org.ctx.schema.selected
    assert "storage.path" in finding.mend


async def test_a_file_that_is_no_replica_is_told_and_left_as_it_is(ward: Ward) -> None:
    """All checks of the org are made, uncounted."""
    ward.database.parent.mkdir()
    ward.database.write_bytes(b"not a database" * 100)
    report = await ward.examine()
    assert "salesforce.db" in only(report, "replica", "fail").message
    assert ward.database.read_bytes() == b"not a database" * 100
    assert of(report, "selection", "ok")


async def test_a_busy_replica_is_read_and_its_calls_go_uncounted(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who keeps the write lock holds nothing up for long."""
    monkeypatch.setattr("connector.store.session.BUSY_TIMEOUT_MS", 50)
    held, over = threading.Event(), threading.Event()

    def hold(_unit: Unit) -> None:
        held.set()
        over.wait(30)

    async with Database(ward.database) as database:
        holding = asyncio.create_task(database.run(hold))
        await asyncio.to_thread(held.wait, 30)
        report = await ward.examine()
        over.set()
        await holding
    assert "cannot be counted" in only(report, "replica", "warn").message
    assert of(report, "selection", "ok")


async def test_little_room_on_the_disk(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """First a warning, then a failure."""
    monkeypatch.setattr(local, "LITTLE_SPACE_BYTES", 1 << 62)
    assert only(await ward.examine(), "disk", "warn").mend
    monkeypatch.setattr(local, "NO_SPACE_BYTES", 1 << 62)
    assert only(await ward.examine(), "disk", "fail").mend


async def test_a_folder_in_place_of_the_file(ward: Ward) -> None:
    """The disk's check says it; the replica's too."""
    ward.database.mkdir(parents=True)
    assert {"disk", "replica"} >= (await ward.examine()).failed >= {"disk"}


async def test_a_broker_that_refuses_or_is_away(ward: Ward, make_broker: BrokerFactory) -> None:
    """Each with what to check; the org's checks are made."""
    closed = await make_broker(BrokerOptions(users={"sync": "pass-word"}))
    report = await ward.examine(mqtt={"port": closed.port})
    assert "MQTT_PASSWORD" in only(report, "broker", "fail").mend
    ward.env |= {"MQTT_USERNAME": "sync", "MQTT_PASSWORD": "pass-word"}
    assert (await ward.examine(mqtt={"port": closed.port})).failed == frozenset()
    away = await ward.examine(mqtt={"port": free_port()})
    assert "mqtt.port" in only(away, "broker", "fail").mend
    unread = await ward.examine(mqtt={"port": closed.port, "tls": True, "ca_file": "/nope.pem"})
    assert "mqtt.ca_file" in only(unread, "settings", "fail").message
    assert "pass-word" not in str(ward.told)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"mqtt": {"port": 0, "nope": 1}}, {"mqtt.port", "mqtt.nope"}),
        ({"salesforce": {"instance_url": "ftp://x"}}, {"salesforce.instance_url"}),
    ],
)
async def test_every_mistake_of_the_settings_is_a_finding(
    ward: Ward, sections: dict[str, dict[str, Any]], named: set[str]
) -> None:
    """What needs the settings is named as not looked at."""
    ward.settings |= sections
    report = await ward.examine()
    assert {f.message.split()[0].rstrip(":") for f in of(report, "settings", "fail")} == named
    assert of(report, "secrets", "ok")
    assert report.skipped == (
        "disk", "replica", "broker", "org", "clock", "login", "api", "objects", "selection"
    )  # fmt: skip


async def test_the_example_address_and_missing_secrets(ward: Ward, org: DevOrg) -> None:
    """Nothing is asked of a made-up address; without secrets the way to the org is still looked at."""
    placeholder = {"instance_url": "https://yourinstance.my.salesforce.com"}
    report = await ward.examine(salesforce=placeholder)
    assert "still the example" in only(report, "settings", "fail").message
    assert report.skipped == ("org", "clock", "login", "api", "objects", "selection")
    ward.env = {}
    report = await ward.examine()
    assert ".env" in only(report, "settings", "fail").mend
    assert of(report, "org", "ok")
    assert not org.ctx.usage.calls


async def test_a_stream_whose_libraries_are_missing(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon would not start with it."""
    monkeypatch.setattr(local, "PUBSUB_LIBRARIES", ("grpc", "no_such_library"))
    report = await ward.examine(salesforce={**ward.settings["salesforce"], "stream": "pubsub"})
    [found] = of(report, "settings", "fail")
    assert "pubsub" in found.message
    assert "no_such_library missing" in found.message
    assert "salesforce-sync[pubsub]" in found.mend

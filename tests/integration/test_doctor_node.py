"""What the doctor finds of a node: time source, backups, versions, the broker's rights, modes that it mends."""

import ast
from pathlib import Path

import pytest
from pydantic import SecretStr

from connector.doctor import local, node
from connector.settings import MqttSettings, Secrets, Settings
from connector.store import Session
from connector.store.backup import backup
from tests.broker import BrokerOptions
from tests.conftest import BrokerFactory
from tests.store_nouns import NOW_MS

ROOT = "blackroad/salesforce"
SHIPPED_ACL = Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl"


@pytest.mark.parametrize(("told", "state"), [("yes", "ok"), ("no", "warn"), (None, "ok")])
def test_a_clock_without_a_source_is_found(told: str | None, state: str) -> None:
    """It may be right today; nobody can tell is no finding."""
    assert node.time_source(lambda: told).state == state


def test_this_machine_is_asked_without_harm() -> None:
    """Whatever it answers, or whether it has systemd at all."""
    assert node.time_source().check == "timesync"


def test_backups_that_are_missing_or_old_are_found(tmp_path: Path) -> None:
    """None is needed before there is a replica; then one of the last two nights."""
    replica, folder = tmp_path / "replica.db", tmp_path / "backups"
    assert node.backup_age(replica, folder, NOW_MS).state == "ok"
    with Session(replica):
        pass
    assert node.backup_age(replica, folder, NOW_MS).state == "warn"
    backup(replica, folder, now_ms=NOW_MS)
    assert node.backup_age(replica, folder, NOW_MS + 3_600_000).state == "ok"
    late = node.backup_age(replica, folder, NOW_MS + 3 * 24 * 3_600_000)
    assert (late.state, "72 h" in late.message) == ("warn", True)
    assert "backup" in late.mend


def test_versions_name_what_a_report_needs() -> None:
    """Ours, Python's, SQLite's and the libraries'."""
    found = node.versions()
    assert all(name in found.message for name in ("salesforce-sync 0.", "Python 3.", "SQLite 3.", "paho-mqtt 2."))


def settings_of(port: int) -> Settings:
    return Settings.model_validate(
        {
            "salesforce": {"instance_url": "http://127.0.0.1:1"},
            "mqtt": MqttSettings(host="127.0.0.1", port=port).model_dump(),
            "secrets": Secrets(mqtt_username="salesforce-sync", mqtt_password=SecretStr("right")),
        }
    )


async def test_rights_that_the_broker_withholds_are_found(make_broker: BrokerFactory) -> None:
    """A password that opens the door is not yet the right to publish."""
    users = {"salesforce-sync": "right"}
    shipped = SHIPPED_ACL.read_text(encoding="utf-8").splitlines()
    broker = await make_broker(BrokerOptions(users=users, acl=shipped))
    (taken,) = await local.broker(settings_of(broker.port))
    assert taken.state == "ok"
    assert "mosquitto version 2." in taken.message
    broker = await make_broker(BrokerOptions(users=users, acl=["user salesforce-sync", f"topic read {ROOT}/#"]))
    found = [finding for finding in await local.broker(settings_of(broker.port)) if finding.state == "fail"]
    assert len(found) == 1
    assert f"{ROOT}/reply/doctor" in found[0].message


async def test_a_broker_that_lets_anybody_in_is_found(make_broker: BrokerFactory) -> None:
    """With a password set it is meant to be closed; then nobody without one may come in."""
    open_to_all = await make_broker(BrokerOptions())
    found = [finding for finding in await local.broker(settings_of(open_to_all.port)) if finding.state == "warn"]
    assert len(found) == 1
    assert "without a password" in found[0].message


def test_modes_are_mended_on_request(tmp_path: Path) -> None:
    """`--fix` closes a secret's file to others, which can do no harm."""
    secret = tmp_path / ".env"
    secret.write_text("SF_CLIENT_SECRET=x\n")
    secret.chmod(0o644)
    (found,) = local.secret_files(tmp_path, None)
    assert found.state == "warn"
    (mended,) = local.secret_files(tmp_path, None, fix=True)
    assert mended.state == "ok"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_credentials_that_systemd_hands_out_are_looked_at(tmp_path: Path) -> None:
    """Each file of a folder that lets us in; one that does not is closed as a whole, whatever is in it."""
    store, secret = tmp_path / "credstore", tmp_path / "credstore" / "salesforce-sync.SF_CLIENT_SECRET"
    store.mkdir()
    (store / "another.service").write_text("x")
    stores = (store, tmp_path / "credstore.encrypted")
    assert [f.state for f in local.secret_files(tmp_path, None, stores=stores)] == ["ok"]
    secret.write_text("x")
    secret.chmod(0o640)
    (found,) = local.secret_files(tmp_path, None, stores=stores)
    assert (found.state, found.mend) == ("warn", f"chmod 600 {secret}")
    assert [f.state for f in local.secret_files(tmp_path, None, fix=True, stores=stores)] == ["ok"]
    assert secret.stat().st_mode & 0o777 == 0o600


def test_every_finding_that_is_not_well_says_what_to_do() -> None:
    """As its mend, or in the words of an error of ours, which name the next step."""
    calls = 0
    for path in sorted((Path(__file__).parents[2] / "connector" / "doctor").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding"):
                continue
            _, state, message, *mend = map(ast.unparse, call.args)
            if state != "'ok'":
                calls += 1
                assert mend or message == "str(error)", f"{path.name}:{call.lineno}: {message}"
    assert calls > 40

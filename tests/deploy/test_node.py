"""A node's life: installed, changed, killed, hung, rebooted, upgraded, rolled back, uninstalled. `make test-deploy`.

One node goes through all of it in this order, since each state comes out of the one before.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.store.migrate import SCHEMA_VERSION
from tests.deploy.container import Node, checkout, wheels
from tests.e2e.waiting import until

pytestmark = [pytest.mark.timeout(900), pytest.mark.deploy]

SERVICE = "salesforce-sync.service"
OLD, NEW, BROKEN, MIGRATED = "/root/old", "/root/new", "/root/broken", "/root/migrated"
REPLICA = "/var/lib/salesforce-sync/data/salesforce.db"
BIN = "/opt/salesforce-sync/current/bin"
CREDENTIALS = ("3MVG9DevOrgClientId", "DevOrgClientSecret")
ROOT_TOPIC = "blackroad/salesforce"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Booted, with checkouts: an earlier version, this one, one that cannot start, one with a new schema."""
    with Node(tmp_path_factory.mktemp("node")) as booted:
        for place in (OLD, NEW, BROKEN, MIGRATED):
            checkout(booted.root / place.lstrip("/"))
        older = booted.root / OLD.lstrip("/") / "pyproject.toml"
        older.write_text(re.sub(r'(?m)^version = ".*"', 'version = "0.0.9"', older.read_text()))
        daemon = booted.root / BROKEN.lstrip("/") / "connector" / "cli" / "daemon.py"
        daemon.write_text(daemon.read_text() + '\nraise SystemExit("this release cannot start")\n')
        steps = booted.root / MIGRATED.lstrip("/") / "connector" / "store" / "sql" / "migrations"
        (steps / f"{SCHEMA_VERSION + 1:04}_newer.sql").write_text("CREATE TABLE newer (x INTEGER) STRICT;\n")
        _copy(wheels(), booted.root / "root" / "wheels")
        yield booted


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def install(node: Node, tree: str, *options: str, check: bool = True) -> str:
    return node.run(f"{tree}/deploy/install.sh", "--wheels", "/root/wheels", *options, check=check)


def until_active(node: Node, state: str = "active") -> None:
    until(lambda: node.property(SERVICE, "ActiveState") == state, 60.0, say=lambda: node.journal(SERVICE))


def release(node: Node) -> str:
    return node.run("readlink", "-f", "/opt/salesforce-sync/current").strip().rpartition("/")[2]


def start_org(node: Node) -> None:
    """The local org, on the node like everything else, run from a release that stays."""
    node.run(
        *("systemd-run", "--quiet", "--collect", "--unit=org", "--property=Restart=on-failure"),
        *(f"{BIN}/python", "-m", "connector.devorg", "--port", "8620", "--directory", "/var/lib/org"),
    )
    until(lambda: node.succeeds(f"{BIN}/salesforce-sync", "devorg", "info"), 60.0, say=lambda: node.journal("org"))


def edit(node: Node, name: str) -> str:
    """Create a contact in the org; its id."""
    told = node.run(f"{BIN}/salesforce-sync", "devorg", "create", "Contact", f"LastName={name}")
    found = re.search(r"\b003[0-9A-Za-z]{15}\b", told)
    assert found, told
    return found[0]


def flows(node: Node, name: str) -> None:
    """A change in the org arrives in the replica."""
    record_id = edit(node, name)

    def there() -> bool:
        told = node.run("salesforce-sync", "get", "Contact", record_id, "--json", check=False)
        return f'"{name}"' in told

    until(there, 40.0, say=lambda: node.journal(SERVICE))


def records(node: Node) -> int:
    told = node.run("salesforce-sync", "status", "--json")
    count: int = json.loads(told)["replica"]["objects"]["Contact"]["records"]
    return count


def newest_version(node: Node) -> int:
    version: int = json.loads(node.run("salesforce-sync", "status", "--json"))["replica"]["version"]
    return version


def schema(node: Node) -> int:
    """Of the replica, as any program reads it."""
    look = "import sqlite3, sys; file = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True); "
    look += "print(*file.execute('PRAGMA user_version').fetchone())"
    return int(node.run("python3", "-c", look, REPLICA))


def test_a_first_installation_waits_for_its_secrets(node: Node) -> None:
    """Everything is in place, broker included; without secrets the service is not started into a failure."""
    told = install(node, OLD, "--instance-url", "http://127.0.0.1:8620")
    assert "no secrets yet" in told
    assert node.property(SERVICE, "ActiveState") == "inactive"
    assert node.property(SERVICE, "UnitFileState") == "enabled"
    assert node.property("mosquitto.service", "ActiveState") == "active"
    assert node.property("mosquitto.service", "User") == "mosquitto"
    assert "0.0.9" in release(node)
    for timer in ("salesforce-sync-backup.timer", "salesforce-sync-verify.timer"):
        assert node.property(timer, "ActiveState") == "active"
    assert "SystemMaxUse=200M" in node.run("systemd-analyze", "cat-config", "systemd/journald.conf")


def test_with_secrets_it_becomes_ready(node: Node) -> None:
    """`systemctl start` returned because READY came; the status line says how things are; secrets are root's."""
    start_org(node)
    node.put(
        "/root/secrets", "\n".join(f"SF_CLIENT_{k}={v}" for k, v in zip(("ID", "SECRET"), CREDENTIALS, strict=True))
    )
    install(node, OLD, "--secrets", "/root/secrets")
    assert node.property(SERVICE, "ActiveState") == "active"
    assert node.property(SERVICE, "Type") == "notify"
    until(lambda: node.property(SERVICE, "StatusText") == "stream live, broker connected", 40.0)
    assert node.property(SERVICE, "WatchdogUSec") == "2min"
    modes = node.run("stat", "-c", "%a %U %n", "/etc/credstore", "/etc/credstore/salesforce-sync.SF_CLIENT_SECRET")
    assert [line.split()[:2] for line in modes.splitlines()] == [["700", "root"], ["600", "root"]]
    assert node.run("stat", "-c", "%a %U", "/var/lib/salesforce-sync", REPLICA).split() == [
        "700",
        "salesforce-sync",
        "600",
        "salesforce-sync",
    ]


def test_a_change_flows(node: Node) -> None:
    """From the org over the daemon in its sandbox to a subscriber on the TLS port, who is a user of the broker."""
    shared = f"{NEW}/deploy/mosquitto/service-user.sh"
    key = node.run(shared, "add", "billing", "service").strip().splitlines()[-1]
    node.run(
        *("systemd-run", "--quiet", "--collect", "--unit=subscriber", "--property=StandardOutput=file:/root/received"),
        *("mosquitto_sub", "-h", "localhost", "-p", "8883", "--cafile", "/etc/salesforce-sync/mosquitto/tls/ca.crt"),
        *("-u", "billing", "-P", key, "-t", f"{ROOT_TOPIC}/change/#", "-t", f"{ROOT_TOPIC}/status", "-q", "1", "-v"),
    )
    received = node.root / "root" / "received"
    until(lambda: received.exists() and '"online"' in received.read_text(), 30.0)
    flows(node, "Flowing")
    until(lambda: '"Flowing"' in received.read_text(), 30.0)
    anonymous = ("mosquitto_sub", "-t", "#", "-C", "1", "-W", "5")
    assert "not authorised" in node.run(*anonymous, check=False).lower()


def test_the_service_may_do_what_it_needs_and_no_more(node: Node) -> None:
    """The exposure that the running unit has, drop-ins and all."""
    for unit, most in ((SERVICE, 1.5), ("salesforce-sync-backup.service", 1.5), ("mosquitto.service", 1.5)):
        told = node.run("systemd-analyze", "security", "--no-pager", unit)
        found = re.search(r"exposure level for \S+: ([\d.]+)", told)
        assert found, told
        assert float(found[1]) <= most, told


def test_backup_and_verify_run_as_services(node: Node) -> None:
    """What the timers start: in their own sandboxes, beside the daemon."""
    node.run("systemctl", "start", "salesforce-sync-backup.service")
    copies = list((node.root / "var/lib/salesforce-sync/data/backups").glob("salesforce-*.db"))
    assert len(copies) == 1
    node.run("systemctl", "start", "salesforce-sync-verify.service")
    assert node.property("salesforce-sync-verify.service", "Result") == "success"


def test_killed_it_is_back(node: Node) -> None:
    """Kill -9: systemd starts it again, and changes go on."""
    before = node.property(SERVICE, "MainPID")
    node.run("kill", "-9", before)
    until(lambda: node.property(SERVICE, "MainPID") not in (before, "0"), 60.0)
    until_active(node)
    assert node.property(SERVICE, "NRestarts") == "1"
    flows(node, "Afterkill")


def test_a_hung_loop_is_restarted_by_the_watchdog(node: Node) -> None:
    """Stopped, its event loop turns no more: nothing is told to systemd, which ends it and starts it again."""
    node.put(f"/etc/systemd/system/{SERVICE}.d/test.conf", "[Service]\nWatchdogSec=4s\nTimeoutAbortSec=4s\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", SERVICE)
    before = node.property(SERVICE, "MainPID")
    node.run("kill", "-STOP", before)
    until(lambda: node.property(SERVICE, "MainPID") not in (before, "0"), 60.0, say=lambda: node.journal(SERVICE))
    assert "Watchdog timeout" in node.journal(SERVICE, 200)
    until_active(node)
    (node.root / f"etc/systemd/system/{SERVICE}.d/test.conf").unlink()
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", SERVICE)
    flows(node, "Afterhang")


def test_it_starts_at_boot(node: Node) -> None:
    """With what it had, broker and timers too."""
    before = records(node)
    node.reboot()
    start_org(node)
    until_active(node)
    assert node.property("mosquitto.service", "ActiveState") == "active"
    assert node.property("salesforce-sync-backup.timer", "ActiveState") == "active"
    until(lambda: records(node) == before, 40.0)
    flows(node, "Afterboot")


def test_an_upgrade_keeps_the_data(node: Node) -> None:
    """The new release runs on the replica of the old one, and has a backup from before."""
    before, old = records(node), release(node)
    told = install(node, NEW)
    assert "0.0.9" in old
    assert "0.0.9" not in release(node), told
    assert node.property(SERVICE, "ActiveState") == "active"
    assert records(node) == before
    copy = (node.root / f"opt/salesforce-sync/releases/{release(node)}/came-from").read_text().splitlines()[1]
    assert (node.root / "var/lib/salesforce-sync" / copy).exists()
    flows(node, "Afterupgrade")
    assert "is in place" in install(node, NEW), "once more changes nothing"
    assert records(node) == before + 1


def test_an_upgrade_that_cannot_start_goes_back(node: Node) -> None:
    """By itself, to the release that ran, with everything it had."""
    before, old = records(node), release(node)
    told = install(node, BROKEN, check=False)
    assert "this release cannot start" in told
    assert "went back to" in told
    assert release(node) == old
    assert node.property(SERVICE, "ActiveState") == "active"
    assert records(node) == before
    flows(node, "Afterbroken")


def test_an_upgrade_can_be_rolled_back(node: Node) -> None:
    """By the operator's word, without losing what came since."""
    before = records(node)
    install(node, OLD)
    new = release(node)
    flows(node, "Betweenreleases")
    told = node.run(f"{NEW}/deploy/install.sh", "--rollback")
    assert "in place again" in told
    assert release(node) != new
    assert records(node) == before + 1
    flows(node, "Afterrollback")


def test_a_rollback_over_a_migration_takes_the_backup(node: Node) -> None:
    """The older release cannot read the newer schema: the upgrade's backup comes back, the org tells the rest again."""
    before, old, version = records(node), release(node), newest_version(node)
    install(node, MIGRATED)
    assert schema(node) == SCHEMA_VERSION + 1
    flows(node, "Newerschema")
    told = node.run(f"{NEW}/deploy/install.sh", "--rollback")
    assert "newer schema: back to data/backups/" in told
    assert (release(node), schema(node)) == (old, SCHEMA_VERSION)
    until(lambda: records(node) == before + 1, 60.0, say=lambda: node.journal(SERVICE))
    assert newest_version(node) > version + 1, "a version that the newer release gave out came again"
    flows(node, "Olderschema")


def test_a_backup_is_restored(node: Node) -> None:
    """As docs/operations.md says; what the org told since comes again."""
    now = records(node)
    node.run("systemctl", "stop", SERVICE)
    copies = sorted((node.root / "var/lib/salesforce-sync/data/backups").glob("salesforce-*.db"))
    node.run("salesforce-sync", "restore", f"data/backups/{copies[0].name}")
    assert records(node) < now
    node.run("systemctl", "start", SERVICE)
    until(lambda: records(node) == now, 60.0, say=lambda: node.journal(SERVICE))
    assert json.loads(node.run("salesforce-sync", "status", "--json"))["replica"]["version"] > 1_000_000


def test_uninstalled_it_leaves_the_data(node: Node) -> None:
    """Unless told otherwise."""
    node.run(f"{NEW}/deploy/install.sh", "--uninstall")
    assert node.property(SERVICE, "LoadState") == "not-found"
    assert not (node.root / "opt/salesforce-sync").exists()
    assert (node.root / REPLICA.lstrip("/")).exists()
    assert (node.root / "etc/credstore/salesforce-sync.SF_CLIENT_ID").exists()
    assert node.property("mosquitto.service", "ActiveState") == "active"
    node.run(f"{NEW}/deploy/install.sh", "--uninstall", "--purge")
    for gone in ("var/lib/salesforce-sync", "etc/salesforce-sync", "etc/credstore/salesforce-sync.SF_CLIENT_ID"):
        assert not (node.root / gone).exists()
    assert not node.succeeds("id", "salesforce-sync")

"""The production broker as deploy/mosquitto sets it up: who may publish and read what, and what is refused.

A real Mosquitto with the shipped files; only ports and folders are other ones.
"""

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from connector.mesh.topics import Topics
from connector.model.ids import RecordId
from tests.broker import free_port, mosquitto
from tests.e2e.waiting import until

SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"
NOT_AUTHORIZED = 0x87
TOPICS = Topics()
ROOT = TOPICS.root
RECORD = RecordId("0035f00002KmQ7aAAF")
ROLES = {"billing": "service", "crm": "service", "panel": "reader", "ops": "operator", "copy": "mirror"}
ALL = {"salesforce-sync", "bridge", *ROLES}
SERVICES = {"billing", "crm", "ops"}
READERS = {"billing", "crm", "panel", "ops"}
COPYING = {*READERS, "copy"}

# Topic -> who may publish there, who may read it. Whoever is not named must be refused.
RIGHTS: Mapping[str, tuple[set[str], set[str]]] = {
    TOPICS.status: ({"salesforce-sync"}, {*COPYING, "bridge", "salesforce-sync"}),
    TOPICS.health: ({"salesforce-sync"}, {*READERS, "bridge", "salesforce-sync"}),
    TOPICS.change("Contact", "update", RECORD): ({"salesforce-sync"}, COPYING),
    TOPICS.record("Contact", RECORD): ({"salesforce-sync"}, READERS),
    TOPICS.hole("Contact"): ({"salesforce-sync"}, COPYING),
    TOPICS.mirror("aria"): ({"copy"}, READERS),
    TOPICS.result("crm-1"): ({"salesforce-sync"}, {"ops"}),
    TOPICS.reply("sync"): ({"salesforce-sync"}, {"ops"}),
    TOPICS.rejected: ({"salesforce-sync"}, {"ops"}),
    TOPICS.signals_out: ({"salesforce-sync"}, {"bridge", "ops"}),
    TOPICS.signals_in: ({"bridge"}, {"salesforce-sync"}),
    f"{ROOT}/command/Contact/update": (SERVICES, {"salesforce-sync"}),
    f"{ROOT}/query/Lead/search": (COPYING, {"salesforce-sync"}),
    f"{ROOT}/control/sync": ({"ops", "salesforce-sync"}, {"salesforce-sync"}),
    "billing/inbox": ({"billing", "salesforce-sync"}, {"billing"}),
    "crm/inbox/results": ({"crm", "salesforce-sync"}, {"crm"}),
    f"{ROOT}/reply/client-of-panel": ({"salesforce-sync"}, {"panel", "ops"}),
    # Nobody's: a change with too many levels, a root that only looks like ours, the broker's own.
    f"{ROOT}/change/Contact/update/{RECORD}/more": (set(), set()),
    f"{ROOT}/command": (set(), set()),
    "blackroad/salesforce-other/change/Contact/update/x": (set(), set()),
    "blackroad/signals/OS/ELSE": (set(), set()),
    "elsewhere": (set(), set()),
}


class Node:
    """The broker and its users' passwords."""

    def __init__(self, folder: Path, roles: Mapping[str, str] = ROLES) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self.passwords: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._more = ""
        self._set_up(roles)

    def bridge_to(self, other: "Node", part: str) -> None:
        """Append a part of the shipped example, with what an operator fills in; before the start."""
        lines = (SHIPPED / "bridge.conf.example").read_text().partition(f"# --- On {part}.")[2].partition("# --- ")[0]
        text = lines.partition("\n")[2]
        user = re.search(r"remote_username (\S+)", text)
        assert user is not None
        text = text.replace("FILL-IN", other.passwords[user[1]])
        text = re.sub(r"address \S+", f"address 127.0.0.1:{other.tls_port}", text)
        text = re.sub(r"bridge_cafile \S+", f"bridge_cafile {other.folder / 'tls' / 'server.crt'}", text)
        self._more = re.sub(r"restart_timeout .*", "restart_timeout 1 2", text)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """An orderly end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def _set_up(self, roles: Mapping[str, str]) -> None:
        (self.folder / "tls").mkdir()
        (self.folder / "data").mkdir()
        for name in ("passwords", "acl"):
            (self.folder / name).touch(mode=0o600)
        (self.folder / "acl").write_text((SHIPPED / "acl").read_text())
        for name in ("salesforce-sync", "bridge"):
            self.passwords[name] = self.shared("password", name)
        for name, role in roles.items():
            self.passwords[name] = self.shared("add", name, role)
        self._certificate()

    def start(self) -> None:
        """Start; returns once both listeners answer."""
        text = (SHIPPED / "mosquitto.conf").read_text().replace("/etc/salesforce-sync/mosquitto", str(self.folder))
        text = text.replace("/var/lib/mosquitto/", f"{self.folder / 'data'}/")
        text = text.replace("listener 1883 127.0.0.1", f"listener {self.port} 127.0.0.1")
        text = text.replace("listener 8883\n", f"listener {self.tls_port} 127.0.0.1\n")
        config = self.folder / "mosquitto.conf"
        config.write_text(text + "user root\n" + self._more)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([mosquitto(), "-c", str(config)], stdout=log, stderr=log)  # noqa: S603 - our own arguments
        try:
            until(self._answers, say=(self.folder / "log").read_text)
        except AssertionError:
            self.stop()
            raise

    def shared(self, *arguments: str, check: bool = True) -> str:
        """What `service-user.sh` prints."""
        done = subprocess.run(  # noqa: S603 - our own arguments
            [str(SHIPPED / "service-user.sh"), *arguments],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SALESFORCE_SYNC_BROKER": str(self.folder)},
            capture_output=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return (done.stdout if check else done.stderr).decode().strip()

    def reload(self) -> None:
        """As `systemctl reload mosquitto`."""
        assert self._process is not None
        self._process.send_signal(1)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        return _listens(self.port) and _listens(self.tls_port)

    def _certificate(self) -> None:
        out = self.folder / "tls"
        subprocess.run(  # noqa: S603 - our own arguments
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
                *("-keyout", str(out / "server.key"), "-out", str(out / "server.crt")),
            ],
            check=True,
            capture_output=True,
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class User:
    """A user's connection, subscribed to everything that it names; MQTT 5, since that tells refusals."""

    def __init__(self, node: Node, name: str | None, *filters: str, tls: ssl.SSLContext | None = None) -> None:
        self._node, self._name, self._filters, self._tls = node, name, filters, tls
        self._ready = threading.Event()
        self._codes: dict[int, int] = {}
        self.refusal: str | None = None
        self.received: list[str] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=f"client-of-{name}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.on_connect = self._on_connect
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda _c, _d, message: self.received.append(message.topic)

    def __enter__(self) -> Self:
        if self._name is not None:
            self.client.username_pw_set(self._name, self._node.passwords.get(self._name, "wrong"))
        if self._tls is not None:
            self.client.tls_set_context(self._tls)
        self.client.connect("127.0.0.1", self._node.tls_port if self._tls else self._node.port)
        self.client.loop_start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def may_publish(self, topic: str, *, retain: bool = False) -> bool:
        """Publish; False if the broker refused it."""
        number = self.client.publish(topic, b"x", qos=1, retain=retain).mid
        until(lambda: number in self._codes)
        assert self._codes[number] < 0x80 or self._codes[number] == NOT_AUTHORIZED
        return self._codes[number] != NOT_AUTHORIZED

    def _on_connect(self, client: Client, _data: object, _flags: object, code: Any, _props: object) -> None:
        if code.is_failure:
            self.refusal = str(code)
            client.disconnect()
            self._ready.set()
        elif self._filters:
            client.subscribe([(f, 1) for f in self._filters])
        else:
            self._ready.set()

    def _on_publish(self, _client: object, _data: object, mid: int, code: Any, _props: object) -> None:
        self._codes[mid] = code.value


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_user_publishes_where_its_role_may_and_nowhere_else(node: Node, name: str) -> None:
    """Only the connector tells changes; only the Bridge speaks for OS; readers write no commands."""
    with User(node, name) as user:
        allowed = {topic for topic in RIGHTS if user.may_publish(topic)}
    assert allowed == {topic for topic, (publishers, _) in RIGHTS.items() if name in publishers}


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_user_receives_what_its_role_may_and_nothing_else(node: Node, name: str) -> None:
    """Subscribed to everything; Mosquitto checks each message as it delivers it."""
    readable = {topic for topic, (_, readers) in RIGHTS.items() if name in readers}
    published = {topic for topic, (publishers, _) in RIGHTS.items() if publishers}
    with User(node, name, "#") as user:
        for publisher in sorted(ALL):
            mine = [topic for topic, (who, _) in RIGHTS.items() if publisher == min(who, default="")]
            if publisher == name:
                for topic in mine:
                    assert user.may_publish(topic)
            else:
                with User(node, publisher) as other:
                    for topic in mine:
                        assert other.may_publish(topic)
        until(lambda: set(user.received) >= readable & published, say=lambda: str(readable - set(user.received)))
        # Deliveries come in order: after a message of its own nothing of before is under way any more.
        assert user.may_publish(f"{name}/inbox/last")
        until(lambda: f"{name}/inbox/last" in user.received)
    assert set(user.received) - {f"{name}/inbox/last"} == readable & published


def test_the_connector_may_subscribe_to_what_it_serves_and_publish_what_it_tells() -> None:
    """The table of rights speaks of every topic that the code knows."""
    told = {t for t, (who, _) in RIGHTS.items() if "salesforce-sync" in who and t.startswith("blackroad/")}
    assert {TOPICS.status, TOPICS.health, TOPICS.rejected, TOPICS.signals_out} <= told
    for wanted in TOPICS.subscriptions():
        served = wanted.removesuffix("/#")
        assert any(t.startswith(served) and "salesforce-sync" in readers for t, (_, readers) in RIGHTS.items()), wanted


def test_whoever_has_no_password_is_refused(node: Node) -> None:
    """No anonymous client, no wrong password, on either listener."""
    context = ssl.create_default_context(cafile=str(node.folder / "tls" / "server.crt"))
    for name, tls in ((None, None), ("nobody", None), (None, context)):
        with User(node, name, tls=tls) as user:
            assert user.refusal is not None
            assert "authorized" in user.refusal.lower()


def test_tls_is_served_and_old_versions_are_not(node: Node) -> None:
    """The certificate is checked by the client; TLS 1.1 finds no listener."""
    trusted = ssl.create_default_context(cafile=str(node.folder / "tls" / "server.crt"))
    with User(node, "billing", tls=trusted) as user:
        assert user.may_publish(f"{ROOT}/command/Contact/update")
    with (
        socket.create_connection(("127.0.0.1", node.tls_port)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")
    offered = subprocess.run(  # noqa: S603 - our own arguments
        ["openssl", "s_client", "-connect", f"127.0.0.1:{node.tls_port}", "-tls1_1", "-cipher", "ALL@SECLEVEL=0"],  # noqa: S607
        input=b"",
        capture_output=True,
        check=False,
    )
    assert offered.returncode != 0


def test_the_password_file_holds_hashes(node: Node) -> None:
    """A backup of the card tells no passwords."""
    text = (node.folder / "passwords").read_text()
    assert len(text.splitlines()) == len(ALL)
    assert not [name for name, password in node.passwords.items() if password in text]
    assert (node.folder / "passwords").stat().st_mode & 0o077 == 0


def test_users_come_and_go_without_a_restart(node: Node) -> None:
    """Added, given a new password, removed; each after a reload."""
    node.passwords["guest"] = node.shared("add", "guest", "reader")
    node.reload()
    with User(node, "guest") as user:
        assert user.may_publish(f"{ROOT}/query/Lead/search")
        assert not user.may_publish(f"{ROOT}/command/Lead/create")
    assert "there already" in node.shared("add", "guest", "reader", check=False)
    old, node.passwords["guest"] = node.passwords["guest"], node.shared("password", "guest")
    assert old != node.passwords["guest"]
    node.reload()
    with User(node, "guest") as user:
        assert user.refusal is None
    node.shared("remove", "guest")
    node.reload()
    with User(node, "guest") as user:
        assert user.refusal is not None
    del node.passwords["guest"]
    assert "user guest" not in (node.folder / "acl").read_text()
    assert (node.folder / "acl").read_text().count("user ") >= len(ALL)


@pytest.mark.parametrize(
    "arguments", [("add", "a+b", "reader"), ("add", "x", "god"), ("remove", "bridge"), ("shout", "x")]
)
def test_what_makes_no_sense_is_refused(node: Node, arguments: tuple[str, ...]) -> None:
    """A wildcard in a name would be a right to everybody's inbox."""
    before = (node.folder / "acl").read_text()
    assert "service-user: " in node.shared(*arguments, check=False)
    assert (node.folder / "acl").read_text() == before


def test_bridged_brokers_carry_changes_one_way_and_commands_the_other(tmp_path: Path) -> None:
    """The shipped example between two shipped brokers, over TLS: what is told while the other node is away arrives."""
    folders = tmp_path / "lucidia", tmp_path / "aria"
    for folder in folders:
        folder.mkdir()
    lucidia = Node(folders[0], {"aria": "service"})
    aria = Node(folders[1], {"lucidia": "upstream", "billing": "service"})
    lucidia.bridge_to(aria, "lucidia")
    aria.bridge_to(lucidia, "aria")
    change, command = TOPICS.change("Contact", "update", RECORD), f"{ROOT}/command/Contact/update"
    with lucidia, User(lucidia, "salesforce-sync", f"{ROOT}/command/#") as connector:
        with aria, User(aria, "billing", "#") as billing:
            assert connector.may_publish(change)
            until(lambda: change in billing.received, 30.0)
            assert billing.may_publish(command)
            until(lambda: command in connector.received, 30.0)
            assert connector.may_publish("billing/inbox")
            until(lambda: "billing/inbox" in billing.received)
            assert not billing.may_publish(change)
        assert connector.may_publish(TOPICS.status, retain=True)
        with aria, User(aria, "billing", TOPICS.status) as back:
            until(lambda: TOPICS.status in back.received, 30.0)

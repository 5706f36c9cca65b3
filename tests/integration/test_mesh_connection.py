"""The connection to a real broker: pipelining, acknowledgement, sessions, faults."""

import asyncio
import contextlib
import ipaddress
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from connector.errors import BrokerRefused, ConfigError, LinkDown, PoisonError
from connector.mesh import connection as connection_module
from connector.mesh.client import RECEIVE_MAXIMUM
from connector.mesh.connection import INBOX_LIMIT_QOS0, MeshConnection, probe
from connector.mesh.roles import connector_role
from connector.mesh.topics import Topics
from connector.model.message import Delivery, Message
from connector.settings import MqttSettings, Secrets
from tests.broker import Broker, BrokerOptions
from tests.conftest import BrokerFactory
from tests.mesh import Service
from tests.waiting import until

ROOT = "blackroad/salesforce"
TOPICS = Topics(root=ROOT)


def settings_for(broker: Broker, protocol: str = "5", keepalive_s: float = 30) -> MqttSettings:
    return MqttSettings.model_validate(
        {
            "host": broker.host,
            "port": broker.port,
            "protocol": protocol,
            "keepalive": timedelta(seconds=keepalive_s),
            "max_payload": 2048,
        }
    )


def connection_for(
    broker: Broker, protocol: str = "5", keepalive_s: float = 30, secrets: Secrets | None = None, **more: Any
) -> MeshConnection:
    """The connector's, but for its subscription to its own status: what services send is all that comes."""
    settings = settings_for(broker, protocol, keepalive_s).model_copy(update=more)
    role = connector_role(settings, TOPICS, node="test", version="0.1.0")
    return MeshConnection(
        settings,
        secrets or Secrets(),
        replace(role, filters=tuple(f for f in role.filters if f != TOPICS.status)),
        now_ms=lambda: time.time_ns() // 1_000_000,
        rng=random.Random(1),
        backoff_max_s=0.5,
    )


@asynccontextmanager
async def running(mesh: MeshConnection) -> AsyncIterator[MeshConnection]:
    """The connection, up and kept up."""
    async with mesh:
        keeper = asyncio.create_task(mesh.run())
        try:
            async with asyncio.timeout(10):
                await mesh.wait_connected()
            yield mesh
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper


def numbered(count: int, first: int = 0) -> list[Message]:
    return [Message(topic="test/out", payload=str(first + i).encode()) for i in range(count)]


async def take(mesh: MeshConnection, count: int) -> list[Delivery]:
    """The next deliveries, waited for."""
    taken: list[Delivery] = []
    deliveries = mesh.deliveries()
    async with asyncio.timeout(10):
        while len(taken) < count:
            taken.append(await anext(deliveries))
    return taken


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_thousands_of_pipelined_publishes_arrive_in_order(broker: Broker, protocol: str) -> None:
    """Concurrent publishes keep the order of the calls, each acknowledged."""
    async with Service(broker, "test/out") as service, running(connection_for(broker, protocol)) as mesh:
        await asyncio.gather(*(mesh.publish(m) for m in numbered(5000)))
        messages = await service.wait_for("test/out", 5000)
    assert [int(m.payload) for m in messages] == list(range(5000))


async def test_content_type_and_correlation_travel_as_properties(broker: Broker) -> None:
    """MQTT 5 messages set Content Type, and Correlation Data where there is one."""
    async with Service(broker, "test/out") as service, running(connection_for(broker)) as mesh:
        message = Message(topic="test/out", payload=b"{}", content_type="application/x", correlation=b"\x00\xff")
        await mesh.publish(message)
        (got,) = await service.wait_for("test/out")
    assert got.properties is not None
    sent = got.properties.json()  # type: ignore[no-untyped-call]  # paho's own lacks the annotation
    assert (sent["ContentType"], sent["CorrelationData"]) == ("application/x", "00ff")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_birth_and_last_message_share_the_retained_status_topic(broker: Broker, protocol: str) -> None:
    """Online while connected, offline with a time after an orderly end."""
    async with Service(broker, TOPICS.status) as service:
        async with running(connection_for(broker, protocol)) as mesh:
            assert mesh.connected
            assert (await service.document(TOPICS.status))["state"] == "online"
        documents = [orjson.loads(m.payload) for m in await service.wait_for(TOPICS.status, 2)]
    async with Service(broker, TOPICS.status) as late:
        retained = await late.document(TOPICS.status)
    assert [d["state"] for d in documents] == ["online", "offline"]
    assert retained == documents[1]
    assert retained["since"] is not None


async def test_kill_of_the_process_publishes_the_will(broker: Broker, tmp_path: Path) -> None:
    """SIGKILL: the broker publishes the will, retained."""
    script = tmp_path / "victim.py"
    script.write_text(
        "import asyncio\n"
        "from tests.integration.test_mesh_connection import connection_for, running\n"
        "class B: host, port = '127.0.0.1', int(__import__('sys').argv[1])\n"
        "async def main():\n"
        "    async with running(connection_for(B())):\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with Service(broker, TOPICS.status) as service:
        victim = await asyncio.create_subprocess_exec(
            sys.executable, str(script), str(broker.port), env={"PYTHONPATH": str(Path.cwd())}
        )
        try:
            await service.wait_for(TOPICS.status, 1)
        finally:
            victim.kill()
            await victim.wait()
        await service.wait_for(TOPICS.status, 2)
        assert await service.document(TOPICS.status) == {
            "state": "offline",
            "node": "test",
            "version": "0.1.0",
            "since": None,
        }


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_commands_sent_while_away_are_delivered(broker: Broker, protocol: str) -> None:
    """The broker keeps our session: what was sent while we were away arrives."""
    async with running(connection_for(broker, protocol)):
        pass
    async with Service(broker) as service:
        for number in range(3):
            await service.send(f"{ROOT}/command/Contact/update", {"n": number})
    async with running(connection_for(broker, protocol)) as mesh:
        deliveries = await take(mesh, 3)
    assert [orjson.loads(d.payload)["n"] for d in deliveries] == [0, 1, 2]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_was_not_acknowledged_is_delivered_again(broker: Broker, protocol: str) -> None:
    """Only acknowledged deliveries are gone; the others come again, marked as duplicates."""
    async with Service(broker) as service:
        async with running(connection_for(broker, protocol)) as mesh:
            for number in range(3):
                await service.send(f"{ROOT}/command/Contact/update", {"n": number})
            first = await take(mesh, 3)
            mesh.acknowledge(first[0])
            await mesh.publish(Message(topic="test/after", payload=b""))  # the PUBACK left before this one
        async with running(connection_for(broker, protocol)) as mesh:
            again = await take(mesh, 2)
            for delivery in again:
                mesh.acknowledge(delivery)
            await mesh.publish(Message(topic="test/after", payload=b""))
    assert [orjson.loads(d.payload)["n"] for d in again] == [1, 2]
    assert all(d.duplicate for d in again)
    assert [d.packet_id for d in again] == [d.packet_id for d in first[1:]]


async def test_acknowledgements_leave_in_the_order_of_arrival(broker: Broker) -> None:
    """A later delivery that is finished first is acknowledged after the earlier one (MQTT 5 section 4.6)."""
    async with Service(broker) as service:
        async with running(connection_for(broker)) as mesh:
            for number in range(2):
                await service.send(f"{ROOT}/command/Contact/update", {"n": number})
            _, second = await take(mesh, 2)
            mesh.acknowledge(second)
            await mesh.publish(Message(topic="test/after", payload=b""))
        async with running(connection_for(broker)) as mesh:
            again = await take(mesh, 2)
    assert [orjson.loads(d.payload)["n"] for d in again] == [0, 1]


async def test_request_properties_and_retain_flag_arrive(broker: Broker) -> None:
    """Response Topic, Correlation Data and the retain flag of a live message are told."""
    async with Service(broker) as service, running(connection_for(broker)) as mesh:
        await service.send(f"{ROOT}/control/status", b"", response_topic="a/b", correlation=b"\x01", retain=False)
        await service.send(f"{ROOT}/control/status", b"{}", retain=True)
        live, retained = await take(mesh, 2)
    assert (live.response_topic, live.correlation, live.retained) == ("a/b", b"\x01", False)
    assert retained.retained


async def test_oversized_delivery_arrives_cut_to_one_byte_too_many(broker: Broker) -> None:
    """So that it can be refused with an answer, without holding it in memory."""
    async with Service(broker) as service, running(connection_for(broker)) as mesh:
        await service.send(f"{ROOT}/command/Contact/update", b"x" * 10_000)
        (delivery,) = await take(mesh, 1)
        assert len(delivery.payload) == mesh.max_payload_bytes + 1


async def test_broker_killed_and_back_with_its_memory(broker: Broker) -> None:
    """Pending publishes fail with LinkDown; after the reconnect the rest goes out in order."""
    forgotten: list[bool] = []
    mesh = connection_for(broker)
    mesh.on_connected.append(forgotten.append)
    async with running(mesh):
        await asyncio.gather(*(mesh.publish(m) for m in numbered(100)))
        await broker.stop()
        await until(lambda: not mesh.connected)
        with pytest.raises(LinkDown):
            await mesh.publish(numbered(1)[0])
        await broker.start()
        await until(lambda: mesh.connected)
        async with Service(broker, "test/out", TOPICS.status) as service:
            await asyncio.gather(*(mesh.publish(m) for m in numbered(100, 100)))
            messages = await service.wait_for("test/out", 100)
            assert (await service.document(TOPICS.status))["state"] == "online"
    assert [int(m.payload) for m in messages] == list(range(100, 200))
    assert forgotten == [True, False]


async def test_broker_back_without_its_memory_is_told_as_forgotten(broker: Broker) -> None:
    """Subscriptions and birth message are put back, and whoever keeps retained topics is told."""
    forgotten: list[bool] = []
    mesh = connection_for(broker)
    mesh.on_connected.append(forgotten.append)
    async with running(mesh):
        await broker.kill()
        broker.forget()
        await broker.start()
        await until(lambda: len(forgotten) == 2)
        async with Service(broker, TOPICS.status) as service:
            assert (await service.document(TOPICS.status))["state"] == "online"
            await service.send(f"{ROOT}/query/Contact/get", b"{}")
            assert (await take(mesh, 1))[0].topic == f"{ROOT}/query/Contact/get"
    assert forgotten == [True, True]


async def test_kill_under_load_fails_what_was_not_acknowledged(broker: Broker) -> None:
    """No publish hangs: each is acknowledged or LinkDown."""
    async with running(connection_for(broker)) as mesh:
        publishes = [asyncio.create_task(mesh.publish(m)) for m in numbered(3000)]
        await until(publishes[200].done)
        await broker.kill()
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)
        failed = [i for i, outcome in enumerate(outcomes) if outcome is not None]
    assert failed
    assert all(isinstance(outcomes[i], LinkDown) for i in failed)
    assert failed == list(range(failed[0], 3000))


async def test_frozen_broker_is_noticed(broker: Broker) -> None:
    """SIGSTOP: the socket stays open; keepalive ends the link and a pending publish with it."""
    async with running(connection_for(broker, keepalive_s=1)) as mesh:
        broker.freeze()
        with pytest.raises(LinkDown):
            async with asyncio.timeout(10):
                await mesh.publish(numbered(1)[0])
        assert not mesh.connected
        broker.thaw()
        await until(lambda: mesh.connected)
        await mesh.publish(numbered(1)[0])


async def test_a_connection_that_is_tried_does_not_hang(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is fed while the broker lives or is dialled, however long it is down, and not when nobody dials."""
    mesh = connection_for(broker, keepalive_s=1)
    mesh._backoff_max_s = 0.5
    usual_s = mesh._backoff_max_s + 2 + 4 * connection_module.CONNECT_TIMEOUT_S
    monkeypatch.setattr(connection_module, "_PATIENCE_S", 3 - usual_s)  # three seconds in all
    loop = asyncio.get_running_loop()
    async with running(mesh):
        began_s = loop.time()
        await until(lambda: loop.time() - began_s > 4 or mesh.hangs())
        assert not mesh.hangs()
        await broker.kill()
        began_s = loop.time()
        await until(lambda: loop.time() - began_s > 4 or mesh.hangs())
        assert not mesh.hangs()
    # The task that dials has ended with the context.
    await until(mesh.hangs)


async def test_acl_refusal_is_poison_for_that_message_only(make_broker: BrokerFactory) -> None:
    """PUBACK with `not authorised`: PoisonError; other topics go on."""
    acl = ["user sync", "topic write test/out", f"topic readwrite {ROOT}/#"]
    broker = await make_broker(BrokerOptions(users={"sync": "geheim"}, acl=acl))
    secrets = Secrets(mqtt_username="sync", mqtt_password=SecretStr("geheim"))
    async with running(connection_for(broker, secrets=secrets)) as mesh:
        with pytest.raises(PoisonError, match=r"(?i)not authorized"):
            await mesh.publish(Message(topic="elsewhere", payload=b""))
        await mesh.publish(numbered(1)[0])


async def test_message_above_the_brokers_maximum_is_poison(make_broker: BrokerFactory) -> None:
    """It would cost the connection: refused before it is sent."""
    broker = await make_broker(BrokerOptions(extra=["max_packet_size 5000"]))
    async with running(connection_for(broker)) as mesh:
        with pytest.raises(PoisonError, match="5000"):
            await mesh.publish(Message(topic="test/out", payload=b"x" * 5000))
        await mesh.publish(Message(topic="test/out", payload=b"x" * 4000))


async def test_a_wildcard_in_a_topic_is_poison(broker: Broker) -> None:
    """A topic that MQTT does not allow is this message's fault, not the connection's."""
    async with running(connection_for(broker)) as mesh:
        with pytest.raises(PoisonError):
            await mesh.publish(Message(topic="test/#", payload=b""))
        await mesh.publish(numbered(1)[0])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_bad_credentials_are_refused_for_good(make_broker: BrokerFactory, protocol: str) -> None:
    """A person must act: `run` raises instead of repeating."""
    broker = await make_broker(BrokerOptions(users={"sync": "geheim"}))
    secrets = Secrets(mqtt_username="sync", mqtt_password=SecretStr("falsch"))
    async with connection_for(broker, protocol, secrets=secrets) as mesh:
        with pytest.raises(BrokerRefused):
            async with asyncio.timeout(10):
                await mesh.run()
    with pytest.raises(BrokerRefused):
        await probe(settings_for(broker, protocol), secrets, "test-probe")


def certificate(directory: Path, host: str) -> tuple[Path, Path]:
    """A self-signed certificate, which is its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem", directory / "key.pem"


async def test_tls_with_a_ca_file(make_broker: BrokerFactory, tmp_path: Path) -> None:
    """Pipelined publishes and a burst of deliveries over TLS, whose buffer hides bytes from the socket."""
    cert = certificate(tmp_path, "127.0.0.1")
    broker = await make_broker(BrokerOptions(cert=cert))
    mesh = connection_for(broker, tls=True, ca_file=str(cert[0]))
    async with running(mesh):
        await asyncio.gather(*(mesh.publish(m) for m in numbered(1000)))
        sends = [Message(topic=f"{ROOT}/query/Contact/get", payload=str(i).encode()) for i in range(150)]
        await asyncio.gather(*(mesh.publish(m) for m in sends))
        got = await take(mesh, 150)
    assert [int(d.payload) for d in got] == list(range(150))


async def test_tls_with_an_unknown_ca_is_linkdown(make_broker: BrokerFactory, tmp_path: Path) -> None:
    """Waited out with the reason: on a device without a clock the certificate may become valid in a moment."""
    broker = await make_broker(BrokerOptions(cert=certificate(tmp_path, "127.0.0.1")))
    settings = settings_for(broker).model_copy(update={"tls": True})
    with pytest.raises(LinkDown, match="certificate"):
        await probe(settings, Secrets(), "test-probe")


async def test_missing_ca_file_is_a_settings_error(tmp_path: Path) -> None:
    """Named as such before anything is connected."""
    settings = MqttSettings.model_validate({"tls": True, "ca_file": str(tmp_path / "none.pem")})
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file"):
        await probe(settings, Secrets(), "test-probe")


async def test_a_small_receive_maximum_of_the_broker_is_kept(make_broker: BrokerFactory) -> None:
    """More in flight than the broker takes would end the connection."""
    broker = await make_broker(BrokerOptions(extra=["max_inflight_messages 3"]))
    async with Service(broker, "test/out") as service, running(connection_for(broker)) as mesh:
        await asyncio.gather(*(mesh.publish(m) for m in numbered(500)))
        messages = await service.wait_for("test/out", 500)
        assert mesh.connected
    assert [int(m.payload) for m in messages] == list(range(500))


async def test_unacknowledged_deliveries_are_bounded(broker: Broker) -> None:
    """The broker holds the rest back until some are acknowledged."""
    async with Service(broker) as service, running(connection_for(broker)) as mesh:
        for number in range(RECEIVE_MAXIMUM + 10):
            await service.send(f"{ROOT}/command/Contact/update", b"%d" % number)
        held = await take(mesh, RECEIVE_MAXIMUM)
        await mesh.publish(numbered(1)[0])
        assert mesh._inbox.qsize() == 0
        for delivery in held:
            mesh.acknowledge(delivery)
        rest = await take(mesh, 10)
    assert [int(d.payload) for d in [*held, *rest]] == list(range(RECEIVE_MAXIMUM + 10))


async def test_a_flood_of_qos_0_is_cut_and_crowds_out_nothing(broker: Broker) -> None:
    """The receive maximum does not bound QoS 0: what nobody takes in time is dropped, QoS 1 stays."""
    async with Service(broker) as service, running(connection_for(broker)) as mesh:
        for _ in range(500):
            await service.send(f"{ROOT}/query/Contact/get", b"flood", qos=0)
        await service.send(f"{ROOT}/command/Contact/update", b"command")
        await until(lambda: mesh._inbox.qsize() == INBOX_LIMIT_QOS0 + 1)
        got = await take(mesh, INBOX_LIMIT_QOS0 + 1)
        assert mesh.connected
    assert got[-1].payload == b"command"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_deliveries_beyond_the_inbox_wait_in_the_socket(
    make_broker: BrokerFactory, monkeypatch: pytest.MonkeyPatch, protocol: Literal["5", "3.1.1"]
) -> None:
    """A broker that sends more than was agreed is not read until there is room: nothing is lost."""
    monkeypatch.setattr(connection_module, "INBOX_LIMIT", 4)
    broker = await make_broker(BrokerOptions(extra=["max_inflight_messages 100"]))
    async with Service(broker) as service, running(connection_for(broker, protocol)) as mesh:
        for number in range(50):
            await service.send(f"{ROOT}/command/Contact/update", b"%d" % number)
        await until(lambda: mesh._inbox.qsize() > 4)
        assert mesh._inbox.qsize() < 50
        seen = []
        for delivery in await take(mesh, 50):
            seen.append(int(delivery.payload))
            mesh.acknowledge(delivery)
        assert mesh.connected
        await mesh.publish(numbered(1)[0])
    assert seen == list(range(50))


async def test_a_backlog_of_a_killed_process_is_worked_off(broker: Broker) -> None:
    """Mosquitto sends a session's whole queue once a first PUBACK has come, whatever Receive Maximum says."""
    async with running(connection_for(broker)):
        pass  # makes the session
    async with Service(broker) as service:
        for number in range(1000):
            await service.send(f"{ROOT}/command/Contact/update", b"%d" % number)
        async with running(connection_for(broker)) as mesh:
            seen: list[int] = []
            deliveries = mesh.deliveries()
            async with asyncio.timeout(20):
                while len(seen) < 1000:
                    delivery = await anext(deliveries)
                    mesh.acknowledge(delivery)
                    seen.append(int(delivery.payload))
                    if not len(seen) % 50:
                        await asyncio.sleep(0.01)
                    assert mesh._inbox.qsize() <= 2 * connection_module.INBOX_LIMIT
            assert mesh.connected
    assert seen == list(range(1000))


async def test_refused_topics_of_our_own_are_told(make_broker: BrokerFactory) -> None:
    """A birth that the ACL refuses does not stop the connector; health can tell it."""
    broker = await make_broker(BrokerOptions(users={"sync": "geheim"}, acl=["user sync", "topic write test/out"]))
    secrets = Secrets(mqtt_username="sync", mqtt_password=SecretStr("geheim"))
    async with running(connection_for(broker, secrets=secrets)) as mesh:
        assert mesh.refused == (TOPICS.status,)
        await mesh.publish(numbered(1)[0])


async def test_unanswered_port_is_retried_and_probe_says_so() -> None:
    """Nothing listens: the probe raises LinkDown, `run` goes on trying."""

    class Nobody:
        host = "127.0.0.1"
        port = 9

    settings = MqttSettings.model_validate({"host": Nobody.host, "port": Nobody.port})
    with pytest.raises(LinkDown, match=r"127\.0\.0\.1:9"):
        await probe(settings, Secrets(), "test-probe")


async def test_a_server_that_is_no_broker_is_linkdown() -> None:
    """Garbage instead of CONNACK ends the attempt with LinkDown, nothing else."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        settings = MqttSettings.model_validate({"host": "127.0.0.1", "port": port})
        with pytest.raises(LinkDown):
            async with asyncio.timeout(15):
                await probe(settings, Secrets(), "test-probe")
    finally:
        server.close()

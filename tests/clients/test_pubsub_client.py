"""The published Node client of the Pub/Sub API against the local org: it was written for Salesforce, not for us.

It speaks TLS only, so an end of it stands before the org's port. Skipped without Node.
"""

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from connector.devorg.server import DevOrg
from connector.devorg.tokens import Credentials

# The second is what avro-js, which the client decodes with, needs and does not say.
PACKAGES = ("salesforce-pubsub-api-client@5.5.2", "underscore@1.13.7")
TOPIC = "/data/ContactChangeEvent"
PROGRAM = Path(__file__).with_name("subscriber.mjs")
_CHUNK_BYTES = 65_536

pytestmark = [
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="needs Node and npm"),
    pytest.mark.timeout(300),  # npm fetches a hundred packages
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The subscriber, with the client installed beside it."""
    folder = tmp_path_factory.mktemp("node")
    npm = shutil.which("npm") or ""
    words = [npm, "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
    subprocess.run(words, cwd=folder, check=True, timeout=240)  # noqa: S603 - the published client, at one version
    return Path(shutil.copy(PROGRAM, folder))


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg(pubsub_port=0) as started:
        yield started


def certificate(folder: Path) -> ssl.SSLContext:
    """TLS for localhost as gRPC wants it, by a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def behind_tls(org: DevOrg, folder: Path) -> AsyncIterator[str]:
    """The org's Pub/Sub API with TLS; its host and port."""
    far_port = int(org.ctx.pubsub_url.rpartition(":")[2])

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", far_port)
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=certificate(folder))
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # one of the two has hung up
    finally:
        writer.close()


async def taken(
    program: Path, org: DevOrg, endpoint: str, *, count: int, step: int, after: int | None = None
) -> list[dict[str, Any]]:
    """What the client tells until it has so many events; it logs in with user name and password."""
    known = Credentials()
    login = {
        "authType": "username-password", "loginUrl": org.url, "pubSubEndpoint": endpoint,
        "username": known.username, "password": known.password, "userToken": known.security_token,
    }  # fmt: skip
    order = {"login": login, "topic": TOPIC, "count": count, "step": step, "after": after}
    running = await asyncio.create_subprocess_exec(
        "node", str(program), json.dumps(order), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(40):
            out, err = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode == 0, err.decode()
    return [json.loads(line) for line in out.decode().splitlines()]


def events(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in told if line["kind"] == "event"]


def edit(org: DevOrg, contact: str, **values: Any) -> None:
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.update("Contact", contact, values)


async def test_the_published_client_reads_what_the_local_org_tells(org: DevOrg, program: Path, tmp_path: Path) -> None:
    """Login, topic, schemas, bitmaps and credit as it knows them from Salesforce; two events of credit at a time."""
    values = {"FirstName": "Jane", "LastName": "Doe", "Phone": "1", "MailingCity": "Oslo", "Title": "Dr."}
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        contact = work.create("Contact", values)
    edit(org, contact, FirstName="Maren", Phone=None)
    # With a field beside it: the client overlooks what was cleared where the one bitmap is that of a compound.
    edit(org, contact, MailingCity=None, Title=None, Email="maren@example.com")
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.delete("Contact", contact)
    async with behind_tls(org, tmp_path) as endpoint:
        told = await taken(program, org, endpoint, count=4, step=2)
        found = events(told)
        second = found[1]["replayId"]
        behind = events(await taken(program, org, endpoint, count=2, step=5, after=second))
    created, renamed, moved, deleted = [line["payload"] for line in found]
    headers = [payload["ChangeEventHeader"] for payload in (created, renamed, moved, deleted)]
    assert [header["changeType"] for header in headers] == ["CREATE", "UPDATE", "UPDATE", "DELETE"]
    assert {record for header in headers for record in header["recordIds"]} == {contact}
    assert (created["Name"]["LastName"], created["MailingAddress"]["City"], created["Email"]) == ("Doe", "Oslo", None)
    assert set(headers[1]["changedFields"]) == {"Phone", "LastModifiedDate", "Name.FirstName"}
    assert headers[1]["nulledFields"] == ["Phone"]
    assert renamed["Name"]["FirstName"] == "Maren"
    assert set(headers[2]["changedFields"]) == {"Email", "Title", "LastModifiedDate", "MailingAddress.City"}
    assert set(headers[2]["nulledFields"]) == {"Title", "MailingAddress.City"}
    assert moved["Email"] == "maren@example.com"
    assert [line["kind"] for line in told].count("lastEvent") >= 1
    assert [line["replayId"] for line in behind] == [line["replayId"] for line in found[2:]]

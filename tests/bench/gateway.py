"""A gateway as companies have them: what goes out over TLS is ended here, and goes on to the local org in plain HTTP.

Programs that have `https://login.salesforce.com` written into them reach the local org by it, unchanged: `HTTPS_PROXY`
names the gateway and `REQUESTS_CA_BUNDLE` its certificate. Whatever host is asked for, the org answers.

`python -m tests.bench.gateway --org URL --port N --certificate FILE --key FILE`.
"""

import argparse
import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bench.front import FrontProcess

MY_DOMAIN = "https://devorg.my.salesforce.com"
"""The org's address behind the gateway."""

HOSTS = ("login.salesforce.com", "devorg.my.salesforce.com")
_CHUNK_BYTES = 1 << 16


@contextmanager
def gateway(org_url: str, directory: Path) -> Iterator[dict[str, str]]:
    """Run one, and yield the environment of the programs that are to go through it."""
    certificate, key = _make_certificate(directory)
    words = ["--certificate", str(certificate), "--key", str(key)]
    with FrontProcess("gateway", org_url, words, asked="/") as front:
        # The names in small letters win over the others, and may be set on this machine.
        proxy = {"HTTPS_PROXY": front.url, "https_proxy": front.url, "NO_PROXY": "", "no_proxy": ""}
        yield {**proxy, "REQUESTS_CA_BUNDLE": str(certificate)}


class Gateway:
    """Hands each connection on.

    Args:
        org: Address of the local org, or of what stands before it.
        context: With the certificate.
    """

    def __init__(self, org: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(org)
        self._org = parts.hostname, parts.port
        self._context = context

    async def serve(self, port: int) -> None:
        """Listen until told to end."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        await server.serve_forever()

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"CONNECT "):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await writer.drain()
                await writer.start_tls(self._context)
                await self._tunnel(reader, writer)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    async def _tunnel(self, reader: StreamReader, writer: StreamWriter) -> None:
        from_org, to_org = await asyncio.open_connection(*self._org)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, to_org))
                both.create_task(_copy(from_org, writer))
        except* OSError:
            pass  # one side has gone, or says nothing when the other hangs up
        finally:
            to_org.close()


async def _copy(source: StreamReader, target: StreamWriter) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        target.write(chunk)
        await target.drain()
    target.close()


def _make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for the hosts, which is its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "gateway.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "gateway.key").write_bytes(secret)
    return directory / "gateway.pem", directory / "gateway.key"


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org", required=True, help="address of the local org")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    given = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, given.key)
    asyncio.run(Gateway(given.org, context).serve(given.port))


if __name__ == "__main__":
    main()

"""The connector's door to an org, opened for a test: on the local org or on a server with scripted answers."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import formatdate
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from connector.devorg.server import DevOrg
from connector.ports import Replica
from connector.salesforce.budget import ApiBudget
from connector.salesforce.login import Session
from connector.salesforce.rest import RestClient
from connector.salesforce.token_store import TokenStore
from connector.settings import LimitSettings, SalesforceSettings, Secrets

VERSION = "58.0"
ORG_ID, USER_ID = "00D5f000000Qr8sEAC", "0055f000007NnAbAAK"
GIVEN_TOKEN = "00D5f000000Qr8s!given"


def now_ms() -> int:
    """The real time."""
    return int(time.time() * 1000)


def org_settings(url: str, timeout_s: float = 5.0) -> SalesforceSettings:
    """Settings for an org at `url`."""
    return SalesforceSettings(instance_url=url, timeout=timedelta(seconds=timeout_s))


def secrets_of(org: DevOrg, flow: str = "client_credentials") -> Secrets:
    """Credentials of the local org; the key only for `jwt`: each org makes its own, which takes its time."""
    known = org.ctx.credentials
    return Secrets(
        sf_username=known.username,
        sf_password=SecretStr(known.password),
        sf_security_token=SecretStr(known.security_token),
        sf_client_id=known.client_id,
        sf_client_secret=SecretStr(known.client_secret),
        sf_private_key_file=str(org.keys.private_key_file()) if flow == "jwt" else "",
        sf_refresh_token=SecretStr(known.refresh_token),
        sf_access_token=SecretStr(org.ctx.tokens.default_access_token),
    )


def org_session(org: DevOrg, flow: str = "client_credentials", *, store: TokenStore | None = None) -> Session:
    """A session with the local org."""
    return Session(org_settings(org.url), secrets_of(org, flow), flow, now_ms=now_ms, store=store)


@dataclass(kw_only=True)
class Door:
    """The parts that a test talks to."""

    session: Session
    budget: ApiBudget
    rest: RestClient


@asynccontextmanager
async def opened(
    session: Session, *, limits: LimitSettings | None = None, replica: Replica | None = None, timeout_s: float = 5.0
) -> AsyncIterator[Door]:
    """The door over a session, closed at the end."""
    async with (
        session,
        ApiBudget(limits or LimitSettings(), replica, now_ms=now_ms) as budget,
        RestClient(session, budget, api_version=VERSION, timeout_s=timeout_s) as rest,
    ):
        yield Door(session=session, budget=budget, rest=rest)


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Scripted:
    """A server that gives the answers it was told, in order, and remembers what it was asked.

    Attributes:
        answers: Taken one by one; the last one stays.
        asked: Method and path with query of each request.
        bodies: Their bodies.
        headers: Their headers.
    """

    answers: list[Answering] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The next answer."""
        self.asked.append((request.method, request.path_qs))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        answering = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answering(request)

    def session(self, timeout_s: float = 5.0) -> Session:
        """A session that has its token already and cannot get another."""
        secrets = Secrets(sf_access_token=SecretStr(GIVEN_TOKEN))
        return Session(org_settings(self.url, timeout_s), secrets, "access_token", now_ms=now_ms)

    def login_session(self, flow: str = "password", timeout_s: float = 5.0, **secrets: Any) -> Session:
        """A session whose token requests go to this server, too."""
        known = {"sf_client_id": "id", "sf_client_secret": SecretStr("client-secret"), "sf_username": "u@org.example"}
        known |= {"sf_password": SecretStr("pass-word"), "sf_refresh_token": SecretStr("configured-token")}
        return Session(org_settings(self.url, timeout_s), Secrets(**(known | secrets)), flow, now_ms=now_ms)


@asynccontextmanager
async def scripted(*answers: Answering) -> AsyncIterator[Scripted]:
    """Start such a server on a free port of this machine."""
    server = Scripted(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def says(value: Any = None, status: int = 200, **headers: str) -> Answering:
    """An answer with a JSON body; None for an empty one. Header names are written with `_` for `-`."""

    async def answer(_: web.Request) -> web.Response:
        named = {"Date": formatdate(usegmt=True)} | {name.replace("_", "-"): text for name, text in headers.items()}
        if value is None:
            return web.Response(status=status, headers=named)
        return web.json_response(value, status=status, headers=named)

    return answer


def says_text(text: str | bytes, status: int = 200, kind: str = "text/html", **headers: str) -> Answering:
    """An answer with any body."""

    async def answer(_: web.Request) -> web.Response:
        body = text.encode() if isinstance(text, str) else text
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, content_type=kind, headers=named)

    return answer


def hangs_up() -> Answering:
    """The connection breaks instead of an answer."""

    async def answer(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    return answer


def refusal(code: str, message: str = "", status: int = 400, **members: Any) -> Answering:
    """The org's error array with one error."""
    return says([{"errorCode": code, "message": message, **members}], status)


def token(value: str = "00D5f000000Qr8s!first", instance_url: str = "", **members: Any) -> Answering:
    """The token endpoint's good answer; the instance is the server itself unless told."""

    async def answer(request: web.Request) -> web.Response:
        base = instance_url or f"{request.scheme}://{request.host}"
        body = {"access_token": value, "instance_url": base, "token_type": "Bearer"}
        return web.json_response(body | {"id": f"{base}/id/{ORG_ID}/{USER_ID}"} | members)

    return answer

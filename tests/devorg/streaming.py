"""Two subscribers to the local org's stream: the bare protocol, and aiosfstream-ng as people use it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiosfstream_ng.auth import AuthenticatorBase
from aiosfstream_ng.client import Client

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.records.org import Org
from connector.devorg.server import DevOrg

Message = dict[str, Any]

ALL = "/data/ChangeEvents"
ORIGIN = "com/salesforce/api/rest/66.0"


def create_contact(org: Org, last_name: str, **values: Any) -> str:
    """Commit one new contact and tell its id."""
    with org.transaction(INTEGRATION_USER_ID, ORIGIN) as transaction:
        return transaction.create("Contact", {"LastName": last_name, **values})


def names(messages: Sequence[Message]) -> list[str]:
    """Last names in events, in order."""
    return [message["data"]["payload"]["Name"]["LastName"] for message in messages if "data" in message]


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; a test that waits in vain fails."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the other side's state, which announces nothing
            await asyncio.sleep(0.002)


async def held(org: DevOrg) -> None:
    """Return once the org is answering a request and has nothing else to do: a connect is being held."""
    await until(lambda: org.ctx.requests)
    await asyncio.sleep(0.02)


class RawClient:
    """A CometD client that sends what it is told and hides nothing."""

    def __init__(self, org: DevOrg, *, version: str = "66.0", token: str | None = None) -> None:
        self.url = f"{org.url}/cometd/{version}"
        self.headers = {"Authorization": f"Bearer {token or org.ctx.tokens.default_access_token}"}
        self.client_id = ""
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def post(self, *messages: Message) -> list[Message]:
        """Send messages as one array and return the answer's."""
        async with self.http.post(self.url, data=orjson.dumps(list(messages)), headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            decoded: list[Message] = await answer.json()
            return decoded

    def message(self, channel: str, **members: Any) -> Message:
        """A message of this client with the next id."""
        own = {"clientId": self.client_id} if self.client_id else {}
        return {"channel": channel, "id": str(next(self._numbers)), **own, **members}

    async def one(self, channel: str, **members: Any) -> Message:
        """The only message that answers one message."""
        (answer,) = await self.post(self.message(channel, **members))
        return answer

    async def handshake(self) -> Message:
        """Open a session and remember its clientId."""
        self.client_id = ""
        answer = await self.one(
            "/meta/handshake",
            version="1.0",
            minimumVersion="1.0",
            supportedConnectionTypes=["long-polling"],
            ext={"replay": True},
        )
        self.client_id = answer.get("clientId", "")
        return answer

    async def connect(self) -> list[Message]:
        """One connect: its answer and the events with it."""
        return await self.post(self.message("/meta/connect", connectionType="long-polling"))

    async def subscribe(self, channel: str = ALL, replay: Any = None) -> Message:
        """Subscribe, with a replay map of that channel if a position is given."""
        ext = {} if replay is None else {"ext": {"replay": {channel: replay}}}
        return await self.one("/meta/subscribe", subscription=channel, **ext)

    async def start(self, channel: str = ALL, replay: Any = None) -> Self:
        """Handshake, first connect and a subscription that must succeed."""
        await self.handshake()
        await self.connect()
        answer = await self.subscribe(channel, replay)
        assert answer["successful"], answer
        return self


class TokenAuthenticator(AuthenticatorBase):
    """Takes the org's access token as it stands."""

    def __init__(self, org: DevOrg) -> None:
        super().__init__()
        self._org = org
        self.calls = 0

    def __repr__(self) -> str:
        return "TokenAuthenticator()"

    async def _authenticate(self) -> tuple[int, Message]:
        self.calls += 1
        return 200, {
            "access_token": self._org.ctx.tokens.default_access_token,
            "instance_url": self._org.url,
            "token_type": "Bearer",
        }


def library_client(org: DevOrg, **options: Any) -> Client:
    """An aiosfstream-ng client of the org; construct it inside the running loop."""
    return Client(TokenAuthenticator(org), json_dumps=lambda value: orjson.dumps(value).decode(), **options)

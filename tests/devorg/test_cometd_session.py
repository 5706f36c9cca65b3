"""The CometD session from handshake to disconnect: timers, advice, cookies, refusals. Spoken by hand."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from connector.devorg.server import DevOrg
from tests.devorg.streaming import ALL, RawClient, create_contact, held, names, until

UNKNOWN = "403::Unknown client"


@pytest.fixture
async def client(org: DevOrg) -> AsyncIterator[RawClient]:
    async with RawClient(org) as made:
        yield made


async def test_handshake_offers_long_polling_and_replay(client: RawClient) -> None:
    """The documented answer, member by member."""
    answer = await client.handshake()
    assert len(client.client_id) > 20
    assert answer == {
        "channel": "/meta/handshake",
        "id": "1",
        "version": "1.0",
        "minimumVersion": "1.0",
        "successful": True,
        "clientId": client.client_id,
        "supportedConnectionTypes": ["long-polling"],
        "ext": {"replay": True, "payload.format": True},
    }


@pytest.mark.parametrize(
    ("version", "token", "reason"),
    [
        ("66.0", "wrong", "401::Authentication invalid"),
        ("36.0", None, "400::Unsupported API version. Only API versions '37.0' and above are supported."),
        ("67.0", None, "400::Unsupported API version. Only API versions '37.0' and above are supported."),
        ("x", None, "400::Unsupported API version. Only API versions '37.0' and above are supported."),
        ("", None, "400::API version in the URI is mandatory. URI format: '/cometd/66.0'"),
    ],
)
async def test_denied_handshake(org: DevOrg, version: str, token: str | None, reason: str) -> None:
    """The error is always the same; why is in the failure reason alone."""
    async with RawClient(org, version=version, token=token) as client:
        assert await client.handshake() == {
            "channel": "/meta/handshake",
            "id": "1",
            "successful": False,
            "error": "403::Handshake denied",
            "advice": {"reconnect": "none"},
            "ext": {"sfdc": {"failureReason": reason}, "replay": True, "payload.format": True},
        }


async def test_handshake_without_a_token(client: RawClient) -> None:
    """A missing header is told from a bad token; `OAuth` is as good as `Bearer`."""
    authorization = client.headers.pop("Authorization")
    answer = await client.handshake()
    assert answer["ext"]["sfdc"]["failureReason"] == "401::Request requires authentication"
    client.headers["Authorization"] = authorization.replace("Bearer", "OAuth")
    assert (await client.handshake())["successful"]


async def test_only_the_first_connect_is_advised_and_at_once(org: DevOrg, client: RawClient) -> None:
    """Later ones are held, and answered without advice when the time is up."""
    org.ctx.settings.connect_hold_s = 0.3
    await client.handshake()
    loop = asyncio.get_running_loop()
    started = loop.time()
    (first,) = await client.connect()
    assert loop.time() - started < 0.2
    assert first == {
        "channel": "/meta/connect",
        "id": "2",
        "clientId": client.client_id,
        "successful": True,
        "advice": {"reconnect": "retry", "interval": 0, "timeout": 300},
    }
    started = loop.time()
    (second,) = await client.connect()
    assert loop.time() - started >= 0.3
    assert second == {"channel": "/meta/connect", "id": "3", "clientId": client.client_id, "successful": True}


async def test_advice_names_110_seconds(client: RawClient) -> None:
    """The default hold."""
    await client.handshake()
    (answer,) = await client.connect()
    assert answer["advice"]["timeout"] == 110_000


async def test_a_commit_ends_the_poll_at_once(org: DevOrg, client: RawClient) -> None:
    """A held connect carries the event, in front of the reply or behind it."""
    await client.start()
    for first in (True, False):
        org.ctx.settings.events_before_reply = first
        poll = asyncio.create_task(client.connect())
        await held(org)
        create_contact(org.ctx.org, "Berg")
        channels = [message["channel"] for message in await poll]
        assert channels == ([ALL, "/meta/connect"] if first else ["/meta/connect", ALL])


async def test_at_most_so_many_events_per_response(org: DevOrg, client: RawClient) -> None:
    """The rest comes with the next connects, at once and in order."""
    org.ctx.settings.max_events_per_response = 2
    await client.start()
    for number in range(5):
        create_contact(org.ctx.org, f"Berg {number}")
    pages = [names(await client.connect()) for _ in range(3)]
    assert pages == [["Berg 0", "Berg 1"], ["Berg 2", "Berg 3"], ["Berg 4"]]


async def test_a_newer_connect_relieves_the_older(org: DevOrg, client: RawClient) -> None:
    """Only one connect of a session is held; the event goes to the newest."""
    await client.start()
    older = asyncio.create_task(client.connect())
    await held(org)
    newer = asyncio.create_task(client.connect())
    assert names(await older) == []
    create_contact(org.ctx.org, "Berg")
    assert names(await newer) == ["Berg"]


async def test_events_for_a_client_that_has_gone_stay_in_the_log(org: DevOrg, client: RawClient) -> None:
    """A connect whose connection was lost takes nothing with it."""
    await client.start()
    poll = asyncio.create_task(client.connect())
    await held(org)
    poll.cancel()
    await until(lambda: not org.ctx.requests)
    create_contact(org.ctx.org, "Berg")
    assert names(await client.connect()) == ["Berg"]


async def test_session_is_forgotten_when_the_client_stays_away(org: DevOrg, client: RawClient) -> None:
    """After any response the next connect has to come in time; an idle poll leaves as much time as it lasted."""
    settings = org.ctx.settings
    settings.connect_gap_s, settings.connect_hold_s = 0.1, 0.6
    await client.start()
    await client.connect()
    await asyncio.sleep(0.3)
    (answer,) = await client.connect()
    assert answer["successful"]
    create_contact(org.ctx.org, "Berg")
    await client.connect()
    await asyncio.sleep(0.3)
    (answer,) = await client.connect()
    assert answer == {
        "channel": "/meta/connect",
        "id": "7",
        "clientId": client.client_id,
        "successful": False,
        "error": UNKNOWN,
        "advice": {"reconnect": "handshake", "interval": 0},
    }
    refused = await client.subscribe()
    assert (refused["error"], refused["subscription"]) == (UNKNOWN, ALL)


async def test_cookies_are_part_of_the_protocol(client: RawClient) -> None:
    """Without the browser cookie the session is named but refused; the cookies carry what is documented of them."""
    await client.start()
    cookies = {cookie.key: cookie for cookie in client.http.cookie_jar}
    assert cookies.keys() == {"BAYEUX_BROWSER", "BrowserId", "sfdc-stream"}
    assert (cookies["BAYEUX_BROWSER"]["path"], cookies["BAYEUX_BROWSER"]["httponly"]) == ("/cometd/", True)
    assert (cookies["sfdc-stream"]["path"], cookies["sfdc-stream"]["max-age"]) == ("/", "10800")
    client.http.cookie_jar.clear()
    (answer,) = await client.connect()
    assert answer["error"] == (
        f"400::Client {client.client_id} has established a session, but no BAYEUX_BROWSER cookie present"
    )


async def test_the_routing_cookie_expires(org: DevOrg, client: RawClient) -> None:
    """After about three hours another server is asked, which does not know the client; a new session works."""
    await client.start()
    org.ctx.clock.advance(3 * 3600 - 60)
    org.ctx.tokens.keep(org.ctx.tokens.default_access_token)
    org.ctx.settings.connect_hold_s = 0.05
    assert (await client.connect())[-1]["successful"]
    org.ctx.clock.advance(120)
    (answer,) = await client.connect()
    assert (answer["error"], answer["advice"]["reconnect"]) == (UNKNOWN, "handshake")
    await client.start()
    assert (await client.connect())[-1]["successful"]


async def test_a_connected_client_keeps_its_token_alive(org: DevOrg, client: RawClient) -> None:
    """Two hours pass in the middle of a poll: the session lives, only revoking ends it."""
    org.ctx.settings.connect_hold_s = 0.6
    await client.start()
    poll = asyncio.create_task(client.connect())
    await held(org)
    org.ctx.clock.advance(9000)
    assert (await poll)[-1]["successful"]
    poll = asyncio.create_task(client.connect())
    await held(org)
    org.ctx.settings.connect_hold_s = 30
    org.ctx.tokens.revoke(org.ctx.tokens.default_access_token)
    (answer,) = await poll
    assert answer["error"] == "401::Authentication invalid"


async def test_a_revoked_token_is_noticed_while_a_poll_is_held(org: DevOrg, client: RawClient) -> None:
    """Without any event; the client is told to give up this session."""
    await client.start()
    poll = asyncio.create_task(client.connect())
    await held(org)
    org.ctx.tokens.expire("access")
    (answer,) = await poll
    assert answer == {
        "channel": "/meta/connect",
        "id": "4",
        "clientId": client.client_id,
        "successful": False,
        "error": "401::Authentication invalid",
        "advice": {"reconnect": "none", "interval": 0},
        "ext": {"sfdc": {"failureReason": "401::Authentication invalid"}},
    }


async def test_the_session_belongs_to_its_user(org: DevOrg, client: RawClient) -> None:
    """A token of somebody else is refused."""
    await client.start()
    other = org.ctx.tokens.issue("0055f000007SvcUAAS")
    client.headers["Authorization"] = f"Bearer {other}"
    (answer,) = await client.connect()
    assert answer["error"] == "400::Authenticated user id does not match the session's user id"


async def test_only_long_polling(client: RawClient) -> None:
    """Nothing else connects."""
    await client.handshake()
    answer = await client.one("/meta/connect", connectionType="websocket")
    assert answer["error"] == "400::Invalid connection type websocket"


async def test_disconnect_ends_the_session_and_its_poll(org: DevOrg, client: RawClient) -> None:
    """The answer has no advice; the held connect is answered; the clientId is dead."""
    await client.start()
    poll = asyncio.create_task(client.connect())
    await held(org)
    answer = await client.one("/meta/disconnect")
    assert (answer["channel"], answer["successful"]) == ("/meta/disconnect", True)
    (relieved,) = await poll
    assert relieved["advice"] == {"reconnect": "none", "interval": 0}
    (dead,) = await client.connect()
    assert dead["error"] == UNKNOWN


async def test_concurrent_clients_are_limited(org: DevOrg) -> None:
    """One too many is denied; it may come once another has gone."""
    org.ctx.settings.max_streaming_clients = 1
    async with RawClient(org) as first, RawClient(org) as second:
        await first.start()
        assert org.ctx.usage.streaming_clients == 1
        denied = await second.handshake()
        assert denied["ext"]["sfdc"]["failureReason"] == "403::Organization concurrent user limit exceeded"
        await first.one("/meta/disconnect")
        assert (await second.handshake())["successful"]


async def test_body_limit(client: RawClient) -> None:
    """More than 32,768 bytes is refused by HTTP."""
    await client.handshake()
    for size, status in ((32_768, 200), (32_769, 413)):
        body = b"[" + b" " * (size - 2) + b"]"
        async with client.http.post(client.url, data=body, headers=client.headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize("body", [b"", b"[1]", b"nothing", b"3", b"[{]"])
async def test_what_is_no_bayeux_is_refused(client: RawClient, body: bytes) -> None:
    """A body that is no array of messages gets HTTP 400."""
    async with client.http.post(client.url, data=body, headers=client.headers) as answer:
        assert answer.status == 400


async def test_a_single_message_needs_no_array(client: RawClient) -> None:
    """The answer is an array all the same."""
    message = client.message("/meta/handshake", version="1.0")
    async with client.http.post(client.url, json=message, headers=client.headers) as answer:
        assert (await answer.json())[0]["successful"]


async def test_replies_do_not_wait_for_a_connect_among_them(client: RawClient) -> None:
    """A connect that comes with other messages is answered with them."""
    await client.handshake()
    await client.connect()
    connect = client.message("/meta/connect", connectionType="long-polling")
    subscribe = [
        client.message("/meta/subscribe", subscription=f"/data/{name}ChangeEvent") for name in ("Contact", "Lead")
    ]
    async with asyncio.timeout(5):
        answers = await client.post(connect, *subscribe)
    assert [answer["id"] for answer in answers] == ["3", "4", "5"]
    assert all(answer["successful"] for answer in answers)


async def test_nothing_else_can_be_done(client: RawClient) -> None:
    """No publishing, no other meta channels, no channel at all."""
    await client.handshake()
    assert (await client.one(ALL, data={}))["error"] == "403:denied_by_security_policy:publish_denied"
    assert (await client.one("/meta/ping"))["error"] == "404::Unknown channel /meta/ping"
    (answer,) = await client.post({"id": "1", "clientId": client.client_id})
    assert answer["error"] == "400::Channel name not specified"


async def test_only_post(client: RawClient) -> None:
    """Long polling is POST."""
    async with aiohttp.ClientSession() as http, http.get(client.url) as answer:
        assert answer.status == 405

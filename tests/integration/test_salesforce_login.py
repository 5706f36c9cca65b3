"""Login: the five flows against the local org, and the hard cases against scripted token endpoints."""

import asyncio
import contextlib
import stat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

from connector.devorg.server import DevOrg
from connector.errors import (
    AnotherOrg,
    ConfigError,
    LinkDown,
    LoginRefused,
    OrgThrottled,
    OrgUnavailable,
    TransientError,
)
from connector.salesforce.login import Session
from connector.salesforce.token_store import FileTokenStore
from connector.settings import Secrets
from tests.orgs import (
    ORG_ID,
    USER_ID,
    Scripted,
    now_ms,
    org_session,
    org_settings,
    refusal,
    says,
    says_text,
    scripted,
    secrets_of,
    token,
)

OTHER_ORG = "00D5f00000OtherEAB"
FLOWS = ("jwt", "client_credentials", "refresh_token", "password", "access_token")


@pytest.fixture
async def org() -> Any:
    async with DevOrg() as started:
        yield started


@pytest.mark.parametrize("flow", FLOWS)
async def test_every_flow_logs_in(org: DevOrg, flow: str) -> None:
    """One token for all; org and, but for a given token, user are known."""
    async with org_session(org, flow) as session:
        got = await session.token()
        assert org.ctx.tokens.check(got.value) == org.ctx.tokens.default_user_id
        assert got.instance_url == org.ctx.instance_url
        assert got.org_id == org.ctx.tokens.org_id
        assert got.user_id == (None if flow == "access_token" else org.ctx.tokens.default_user_id)
        assert await session.token() is got


@pytest.mark.parametrize("flow", FLOWS[:-1])
async def test_a_dead_token_is_replaced_by_one_request(org: DevOrg, flow: str) -> None:
    """However many calls saw it die."""
    async with org_session(org, flow) as session:
        stale = await session.token()
        org.ctx.tokens.expire("access")
        logins = sum(org.ctx.usage.logins.values())
        renewed = await asyncio.gather(*(session.renew(stale) for _ in range(50)))
        assert {t.value for t in renewed} != {stale.value}
        assert len({t.value for t in renewed}) == 1
        assert await session.renew(stale) is renewed[0]
        assert sum(org.ctx.usage.logins.values()) == logins + 1


@pytest.mark.parametrize("flow", ["jwt", "client_credentials", "password"])
async def test_another_org_at_the_same_address_is_refused(org: DevOrg, flow: str) -> None:
    """A sandbox that was refreshed, or a login host that now leads elsewhere: no token is given out."""
    async with org_session(org, flow) as session:
        session.expect_org(ORG_ID)
        stale = await session.token()
        org.ctx.tokens.become(OTHER_ORG)
        for attempt in (session.renew(stale), session.token()):
            with pytest.raises(AnotherOrg, match=rf"holds org {ORG_ID}, the login is of org {OTHER_ORG}"):
                await attempt


async def test_a_given_access_token_cannot_be_renewed(org: DevOrg) -> None:
    """The operator is told."""
    async with org_session(org, "access_token") as session:
        stale = await session.token()
        with pytest.raises(LoginRefused, match="SF_ACCESS_TOKEN"):
            await session.renew(stale)


async def test_a_refused_login_is_repeated_after_a_long_while(org: DevOrg, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every further try could lock the user out: a quarter of an hour, then twice as long, six hours at most."""
    org.ctx.settings.user_approved = False
    now_s = 0.0
    monkeypatch.setattr("connector.salesforce.login._monotonic", lambda: now_s)
    async with org_session(org, "jwt") as session:
        waits = []
        for _ in range(7):
            with pytest.raises(LoginRefused, match="pre-authorise") as caught:
                await session.token()
            waits.append(caught.value.retry_after_s)
            with pytest.raises(LoginRefused, match="pre-authorise") as again:
                await session.token()
            assert again.value.retry_after_s == waits[-1]
            now_s += waits[-1] or 0.0
        assert waits == [900, 1800, 3600, 7200, 14400, 21600, 21600]
        now_s -= 1
        org.ctx.settings.user_approved = True
        with pytest.raises(LoginRefused):
            await session.token()
        assert not org.ctx.usage.logins
        now_s += 1
        await session.token()
    assert org.ctx.usage.logins.total() == 1


async def test_the_login_rate_waits(org: DevOrg) -> None:
    """Minutes, without asking in between."""
    org.ctx.settings.login_rate_per_hour = 0
    async with org_session(org) as session:
        with pytest.raises(OrgThrottled) as caught:
            await session.token()
        assert (caught.value.retry_after_s or 0) >= 60
        org.ctx.settings.login_rate_per_hour = 100
        with pytest.raises(TransientError):
            await session.token()


async def test_tokens_that_die_at_once_do_not_make_us_hammer(org: DevOrg) -> None:
    """Five logins a minute at most."""
    async with org_session(org) as session:
        got = await session.token()
        for _ in range(4):
            got = await session.renew(got)
        with pytest.raises(OrgThrottled):
            await session.renew(got)
    assert sum(org.ctx.usage.logins.values()) == 5


async def test_a_rotated_refresh_token_is_stored_before_the_access_token_is_used(org: DevOrg, tmp_path: Path) -> None:
    """A restart logs in with the stored one; the file is the owner's alone."""
    org.ctx.settings.rotate_refresh_tokens = True
    file = tmp_path / "state" / "refresh_token.json"
    async with org_session(org, "refresh_token", store=FileTokenStore(file)) as session:
        first = await session.token()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        await session.renew(first)
    async with org_session(org, "refresh_token", store=FileTokenStore(file)) as session:
        await session.token()
    assert [p.name for p in file.parent.iterdir()] == [file.name]


async def test_a_rotated_token_that_cannot_be_stored_is_not_used_and_not_lost(org: DevOrg) -> None:
    """The login fails for now; the next try stores it first and goes on with it."""

    class Disk:
        full = True
        kept = ""

        async def load(self, configured: str) -> str:
            return self.kept or configured

        async def save(self, configured: str, newest: str) -> None:
            assert configured == org.ctx.credentials.refresh_token
            if self.full:
                raise OSError(28, "No space left on device")
            self.kept = newest

    org.ctx.settings.rotate_refresh_tokens = True
    disk = Disk()
    async with org_session(org, "refresh_token", store=disk) as session:
        for _ in range(2):
            with pytest.raises(TransientError, match="No space"):
                await session.token()
        disk.full = False
        await session.token()
    assert disk.kept


async def test_a_token_set_anew_beats_what_an_older_one_became(tmp_path: Path) -> None:
    """The operator repairs a broken rotation by configuring a new token."""
    store = FileTokenStore(tmp_path / "token.json")
    await store.save("old", "rotated")
    assert await store.load("old") == "rotated"
    assert await store.load("new") == "new"
    (tmp_path / "token.json").write_bytes(b"half a fi")
    assert await store.load("old") == "old"


async def test_login_goes_on_when_those_who_wait_are_cancelled(org: DevOrg, tmp_path: Path) -> None:
    """Its answer may hold the only refresh token that is alive."""
    org.ctx.settings.rotate_refresh_tokens = True
    org.ctx.faults.add("oauth", delay_s=0.2)
    store = FileTokenStore(tmp_path / "token.json")
    async with org_session(org, "refresh_token", store=store) as session:
        waiting = asyncio.create_task(session.token())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    assert await store.load(org.ctx.credentials.refresh_token) != org.ctx.credentials.refresh_token


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "html": True}, OrgUnavailable),
        ({"status": 500, "code": "x", "message": "y"}, OrgUnavailable),
        ({"close": True}, LinkDown),
        ({"drop_response": True}, LinkDown),
        ({"truncate": True}, LinkDown),
        ({"half_open": True}, LinkDown),
    ],
)
async def test_faults_of_the_login_host_are_waited_out(
    org: DevOrg, fault: dict[str, Any], expected: type[TransientError]
) -> None:
    """They are no refusal: the next try logs in."""
    org.ctx.faults.add("oauth", **fault)
    session = Session(org_settings(org.url, 0.3), secrets_of(org), "client_credentials", now_ms=now_ms)
    async with session:
        with pytest.raises(expected):
            await session.token()
        assert (await session.token()).org_id == ORG_ID


async def test_a_failed_login_is_shared_by_all_who_waited(org: DevOrg) -> None:
    """Fifty callers make one request, not fifty."""
    org.ctx.faults.add("oauth", status=503, html=True, delay_s=0.1)
    async with org_session(org) as session:
        results = await asyncio.gather(*(session.token() for _ in range(50)), return_exceptions=True)
        assert all(isinstance(result, OrgUnavailable) for result in results)
        assert not org.ctx.usage.logins


# JWT


async def test_a_wrong_clock_is_set_by_the_orgs_date_and_signed_again(org: DevOrg) -> None:
    """Our clock is ten minutes behind."""
    settings = org_settings(org.url)
    session = Session(settings, secrets_of(org, "jwt"), "jwt", now_ms=lambda: now_ms() - 600_000)
    async with session:
        with capture_logs() as logs:
            assert (await session.token()).org_id == ORG_ID
        assert [entry["event"] for entry in logs] == ["login.signed_again", "login.succeeded"]
        assert (await session.renew(await session.token())).org_id == ORG_ID
    assert org.ctx.usage.logins["jwt-bearer"] == 2


async def test_a_clock_that_stays_wrong_stops_after_one_more_try(org: DevOrg) -> None:
    """Signing again and again would only look like an attack."""
    org.ctx.settings.login_clock_offset_s = 3600
    async with org_session(org, "jwt") as session:
        with pytest.raises(LoginRefused):
            await session.token()


async def test_a_refused_audience_is_tried_with_the_other_one() -> None:
    """Then the first one is not asked for again."""

    async def refuses(_: web.Request) -> web.Response:
        return web.json_response(
            {"error": "invalid_grant", "error_description": "Audience validation failed"}, status=400
        )

    async with DevOrg() as org, scripted(refuses, token()) as server:
        session = Session(org_settings(server.url), secrets_of(org, "jwt"), "jwt", now_ms=now_ms)
        async with session:
            await session.token()
        assert len(server.asked) == 2
        assert server.bodies[0] != server.bodies[1]


async def test_a_missing_key_is_a_mistake_of_the_settings() -> None:
    """Before anything is sent."""
    secrets = Secrets(sf_client_id="x", sf_username="u", sf_private_key_file="/nonexistent/key.pem")
    async with scripted(token()) as server:
        session = Session(org_settings(server.url), secrets, "jwt", now_ms=now_ms)
        async with session:
            with pytest.raises(ConfigError, match="SF_PRIVATE_KEY_FILE"):
                await session.token()
        assert not server.asked


# Answers of another kind


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says_text("<html>Down for maintenance</html>"), LinkDown),
        (says_text("<html>moved</html>", 302, Location="https://status.example/"), OrgUnavailable),
        (says({"error": "invalid_grant", "error_description": "authentication failure"}, 400), LoginRefused),
        (
            says([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}], 403),
            OrgThrottled,
        ),
        (token(instance_url="http://evil.example"), LinkDown),
    ],
)
async def test_answers_that_are_no_token(answer: Any, expected: type[Exception]) -> None:
    """Each by its meaning; a redirect is not followed with our secrets."""
    async with scripted(answer) as server, server.login_session() as session:
        with pytest.raises(expected):
            await session.token()
        assert len(server.asked) == 1


async def test_a_new_instance_is_the_base_of_what_follows() -> None:
    """An org may move; the token response says where."""
    answers = (token(), token("00D5f000000Qr8s!second", "https://new.my.salesforce.com"))
    async with scripted(*answers) as server, server.login_session() as session:
        first = await session.token()
        assert first.instance_url == server.url
        assert (await session.renew(first)).instance_url == "https://new.my.salesforce.com"


async def test_a_given_token_of_another_kind_asks_who_it_is() -> None:
    """A JWT access token does not begin with the org's id."""
    async with scripted(says({"organization_id": ORG_ID, "user_id": USER_ID})) as server:
        secrets = Secrets(sf_access_token=SecretStr("eyJ.a.b"))
        async with Session(org_settings(server.url), secrets, "access_token", now_ms=now_ms) as session:
            got = await session.token()
        assert (got.org_id, got.user_id) == (ORG_ID, USER_ID)
        assert server.asked == [("GET", "/services/oauth2/userinfo")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusal("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", 403), OrgThrottled),
        (says_text("Bad_OAuth_Token", 403), LoginRefused),
        (says_text("<html></html>", 502), LinkDown),
        (says({}), LinkDown),
    ],
)
async def test_a_given_token_that_cannot_be_looked_up(answer: Any, expected: type[Exception]) -> None:
    """A spent quota is no bad token."""
    async with scripted(answer) as server:
        secrets = Secrets(sf_access_token=SecretStr("eyJ.a.b"))
        async with Session(org_settings(server.url), secrets, "access_token", now_ms=now_ms) as session:
            with pytest.raises(expected):
                await session.token()


async def test_no_secret_is_shown_or_logged() -> None:
    """Neither in `repr` nor in any event, good or bad."""
    refused = says({"error": "invalid_grant", "error_description": "authentication failure"}, 400)
    for answer in (token(refresh_token="rotated-token"), refused):
        async with scripted(answer) as server:
            with capture_logs() as logs:
                text = await _everything_shown(server)
        for secret in ("client-secret", "pass-word", "configured-token", "rotated-token", "!first"):
            assert secret not in text + repr(logs)


async def _everything_shown(server: Scripted) -> str:
    shown = []
    for flow in ("password", "refresh_token"):
        async with server.login_session(flow) as session:
            try:
                shown.append(repr(await session.token()))
            except LoginRefused as error:
                shown.append(repr(error))
            shown.append(repr(session))
    return " ".join(shown)

"""The login flows, what they refuse and how, and the life of the tokens they give."""

import base64
import hashlib
import hmac
import time
from typing import Any

import aiohttp
import jwt
import pytest

from connector.devorg.login.oauth import JWT_BEARER
from connector.devorg.objects.residents import INTEGRATION_USER_ID, ORGANIZATION_ID
from connector.devorg.server import DevOrg

TOKEN = "/services/oauth2/token"
CLIENT = {"client_id": "3MVG9DevOrgClientId", "client_secret": "DevOrgClientSecret"}
PASSWORD = {
    **CLIENT,
    "grant_type": "password",
    "username": "integration@local.example",
    "password": "devorg-passwordDevOrgSecurityToken",
}
REFRESH = {**CLIENT, "grant_type": "refresh_token", "refresh_token": "5AepDevOrgRefreshToken"}
CREDENTIALS = {**CLIENT, "grant_type": "client_credentials"}


def assertion(org: DevOrg, **claims: Any) -> dict[str, str]:
    """A JWT bearer request, right but for `claims`."""
    right = {
        "iss": CLIENT["client_id"],
        "sub": PASSWORD["username"],
        "aud": "https://login.salesforce.com",
        "exp": int(time.time()) + 120,
    }
    named = {name: value for name, value in (right | claims).items() if value is not None}
    signed = jwt.encode(named, org.keys.private_key_file().read_bytes(), algorithm="RS256")
    return {"grant_type": JWT_BEARER, "assertion": signed}


async def login(web: aiohttp.ClientSession, form: dict[str, str]) -> tuple[int, dict[str, str]]:
    async with web.post(TOKEN, data=form) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def works(web: aiohttp.ClientSession, token: str) -> bool:
    """Whether the token opens the REST API."""
    async with web.get("/services/data/v66.0/limits", headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status == 200


@pytest.mark.parametrize("flow", ["password", "refresh", "credentials", "jwt"])
async def test_every_flow_gives_a_token_that_works(org: DevOrg, web: aiohttp.ClientSession, flow: str) -> None:
    """A right request of each flow is answered with the documented members."""
    forms = {"password": PASSWORD, "refresh": REFRESH, "credentials": CREDENTIALS, "jwt": assertion(org)}
    status, answer = await login(web, forms[flow])
    assert status == 200
    assert answer["token_type"] == "Bearer"
    assert answer["instance_url"] == org.url
    assert answer["id"] == f"{org.url}/id/{ORGANIZATION_ID}/{INTEGRATION_USER_ID}"
    assert answer["access_token"].startswith("00D5f000000Qr8s!")
    assert "refresh_token" not in answer
    assert ("issued_at" in answer) == (flow != "jwt")
    assert await works(web, answer["access_token"])


async def test_the_signature_covers_id_and_time_of_issue(web: aiohttp.ClientSession) -> None:
    """A client can verify the answer with its secret; `issued_at` is a text of milliseconds."""
    _, answer = await login(web, CREDENTIALS)
    signed = (answer["id"] + answer["issued_at"]).encode()
    expected = hmac.new(CLIENT["client_secret"].encode(), signed, hashlib.sha256).digest()
    assert base64.b64decode(answer["signature"]) == expected
    assert abs(int(answer["issued_at"]) - time.time() * 1000) < 60_000


async def test_the_client_may_stand_in_basic_authentication(web: aiohttp.ClientSession) -> None:
    """simple-salesforce sends client id and secret so."""
    basic = base64.b64encode(f"{CLIENT['client_id']}:{CLIENT['client_secret']}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    async with web.post(TOKEN, data={"grant_type": "client_credentials"}, headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({}, "unsupported_grant_type", "grant type not supported"),
        ({"grant_type": "telepathy"}, "unsupported_grant_type", "grant type not supported"),
        (PASSWORD | {"client_id": "x"}, "invalid_client_id", "client identifier invalid"),
        (PASSWORD | {"client_secret": "x"}, "invalid_client", "invalid client credentials"),
        (PASSWORD | {"password": "devorg-password"}, "invalid_grant", "authentication failure"),
        (PASSWORD | {"username": "nobody@local.example"}, "invalid_grant", "authentication failure"),
        (CREDENTIALS | {"client_secret": ""}, "invalid_client", "invalid client credentials"),
        (REFRESH | {"refresh_token": "x"}, "invalid_grant", "expired access/refresh token"),
        ({"grant_type": JWT_BEARER}, "invalid_grant", "invalid assertion"),
        ({"grant_type": JWT_BEARER, "assertion": "a.b.c"}, "invalid_grant", "invalid assertion"),
    ],
)
async def test_a_wrong_request_gets_salesforces_own_error(
    web: aiohttp.ClientSession, form: dict[str, str], error: str, description: str
) -> None:
    """Clients branch on these texts."""
    assert await login(web, form) == (400, {"error": error, "error_description": description})


@pytest.mark.parametrize(
    ("claims", "error", "description"),
    [
        ({"iss": "x"}, "invalid_client_id", "client identifier invalid"),
        ({"sub": "nobody@local.example"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"prn": "nobody@local.example"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"aud": "https://elsewhere.example"}, "invalid_grant", "Audience validation failed"),
        ({"aud": None}, "invalid_grant", "Audience validation failed"),
        ({"exp": int(time.time()) - 60}, "invalid_grant", "expired authorization code"),
        ({"exp": int(time.time()) + 3600}, "invalid_grant", "expired authorization code"),
        ({"exp": int(time.time() * 1000)}, "invalid_grant", "expired authorization code"),
        ({"exp": "nan"}, "invalid_grant", "expired authorization code"),
        ({"exp": None}, "invalid_grant", "expired authorization code"),
    ],
)
async def test_a_wrong_assertion_is_refused(
    org: DevOrg, web: aiohttp.ClientSession, claims: dict[str, Any], error: str, description: str
) -> None:
    """Each claim is judged, with its own error."""
    assert await login(web, assertion(org, **claims)) == (400, {"error": error, "error_description": description})


@pytest.mark.parametrize("form", [str, int])
async def test_the_expiry_may_be_a_number_or_a_text(org: DevOrg, web: aiohttp.ClientSession, form: type) -> None:
    """Real clients send both."""
    assert (await login(web, assertion(org, exp=form(int(time.time()) + 100))))[0] == 200


async def test_an_assertion_of_another_key_is_refused(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """The signature counts, and no other algorithm is taken."""
    form = assertion(org)
    async with DevOrg() as other:
        assert (await login(web, assertion(other)))[0] == 400
    unsigned = jwt.encode(jwt.decode(form["assertion"], options={"verify_signature": False}), "", "none")
    status, answer = await login(web, form | {"assertion": unsigned})
    assert (status, answer["error_description"]) == (400, "invalid assertion")


async def test_own_url_as_audience_is_a_switch(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """Whether a My Domain URL is taken is an open point: yes by default."""
    assert (await login(web, assertion(org, aud=org.url)))[0] == 200
    org.ctx.settings.my_domain_audience = False
    assert (await login(web, assertion(org, aud=org.url)))[0] == 400


OFF = {
    "request not supported on this domain": ("login_host", True, CREDENTIALS, "invalid_grant"),
    "no client credentials user enabled": ("run_as_user", False, CREDENTIALS, "invalid_grant"),
    "grant type not supported": ("disabled_flows", ("password",), PASSWORD, "unsupported_grant_type"),
    "user is inactive": ("user_active", False, PASSWORD, "inactive_user"),
    "login rate exceeded": ("login_rate_per_hour", 0, PASSWORD, "rate_limit_exceeded"),
}


@pytest.mark.parametrize("description", OFF)
async def test_a_switch_turns_a_flow_off(org: DevOrg, web: aiohttp.ClientSession, description: str) -> None:
    """What an org's set-up can forbid is answered as Salesforce does."""
    setting, value, form, error = OFF[description]
    setattr(org.ctx.settings, setting, value)
    assert await login(web, form) == (400, {"error": error, "error_description": description})


async def test_rotation_kills_the_old_refresh_token(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """With rotation each refresh gives a new refresh token, and only that one works from then on."""
    org.ctx.settings.rotate_refresh_tokens = True
    _, answer = await login(web, REFRESH)
    rotated = answer["refresh_token"]
    assert (await login(web, REFRESH))[1]["error_description"] == "expired access/refresh token"
    assert (await login(web, REFRESH | {"refresh_token": rotated}))[0] == 200


async def test_a_token_dies_of_disuse_and_lives_by_use(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """Two hours without a call; every call extends it."""
    _, answer = await login(web, CREDENTIALS)
    token = answer["access_token"]
    for _ in range(3):
        org.ctx.clock.advance(7000)
        assert await works(web, token)
    org.ctx.clock.advance(7300)
    assert not await works(web, token)


async def test_an_advanced_clock_does_not_end_jwt_logins(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """The client's own clock is not advanced with the org's."""
    org.ctx.clock.advance(72 * 3600)
    assert (await login(web, assertion(org)))[0] == 200
    org.ctx.settings.login_clock_offset_s = 600
    assert (await login(web, assertion(org)))[0] == 400


async def test_revoking_a_refresh_token_kills_its_access_tokens(web: aiohttp.ClientSession) -> None:
    """And revoking what is dead is an error."""
    _, answer = await login(web, REFRESH)
    _, other = await login(web, CREDENTIALS)
    form = {"token": REFRESH["refresh_token"]}
    async with web.post("/services/oauth2/revoke", data=form) as revoked:
        assert revoked.status == 200
    assert not await works(web, answer["access_token"])
    assert await works(web, other["access_token"])
    async with web.post("/services/oauth2/revoke", data=form) as revoked:
        assert (revoked.status, (await revoked.json())["error"]) == (400, "invalid_token")
    async with web.post("/services/oauth2/revoke") as revoked:
        assert (revoked.status, (await revoked.json())["error"]) == (400, "unsupported_token_type")


async def test_the_instance_url_can_move(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """After a migration the next token names another instance."""
    moved = org.url.replace("localhost", "127.0.0.1")
    org.ctx.settings.instance_url = moved
    assert (await login(web, CREDENTIALS))[1]["instance_url"] == moved


async def test_the_identity_url_tells_who_one_is(web: aiohttp.ClientSession) -> None:
    """Only the holder of a live token of that user learns it."""
    _, answer = await login(web, CREDENTIALS)
    path = f"/id/{ORGANIZATION_ID}/{INTEGRATION_USER_ID}"
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    async with web.get(path, headers=headers) as identity:
        told = await identity.json()
    assert (told["organization_id"], told["user_id"]) == (ORGANIZATION_ID, INTEGRATION_USER_ID)
    assert told["username"] == PASSWORD["username"]
    async with web.get(path) as refused:
        assert (refused.status, await refused.text()) == (403, "Missing_OAuth_Token")
    async with web.get(path, headers={"Authorization": "Bearer x"}) as refused:
        assert (refused.status, await refused.text()) == (403, "Bad_OAuth_Token")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_userinfo_tells_it_in_openid_connects_words(web: aiohttp.ClientSession, method: str) -> None:
    """Of the token's own user; without a live token nothing is told."""
    _, answer = await login(web, CREDENTIALS)
    path = "/services/oauth2/userinfo"
    async with web.request(method, path, headers={"Authorization": f"Bearer {answer['access_token']}"}) as info:
        told = await info.json()
    assert (told["sub"], told["user_id"]) == (answer["id"], INTEGRATION_USER_ID)
    assert (told["organization_id"], told["preferred_username"]) == (ORGANIZATION_ID, PASSWORD["username"])
    assert (told["given_name"], told["family_name"]) == ("Integration", "User")
    async with web.request(method, path) as refused:
        assert (refused.status, await refused.text()) == (403, "Missing_OAuth_Token")
    async with web.request(method, path, headers={"Authorization": "Bearer x"}) as refused:
        assert (refused.status, await refused.text()) == (403, "Bad_OAuth_Token")


async def test_soap_login_gives_a_session(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """User name and password alone; not in API 65.0 and later."""
    body = "<Envelope><Body><n1:login xmlns:n1='x'><n1:username>{0}</n1:username><n1:password>{1}</n1:password>"
    right = body.format(PASSWORD["username"], PASSWORD["password"])
    async with web.post("/services/Soap/u/59.0", data=right, headers={"SOAPAction": "login"}) as answer:
        text = await answer.text()
    assert answer.status == 200
    assert f"<serverUrl>{org.url}/services/Soap/u/59.0</serverUrl>" in text
    assert await works(web, text.partition("<sessionId>")[2].partition("<")[0])
    wrong = body.format(PASSWORD["username"], "x")
    async with web.post("/services/Soap/u/59.0", data=wrong, headers={"SOAPAction": "login"}) as answer:
        assert (answer.status, "INVALID_LOGIN" in await answer.text()) == (500, True)
    async with web.post("/services/Soap/u/65.0", data=right, headers={"SOAPAction": "login"}) as answer:
        assert answer.status == 500


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded; charset=nonsense", "multipart/form-data", "text/plain"]
)
async def test_a_body_that_is_no_form_is_an_empty_one(web: aiohttp.ClientSession, content_type: str) -> None:
    """It is refused like any other request without a grant type."""
    async with web.post(TOKEN, data=b"grant_type=\xff", headers={"Content-Type": content_type}) as answer:
        assert (answer.status, (await answer.json())["error"]) == (400, "unsupported_grant_type")


async def test_the_private_key_is_its_owners_alone(org: DevOrg) -> None:
    """Mode 600, and the same key each time."""
    file = org.keys.private_key_file()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == org.keys.private_key_file().read_bytes()

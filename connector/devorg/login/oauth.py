"""The token endpoint with its flows, and revocation.

Errors of these resources have a shape of their own, `{"error", "error_description"}`, with HTTP 400.

Source: Salesforce Help, "OAuth 2.0 Authorization Errors" and the page of each flow.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from aiohttp import hdrs, web

from connector.devorg.context import Context
from connector.devorg.tokens import KeyPair

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LONGEST_ASSERTION_LIFE_S = 180
SCOPE = "api refresh_token"
_AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")
_NO_STORE = {hdrs.CACHE_CONTROL: "no-store", hdrs.PRAGMA: "no-cache"}
_HOUR_S = 3600
_MOST_LOGIN_TIMES = 10_000


class LoginRefusedError(Exception):
    """An answer of the token endpoint that gives no token.

    Attributes:
        error: OAuth's code, for instance `invalid_grant`.
        description: Salesforce's text.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


class LoginServer:
    """Turns what a client presents into a token, or refuses as Salesforce does.

    Args:
        context: The org.
        keys: Key pair whose certificate the client app holds.
    """

    def __init__(self, context: Context, keys: KeyPair) -> None:
        self._context = context
        self._keys = keys
        self._flows: dict[str, Callable[[Mapping[str, str]], dict[str, str]]] = {
            JWT_BEARER: self._jwt_bearer,
            "client_credentials": self._client_credentials,
            "refresh_token": self._refresh_token,
            "password": self._password,
        }
        self._logins: dict[str, deque[int]] = {}

    def token(self, form: Mapping[str, str]) -> dict[str, str]:
        """Answer a token request.

        Raises:
            LoginRefusedError: With the error that Salesforce gives.
        """
        grant = form.get("grant_type", "")
        flow = self._flows.get(grant)
        if flow is None or grant in self._context.settings.disabled_flows:
            raise LoginRefusedError("unsupported_grant_type", "grant type not supported")
        answer = flow(form)
        self._context.usage.logins[grant.rpartition(":")[2]] += 1
        if self._context.settings.token_calls_counted:
            self._context.usage.api.add()
        return answer

    def password_login(self, username: str, password: str) -> str:
        """Id of the user whose password, followed by the security token, this is.

        Raises:
            LoginRefusedError: It is not.
        """
        known = self._context.credentials
        expected = (known.password + known.security_token).encode()
        right = hmac.compare_digest(password.encode(), expected)
        if username.lower() != known.username or not right:
            raise LoginRefusedError("invalid_grant", "authentication failure")
        return self._user(username)

    def issue(self, user_id: str) -> str:
        """A new access token for a user who has proved to be one, within the login rate."""
        self._count_login(user_id)
        return self._context.tokens.issue(user_id)

    def _jwt_bearer(self, form: Mapping[str, str]) -> dict[str, str]:
        claims = self._verified(form.get("assertion", ""))
        if claims.get("iss") != self._context.credentials.client_id:
            raise LoginRefusedError("invalid_client_id", "client identifier invalid")
        self._check_audience(claims.get("aud"))
        self._check_expiry(claims.get("exp"))
        user_id = self._user(str(claims.get("prn") or claims.get("sub") or ""), "user hasn't approved this consumer")
        if not self._context.settings.user_approved:
            raise LoginRefusedError("invalid_grant", "user hasn't approved this consumer")
        answer = self._answer(user_id, self.issue(user_id))
        # The documented answer of this flow has neither of the two.
        return {name: value for name, value in answer.items() if name not in ("issued_at", "signature")}

    def _verified(self, assertion: str) -> dict[str, Any]:
        """The claims of an assertion that our key pair signed; their values are still to be judged."""
        unjudged = dict.fromkeys(("verify_exp", "verify_aud", "verify_iss", "verify_sub"), False)
        unjudged |= dict.fromkeys(("verify_iat", "verify_nbf", "verify_jti"), False)
        try:
            return jwt.decode(assertion, self._keys.public_key(), algorithms=["RS256"], options=unjudged)  # type: ignore[arg-type]  # flags
        except jwt.InvalidTokenError as error:
            raise LoginRefusedError("invalid_grant", "invalid assertion") from error

    def _check_audience(self, audience: object) -> None:
        allowed = set(_AUDIENCES)
        if self._context.settings.my_domain_audience:
            allowed |= {self._context.url, self._context.instance_url}
        if not isinstance(audience, str) or audience.rstrip("/") not in allowed:
            raise LoginRefusedError("invalid_grant", "Audience validation failed")

    def _check_expiry(self, expiry: object) -> None:
        """`exp` is a number or a text of digits, in seconds, at most three minutes ahead.

        It is measured by real time, not by the org's clock: a client that signs with its own clock can log in
        after the org's has been advanced, as it could after so much time had really passed.
        """
        text = str(expiry) if isinstance(expiry, int | float | str) else ""
        try:
            left_s = float(text) - (time.time() + self._context.settings.login_clock_offset_s)
        except ValueError:
            left_s = -1
        if not 0 < left_s <= LONGEST_ASSERTION_LIFE_S:
            raise LoginRefusedError("invalid_grant", "expired authorization code")

    def _client_credentials(self, form: Mapping[str, str]) -> dict[str, str]:
        if self._context.settings.login_host:
            raise LoginRefusedError("invalid_grant", "request not supported on this domain")
        self._check_client(form)
        if not self._context.settings.run_as_user:
            raise LoginRefusedError("invalid_grant", "no client credentials user enabled")
        user_id = self._user(self._context.credentials.username)
        return self._answer(user_id, self.issue(user_id))

    def _refresh_token(self, form: Mapping[str, str]) -> dict[str, str]:
        self._check_client(form, secret_needed=self._context.settings.refresh_needs_secret)
        refreshed = self._context.tokens.refresh(form.get("refresh_token", ""))
        if refreshed is None:
            raise LoginRefusedError("invalid_grant", "expired access/refresh token")
        user_id, access_token, rotated = refreshed
        return self._answer(user_id, access_token) | ({"refresh_token": rotated} if rotated else {})

    def _password(self, form: Mapping[str, str]) -> dict[str, str]:
        self._check_client(form)
        user_id = self.password_login(form.get("username", ""), form.get("password", ""))
        answer = self._answer(user_id, self.issue(user_id))
        del answer["scope"]
        return answer

    def _check_client(self, form: Mapping[str, str], *, secret_needed: bool = True) -> None:
        known = self._context.credentials
        if form.get("client_id") != known.client_id:
            raise LoginRefusedError("invalid_client_id", "client identifier invalid")
        secret = form.get("client_secret", "")
        if (secret or secret_needed) and not hmac.compare_digest(secret.encode(), known.client_secret.encode()):
            raise LoginRefusedError("invalid_client", "invalid client credentials")

    def _user(self, username: str, otherwise: str = "authentication failure") -> str:
        """Id of an active user by name."""
        user = self._context.schema.get("User")
        found = self._context.database.ids_where(user.table, "Username", username) if user else []
        if not found:
            raise LoginRefusedError("invalid_grant", otherwise)
        if not self._context.settings.user_active:
            raise LoginRefusedError("inactive_user", "user is inactive")
        return found[0]

    def _count_login(self, user_id: str) -> None:
        now_ms = self._context.clock.now_ms()
        times = self._logins.setdefault(user_id, deque(maxlen=_MOST_LOGIN_TIMES))
        while times and times[0] <= now_ms - _HOUR_S * 1000:
            times.popleft()
        if len(times) >= self._context.settings.login_rate_per_hour:
            raise LoginRefusedError("rate_limit_exceeded", "login rate exceeded")
        times.append(now_ms)

    def _answer(self, user_id: str, access_token: str) -> dict[str, str]:
        identity = f"{self._context.url}/id/{self._context.tokens.org_id}/{user_id}"
        issued_at = str(self._context.clock.now_ms())
        secret = self._context.credentials.client_secret.encode()
        signature = hmac.new(secret, (identity + issued_at).encode(), hashlib.sha256).digest()
        return {
            "access_token": access_token,
            "signature": base64.b64encode(signature).decode(),
            "scope": SCOPE,
            "instance_url": self._context.instance_url,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
        }


def routes(context: Context, login: LoginServer) -> list[web.RouteDef]:
    """Token endpoint and revocation."""

    async def token(request: web.Request) -> web.Response:
        try:
            return web.json_response(login.token(await _form(request)), headers=_NO_STORE)
        except LoginRefusedError as error:
            return _refusal(error.error, error.description)

    async def revoke(request: web.Request) -> web.Response:
        text = (await _form(request)).get("token", "")
        if not text:
            return _refusal("unsupported_token_type", "this token type is not supported")
        if not context.tokens.revoke(text):
            return _refusal("invalid_token", "invalid token")
        return web.Response(headers=_NO_STORE)

    return [
        web.post("/services/oauth2/token", token),
        web.post("/services/oauth2/revoke", revoke),
        web.get("/services/oauth2/revoke", revoke),
    ]


async def _form(request: web.Request) -> dict[str, str]:
    """Parameters of the body, the query string and HTTP Basic authentication; texts only."""
    parameters = dict(request.query)
    try:
        body = await request.post()
    except (LookupError, ValueError):  # no such charset, or no such body
        return parameters
    parameters |= {name: value for name, value in body.items() if isinstance(value, str)}
    scheme, _, encoded = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return parameters
        parameters |= {"client_id": client_id, "client_secret": secret}
    return parameters


def _refusal(error: str, description: str) -> web.Response:
    body = {"error": error, "error_description": description}
    return web.json_response(body, status=400, headers=_NO_STORE)

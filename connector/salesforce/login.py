"""The session with the org: one access token for REST and streaming, renewed once however many saw it expire."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp
import structlog

from connector.errors import AnotherOrg, ConnectorError, LinkDown, LoginRefused, OrgThrottled, TransientError
from connector.model.codes import is_daily_limit
from connector.model.ids import to_record_id
from connector.salesforce import flows
from connector.salesforce.answers import Answer, problems, server_ms
from connector.salesforce.login_answers import RATE_WAIT_S, Grant, SignatureRefused, Token, grant, instance_url, org_of
from connector.salesforce.token_store import TokenStore
from connector.salesforce.wire import parse
from connector.settings import SalesforceSettings, Secrets

log = structlog.get_logger()

# More logins than this mean that new tokens die at once: asking faster would only bring a lock-out nearer.
_MOST_LOGINS = 5
_LOGIN_WINDOW_S = 60.0
_CLOSE_WAIT_S = 5.0
# After a refusal; then twice as long each time. Orgs lock a user after ten refusals, or three, for a while or for good.
_REFUSED_WAIT_S, _LONGEST_REFUSED_WAIT_S = 900.0, 6 * 3600.0
_SKEW_WORTH_MENDING_S = 30.0
_TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - an address
_USER_INFO_PATH = "/services/oauth2/userinfo"


class Session:
    """Logs in when a token is first asked for, and again when one is found dead.

    Args:
        settings: Hosts and the time-out of one request.
        secrets: Credentials of the flow.
        flow: As `Settings.auth_flow` tells.
        now_ms: Milliseconds since the Unix epoch, UTC.
        store: Keeps rotated refresh tokens; needed for the refresh_token flow only.
    """

    def __init__(
        self,
        settings: SalesforceSettings,
        secrets: Secrets,
        flow: str,
        *,
        now_ms: Callable[[], int],
        store: TokenStore | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._flow = flow
        self._now_ms = now_ms
        self._store = store
        self._host = settings.login_url or settings.instance_url
        self._token: Token | None = None
        self._flight: asyncio.Task[Token] | None = None
        self._refusals = 0
        self._held: tuple[float, ConnectorError] | None = None
        self._logins: deque[float] = deque(maxlen=_MOST_LOGINS)
        self._refresh_token = ""
        self._unsaved = False
        self._given_out = False
        self._skew_s = 0.0
        self._org_id: str | None = None

    def __repr__(self) -> str:
        return f"Session(flow={self._flow!r}, host={self._host!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let a login that is under way end: the answer may hold the only refresh token that is alive."""
        if self._flight is not None and not self._flight.done():
            await asyncio.wait([self._flight], timeout=_CLOSE_WAIT_S)
            self._flight.cancel()
            with suppress(asyncio.CancelledError, ConnectorError):
                await self._flight

    def expect_org(self, org_id: str) -> None:
        """From here on no token of another org is given out: the replica holds this one's records."""
        self._org_id = org_id

    async def token(self) -> Token:
        """The token to use.

        Raises:
            AnotherOrg: The login led to another org than the one that is expected.
            LoginRefused: A person must change something. Asked again before `retry_after_s`, no request is sent.
            TransientError: The org cannot be reached or wants us to wait.
        """
        return self._token if self._token is not None else await self._login_once()

    async def renew(self, stale: Token) -> Token:
        """A token in place of one that the org no longer takes.

        Raises:
            AnotherOrg, LoginRefused, TransientError: As `token`.
        """
        if self._token is not None and self._token.value != stale.value:
            return self._token
        self._token = None
        return await self._login_once()

    async def _login_once(self) -> Token:
        """Join the login that is under way, or start one. It goes on even if all who wait for it are cancelled."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._login(), name="salesforce.login")
            self._flight.add_done_callback(_look_at)
        return await asyncio.shield(self._flight)

    async def _login(self) -> Token:
        self._check_hold()
        try:
            granted = await self._granted()
        except LoginRefused as error:
            wait_s = min(_REFUSED_WAIT_S * 2 ** min(self._refusals, 20), _LONGEST_REFUSED_WAIT_S)
            self._refusals += 1
            refused = LoginRefused(str(error), retry_after_s=wait_s)
            self._held = (_monotonic() + wait_s, refused)
            log.error("login.refused", flow=self._flow, error=str(error), retry_after_s=wait_s)  # noqa: TRY400 - the message says all
            raise refused from error
        except TransientError as error:
            if error.retry_after_s is not None:
                self._held = (_monotonic() + error.retry_after_s, error)
            log.warning("login.failed", flow=self._flow, error=str(error), retry_after_s=error.retry_after_s)
            raise
        self._logins.append(_monotonic())  # one that nobody answered is no token that died
        if self._org_id not in (None, granted.token.org_id):
            raise AnotherOrg(
                f"the replica holds org {self._org_id}, the login is of org {granted.token.org_id}: "
                "set another storage.path"
            )
        self._token, self._refusals = granted.token, 0
        log.info(
            "login.succeeded",
            flow=self._flow,
            instance_url=granted.token.instance_url,
            org_id=granted.token.org_id,
            user_id=granted.token.user_id,
        )
        return granted.token

    def _check_hold(self) -> None:
        now_s = _monotonic()
        if self._held is not None and now_s < self._held[0]:
            until_s, why = self._held
            raise (LoginRefused if isinstance(why, LoginRefused) else OrgThrottled)(
                str(why), retry_after_s=until_s - now_s
            )
        if len(self._logins) == _MOST_LOGINS and now_s - self._logins[0] < _LOGIN_WINDOW_S:
            wait_s = _LOGIN_WINDOW_S - (now_s - self._logins[0])
            raise OrgThrottled("new access tokens are refused at once", retry_after_s=wait_s)

    async def _granted(self) -> Grant:
        match self._flow:
            case "access_token":
                return await self._given()
            case "jwt":
                return await self._signed()
            case "refresh_token":
                return await self._refreshed()
            case _:
                return await self._ask(flows.form(self._flow, self._secrets))

    async def _given(self) -> Grant:
        """The token of the settings: it can not be renewed."""
        if self._given_out:
            raise LoginRefused("the access token has expired or was revoked; set a new SF_ACCESS_TOKEN")
        value = self._secrets.sf_access_token.get_secret_value()
        base = instance_url(self._settings.instance_url)
        if org_id := org_of(value):
            self._given_out = True
            return Grant(Token(value, base, org_id, None))
        answer = await self._request("GET", base + _USER_INFO_PATH, headers={"Authorization": f"Bearer {value}"})
        try:
            user = parse(answer.body)
            token = Token(value, base, to_record_id(user["organization_id"]), to_record_id(user["user_id"]))
        except (ValueError, KeyError, TypeError):
            if is_daily_limit(problems(answer)):
                raise OrgThrottled("the org's API requests are used up", retry_after_s=RATE_WAIT_S) from None
            if answer.status in (400, 401, 403):
                raise LoginRefused(f"SF_ACCESS_TOKEN: userinfo answered HTTP {answer.status}") from None
            raise LinkDown(f"userinfo: HTTP {answer.status} without the ids of org and user") from None
        self._given_out = True
        return Grant(token)

    async def _signed(self) -> Grant:
        """Sign an assertion; sign once more where the clock or the audience was what the org refused."""
        key = await asyncio.to_thread(flows.read_key, Path(self._secrets.sf_private_key_file))
        audience = flows.audience(self._host)
        try:
            return await self._ask_signed(key, audience)
        except SignatureRefused as error:
            if error.for_audience:
                audience = flows.other_audience(self._host)
            log.warning("login.signed_again", error=str(error), skew_s=round(self._skew_s))
            return await self._ask_signed(key, audience)

    async def _ask_signed(self, key: str, audience: str) -> Grant:
        # Signing with RSA takes milliseconds that belong to the streams.
        now_s = self._now_ms() / 1000 + self._skew_s
        assertion = await asyncio.to_thread(flows.assertion, self._secrets, key, audience=audience, now_s=now_s)
        return await self._ask(flows.form("jwt", self._secrets, assertion=assertion))

    async def _refreshed(self) -> Grant:
        """Use the newest refresh token, and store the one that replaces it before the access token is used."""
        configured = self._secrets.sf_refresh_token.get_secret_value()
        if self._store is not None and not self._unsaved:
            # Each time: another process (doctor beside the daemon) may have rotated it meanwhile.
            try:
                stored = await self._store.load(configured)
            except OSError as error:
                raise TransientError(f"the stored refresh token cannot be read: {error.strerror}") from error
            if stored != configured or not self._refresh_token:
                self._refresh_token = stored
        await self._save_rotated()
        used = self._refresh_token or configured
        granted = await self._ask(flows.form("refresh_token", self._secrets, refresh_token=used))
        if granted.refresh_token is not None and granted.refresh_token != used:
            self._refresh_token, self._unsaved = granted.refresh_token, True
            await self._save_rotated()
        return granted

    async def _save_rotated(self) -> None:
        """Raises TransientError while the disk refuses: the token stays in memory and is tried again first."""
        if not self._unsaved:
            return
        if self._store is not None:
            try:
                await self._store.save(self._secrets.sf_refresh_token.get_secret_value(), self._refresh_token)
            except OSError as error:
                raise TransientError(f"the new refresh token cannot be stored: {error.strerror}") from error
            log.info("login.refresh_token_stored")
        self._unsaved = False

    async def _ask(self, form: dict[str, str]) -> Grant:
        answer = await self._request("POST", self._host + _TOKEN_PATH, data=form)
        try:
            return grant(answer)
        except SignatureRefused:
            with suppress(LinkDown):
                skew_s = (server_ms(answer.headers) - self._now_ms()) / 1000
                self._skew_s = skew_s if abs(skew_s) > _SKEW_WORTH_MENDING_S else 0.0
            raise

    async def _request(
        self, method: str, url: str, *, data: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout.total_seconds())
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.request(method, url, data=data, headers=headers, allow_redirects=False) as response,
            ):
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise LinkDown(f"login: {type(error).__name__}") from error


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


def _look_at(flight: asyncio.Task[Token]) -> None:
    """Mark the outcome as seen even if nobody waits for it any more; it is logged where it happens."""
    if not flight.cancelled():
        flight.exception()

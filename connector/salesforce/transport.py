"""One HTTP call to the org by simple-salesforce: in a worker thread, with a time-out, counted, repeated after a 401.

simple-salesforce is used in direct mode (a token and an address, no login of its own), because its own repetition
after a 401 drops the caller's headers: a conditional write would become an unconditional one.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import requests
import structlog
import urllib3.exceptions as urllib3_errors

from connector.errors import ConnectorError, LinkDown, OrgUnavailable, StoreBusy
from connector.model.codes import EXPIRED_SESSION, is_daily_limit
from connector.ports import Purpose
from connector.salesforce.answers import Answer, clock_ms, is_success, problems
from connector.salesforce.budget import ApiBudget
from connector.salesforce.library import Salesforce, SalesforceError
from connector.salesforce.login import Session
from connector.salesforce.login_answers import Token

log = structlog.get_logger()

WORKERS = 8
_CHUNK_BYTES = 64 * 1024
_UNAUTHORIZED = 401
_CSV = "text/csv; charset=UTF-8"
# requests' time-out is of one wait for the socket; an answer that trickles is given up after so many of them.
_TRICKLE_FACTOR = 10
_NEVER_CONNECTED = (urllib3_errors.NewConnectionError, urllib3_errors.ConnectTimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call.

    Attributes:
        path: Below `/services/data/vXX.X/`; with a slash in front below the host.
        json: Body, encoded as JSON; None for none.
        csv: Body that is CSV, in place of JSON.
        sink: Takes the chunks of a successful answer's body in the worker thread; the answer's own is then empty.
    """

    method: str
    path: str
    purpose: Purpose
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    csv: bytes | None = None
    sink: Callable[[Iterator[bytes]], None] | None = None


class Transport:
    """Sends requests; `async with` opens and closes it.

    Args:
        session: Gives the token.
        budget: Grants and counts each call.
        api_version: For instance `58.0`.
        timeout_s: Of the connection and of each wait for the answer.
    """

    def __init__(self, session: Session, budget: ApiBudget, *, api_version: str, timeout_s: float) -> None:
        self._session = session
        self._budget = budget
        self._api_version = api_version
        self._timeout_s = timeout_s
        self._threads: ThreadPoolExecutor | None = None
        self._free = asyncio.Semaphore(WORKERS)
        self._local = threading.local()
        self._opened: list[requests.Session] = []
        self._clock: tuple[int, float] | None = None  # the org's, and when it was told

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="salesforce.rest")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; a call that is still under way ends by its own time-out."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for opened in self._opened:
            opened.close()
        self._opened.clear()

    async def token(self) -> Token:
        """The token that calls are made with."""
        return await self._session.token()

    def clock_ms(self) -> int | None:
        """The org's clock now, from its newest answer and the time since; None before the first one."""
        if self._clock is None:
            return None
        told_ms, at_s = self._clock
        return told_ms + int((time.monotonic() - at_s) * 1000)

    async def send(self, request: Request) -> Answer:
        """The org's answer, whatever its status; a dead token is renewed and the call repeated once, as it was.

        Raises:
            OrgThrottled: The budget grants no call for this purpose.
            OrgUnavailable: No connection was made, or the call could not be counted: the org has not seen the request.
            LinkDown: The answer was lost.
            LoginRefused: The credentials are refused.
        """
        token = await self._unsent(self._session.token())
        answer = await self._send(token, request)
        if _expired(answer):
            log.info("rest.token_expired", path=_resource(request.path))
            answer = await self._send(await self._unsent(self._session.renew(token)), request)
        return answer

    async def _unsent(self, login: Awaitable[Token]) -> Token:
        """The token; without one the request was not sent, whatever became of the login."""
        try:
            return await login
        except LinkDown as error:
            raise OrgUnavailable(str(error), retry_after_s=error.retry_after_s) from error

    async def _send(self, token: Token, request: Request) -> Answer:
        await self._take(request.purpose)
        answer = await self._in_thread(token, request)
        self._budget.answered(answer.headers)
        told_ms = clock_ms(answer.headers)
        self._clock = self._clock if told_ms is None else (told_ms, time.monotonic())
        if not is_success(answer.status) and is_daily_limit(problems(answer)):
            self._budget.used_up()
        return answer

    async def _take(self, purpose: Purpose) -> None:
        try:
            await self._budget.take(purpose)
        except StoreBusy as error:
            raise OrgUnavailable(f"the call could not be counted: {error}") from error

    async def _in_thread(self, token: Token, request: Request) -> Answer:
        if self._threads is None:
            raise RuntimeError("the transport is not open")
        try:
            async with asyncio.timeout(self._timeout_s * _TRICKLE_FACTOR):
                await self._free.acquire()
                call = asyncio.get_running_loop().run_in_executor(self._threads, self._call, token, request)
                # The thread is busy until the call ends, even if nobody waits for it any more.
                call.add_done_callback(self._freed)
                return await asyncio.shield(call)
        except TimeoutError as error:
            raise LinkDown("no whole answer in time") from error

    def _freed(self, call: "asyncio.Future[Answer]") -> None:
        self._free.release()
        if not call.cancelled():
            call.exception()

    def _call(self, token: Token, request: Request) -> Answer:
        """Runs in a worker thread."""
        connection = self._connection(token)
        try:
            return connection.send(request, self._timeout_s)
        except (requests.RequestException, urllib3_errors.HTTPError, UnicodeDecodeError) as error:
            # The libraries' own texts hold the address with its query, and so field values.
            raise _translated(error) from None

    def _connection(self, token: Token) -> "_Connection":
        """This thread's connection, made anew for a new token or a new instance."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.token != token:
            opened = connection.session if connection is not None else self._open()
            connection = self._local.connection = _Connection(token, self._api_version, opened)
        return connection

    def _open(self) -> requests.Session:
        opened = requests.Session()
        # Neither proxies nor a .netrc, whose password would replace our token.
        opened.trust_env = False
        self._opened.append(opened)
        return opened


class _Connection(Salesforce):
    """simple-salesforce with one token, at one instance, in one thread."""

    def __init__(self, token: Token, api_version: str, session: requests.Session) -> None:
        super().__init__(session_id=token.value, instance_url=token.instance_url, version=api_version, session=session)
        # The library knows https alone; the local org is plain http on this machine.
        self.base_url = f"{token.instance_url}/services/data/v{api_version}/"
        # Pretty-printed answers are larger by a third and tell nothing more.
        self.headers.pop("X-PrettyPrint", None)
        self.token = token

    def send(self, request: Request, timeout_s: float) -> Answer:
        """Send one request and read its answer."""
        received: list[requests.Response] = []
        url = self.token.instance_url + request.path if request.path[:1] == "/" else self.base_url + request.path
        # The library raises for any status from 300 on; which error it is, status and errorCode decide together.
        headers = dict(request.headers) | ({} if request.csv is None else {"Content-Type": _CSV})
        with suppress(SalesforceError):
            self._call_salesforce(
                request.method,
                url,
                params=dict(request.params),
                headers=headers,
                json=request.json,
                data=request.csv,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
                hooks={"response": lambda response, **_: received.append(response)},
            )
        with received[-1] as response:
            return _read(response, request)


def _read(response: requests.Response, request: Request) -> Answer:
    if request.sink is None or not is_success(response.status_code):
        return Answer(response.status_code, response.headers, response.content)
    request.sink(response.iter_content(_CHUNK_BYTES))
    return Answer(response.status_code, response.headers, b"")


def _expired(answer: Answer) -> bool:
    return answer.status == _UNAUTHORIZED and any(p["code"] == EXPIRED_SESSION for p in problems(answer))


def _translated(error: Exception) -> ConnectorError:
    name = type(error).__name__
    if _never_sent(error):
        return OrgUnavailable(f"no connection: {name}")
    return LinkDown(f"no answer: {name}")


def _never_sent(error: Exception) -> bool:
    """True if no connection was made, so that the org cannot have seen the request."""
    if not isinstance(error, requests.ConnectionError) or not error.args:
        return False
    cause = getattr(error.args[0], "reason", error.args[0])
    return isinstance(cause, _NEVER_CONNECTED) or "CERTIFICATE_VERIFY_FAILED" in str(cause)


def _resource(path: str) -> str:
    """The path's first part: the rest may hold an external id."""
    return path.strip("/").partition("/")[0]

"""What an answer of the token endpoint means: a token, a wait, a clock to correct, or the end.

Source: Salesforce Help, "OAuth 2.0 Authorization Errors".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from connector.errors import ConnectorError, LinkDown, LoginRefused, OrgThrottled, OrgUnavailable
from connector.model.codes import is_daily_limit
from connector.model.ids import RecordId, to_record_id
from connector.salesforce.answers import Answer, is_success, problems, retry_after_s
from connector.salesforce.wire import parse
from connector.settings import is_loopback

RATE_WAIT_S = 300.0

_RATE_LIMITS = ("rate_limit_exceeded", "login rate exceeded")
_TEMPORARY = frozenset({"server_error", "temporarily_unavailable", "unknown_error"})
# What a signer can put right: its clock or its audience.
_SIGNATURE = ("audience validation failed", "invalid assertion", "expired authorization code")
_TEXT_LENGTH = 200
_NOT_A_LOGIN = frozenset({400, 401, 404, 405, 410})
_ORG_ID_LENGTH = 15

_NEXT_STEP = {
    "authentication failure": "check user name, password, security token, the user's IP ranges and login hours",
    "hasn't approved this consumer": "let the app's policies pre-authorise the user",
    "not admin approved": "give the user the permission set that the app's policies name",
    "audience validation failed": "check salesforce.login_url: login, test or the org's My Domain",
    "invalid assertion": "check SF_CLIENT_ID, SF_PRIVATE_KEY_FILE and the certificate uploaded to the app",
    "expired authorization code": "check this machine's clock",
    "expired access/refresh token": "authorise the app again and set the new SF_REFRESH_TOKEN",
    "not supported on this domain": "set salesforce.login_url to the org's My Domain",
    "no client credentials user": "choose a Run As user in the app's client credentials settings",
    "client identifier invalid": "check SF_CLIENT_ID",
    "invalid client credentials": "check SF_CLIENT_SECRET",
    "grant type not supported": "enable the flow in the app, or choose another salesforce.auth",
}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and where it is good for.

    Attributes:
        value: The secret; never in `repr`.
        instance_url: Base of every call made with it, without a slash at the end.
        org_id: 18-character id of the org.
        user_id: Of the user it acts as; None where the flow does not tell.
    """

    value: str = field(repr=False)
    instance_url: str
    org_id: RecordId
    user_id: RecordId | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A successful answer.

    Attributes:
        refresh_token: The new one where they rotate: the old one is dead.
    """

    token: Token
    refresh_token: str | None = field(default=None, repr=False)


class SignatureRefused(LoginRefused):
    """The assertion was refused for something that signing it again may put right."""

    @property
    def for_audience(self) -> bool:
        """True if it was the audience."""
        return "audience" in str(self).lower()


def grant(answer: Answer) -> Grant:
    """The token of an answer of the token endpoint.

    Raises:
        SignatureRefused: Sign again, once.
        LoginRefused: A person must change something; do not ask again.
        TransientError: Ask again later.
    """
    if not is_success(answer.status):
        raise _failure(answer)
    try:
        return _read(parse(answer.body))
    except (ValueError, KeyError, TypeError) as error:
        raise LinkDown("the token endpoint answered without a usable token") from error


def _read(value: Any) -> Grant:
    secret, rotated = value["access_token"], value.get("refresh_token")
    if not (isinstance(secret, str) and secret.isascii() and secret.isprintable()):
        raise ValueError("access_token")
    org_id, user_id = _identity(value.get("id"), secret)
    token = Token(secret, instance_url(value["instance_url"]), org_id, user_id)
    return Grant(token, rotated if isinstance(rotated, str) and rotated else None)


def instance_url(text: str) -> str:
    """The base of data calls, as a token answer names it.

    Raises:
        ValueError: Not https, and not http to this machine.
    """
    parts = urlsplit(text)
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not secure or not parts.hostname:
        raise ValueError("instance_url")
    return f"{parts.scheme}://{parts.netloc}"


def _identity(url: Any, token: str) -> tuple[RecordId, RecordId | None]:
    """Org and user id of an identity URL, `<host>/id/<org id>/<user id>`; the org's else of the token itself."""
    if isinstance(url, str) and "/id/" in url:
        org, _, user = url.rpartition("/id/")[2].partition("/")
        return to_record_id(org), to_record_id(user)
    org_id = org_of(token)
    if org_id is None:
        raise ValueError("id")
    return org_id, None


def org_of(token: str) -> RecordId | None:
    """The org id that an opaque access token begins with; None for a token of another kind."""
    org, mark, _ = token.partition("!")
    try:
        return to_record_id(org) if mark and len(org) == _ORG_ID_LENGTH else None
    except ValueError:
        return None


def _failure(answer: Answer) -> ConnectorError:
    if is_daily_limit(problems(answer)):
        # The API's quota, told with the API's error array: the credentials have not been looked at.
        return OrgThrottled("the org's API requests of 24 hours are used up", retry_after_s=RATE_WAIT_S)
    code, text = _oauth_error(answer.body)
    said = f"{code}: {text}" if text else code
    if any(rate in said.lower() for rate in _RATE_LIMITS):
        return OrgThrottled("too many logins", retry_after_s=retry_after_s(answer.headers) or RATE_WAIT_S)
    other = not code and answer.status not in _NOT_A_LOGIN
    if answer.status >= 500 or other or code in _TEMPORARY:  # noqa: PLR2004 - the range of HTTP's server errors
        return OrgUnavailable(f"login: HTTP {answer.status}", retry_after_s=retry_after_s(answer.headers))
    if not code:
        return LoginRefused(f"HTTP {answer.status} is no answer of a Salesforce login: check salesforce.login_url")
    step = next((step for part, step in _NEXT_STEP.items() if part in text.lower()), "")
    kind = SignatureRefused if any(part in text.lower() for part in _SIGNATURE) else LoginRefused
    return kind(f"{said}; {step}" if step else said)


def _oauth_error(body: bytes) -> tuple[str, str]:
    """`error` and `error_description`, shortened to one printable line; empty where the body has another shape."""
    try:
        value = parse(body)
    except ValueError:
        return "", ""
    if not isinstance(value, Mapping):
        return "", ""
    code, text = (_line(value.get(name)) for name in ("error", "error_description"))
    return code, text


def _line(value: Any) -> str:
    return "".join(c for c in value if c.isprintable())[:_TEXT_LENGTH] if isinstance(value, str) else ""

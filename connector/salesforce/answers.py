"""What an answer of the REST or Bulk API means: status and `errorCode` together decide the error.

Source: REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer Guide, "Core Data Types Used
in API Calls" (StatusCode, ExceptionCode).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from connector.errors import (
    ConnectorError,
    LinkDown,
    OrgRefused,
    OrgThrottled,
    OrgUnavailable,
    PreconditionFailed,
    RecordGone,
    RowLocked,
    TransientError,
)
from connector.model.codes import (
    EXPIRED_SESSION,
    LOCKED,
    MAINTENANCE,
    MODIFIED,
    Reaction,
    is_daily_limit,
    is_lock,
    reaction_to,
    wait_s,
)
from connector.model.command import OrgProblem
from connector.salesforce.wire import parse

_THROTTLED_WAIT_S = 30.0
_REFUSED_TOKEN_WAIT_S = 60.0
_MOST_WAIT_S = 3600.0

# Sent by the gateway in front of the org, without an error array, and just as final.
_FINAL_WITHOUT_BODY = frozenset({405, 411, 413, 414, 415, 428, 431})
_BALANCER_BUSY = 420
_MOST_PROBLEMS = 50
_MOST_MATCHES = 10
_LIMIT_INFO = re.compile(r"(?<!per-app-)api-usage=(\d{1,12})/(\d{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        headers: Looked up without regard to case.
        body: Empty where a sink took it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def content(answer: Answer, *, write: bool = False) -> Any:
    """The JSON of a successful answer; None where it has no body.

    Raises:
        ConnectorError: The org refused, cannot serve, or answered something else than JSON; see `failure`.
    """
    if not is_success(answer.status):
        raise failure(answer, write=write)
    if not answer.body:
        return None
    try:
        return parse(answer.body)
    except ValueError as error:
        raise LinkDown(f"HTTP {answer.status} with a body that is not JSON") from error


def is_success(status: int) -> bool:
    """True for 2xx."""
    return 200 <= status < 300  # noqa: PLR2004 - the range of HTTP's successes


def failure(answer: Answer, *, write: bool = False) -> ConnectorError:
    """The error that an unsuccessful answer stands for.

    Args:
        answer: Its status is not 2xx.
        write: The request was a write: an answer that leaves open whether it was taken is a lost one.
    """
    errors = problems(answer)
    waiting = not_now(errors, retry_after_s(answer.headers), write=write) or _not_now(answer, errors, write=write)
    return waiting or _refused(answer, errors)


def not_now(errors: Sequence[OrgProblem], asked_s: float | None = None, *, write: bool) -> TransientError | None:
    """The error that says when what these errors refused may be tried again; None where they are final.

    `asked_s`: the wait that the answer's headers ask for.
    """
    named = ", ".join(sorted({p["code"] for p in errors}))
    match reaction_to(errors):
        case Reaction.WAIT if any(p["code"] in MAINTENANCE for p in errors):
            return OrgUnavailable("the org is in maintenance", retry_after_s=asked_s or wait_s(errors))
        case Reaction.WAIT:
            text = "the org's API requests of 24 hours are used up" if is_daily_limit(errors) else named
            return OrgThrottled(text, retry_after_s=wait_s(errors))
        case Reaction.UNCERTAIN:
            return (LinkDown if write else OrgUnavailable)(named, retry_after_s=asked_s)
        case Reaction.RETRY if any(is_lock(p) for p in errors):
            return RowLocked(LOCKED, retry_after_s=asked_s)
        case Reaction.RETRY:
            refused = any(p["code"] == EXPIRED_SESSION for p in errors)
            return OrgUnavailable(named, retry_after_s=_REFUSED_TOKEN_WAIT_S if refused else asked_s)
        case _:
            return None


def _not_now(answer: Answer, errors: Sequence[OrgProblem], *, write: bool) -> TransientError | None:
    """The same by the status alone."""
    status, asked_s = answer.status, retry_after_s(answer.headers)
    named = ", ".join((f"HTTP {status}", *sorted({p["code"] for p in errors})))
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return OrgThrottled(named, retry_after_s=asked_s or _THROTTLED_WAIT_S)
    if status == 503:  # noqa: PLR2004 - Service Unavailable
        return OrgUnavailable(named, retry_after_s=asked_s)
    if status >= 500 or status == _BALANCER_BUSY:  # noqa: PLR2004 - 5xx
        # A gateway gives up before the org does: the write may have been committed behind its back.
        return (LinkDown if write else OrgUnavailable)(named, retry_after_s=asked_s)
    return None


def _refused(answer: Answer, errors: tuple[OrgProblem, ...]) -> ConnectorError:
    status = answer.status
    if status == 412:  # noqa: PLR2004 - Precondition Failed
        return PreconditionFailed(status, errors or (_stated(MODIFIED, "the record was modified"),))
    if status == 300:  # noqa: PLR2004 - Multiple Choices: the body is a list of addresses
        return OrgRefused(status, (_stated("DUPLICATE_EXTERNAL_ID", "several records have this external id"),))
    deleted = any(p["code"] == "ENTITY_IS_DELETED" for p in errors)
    if deleted or (status == 404 and errors):  # noqa: PLR2004 - Not Found
        return RecordGone(status, errors)
    if errors:
        return OrgRefused(status, errors)
    if status in _FINAL_WITHOUT_BODY:
        return OrgRefused(status, (_stated(f"HTTP_{status}", "refused by the gateway"),))
    return LinkDown(f"HTTP {status} with a body that is not the org's")


def problems(answer: Answer) -> tuple[OrgProblem, ...]:
    """The org's errors; empty where the body does not have their shape."""
    try:
        return problems_of(parse(answer.body))
    except ValueError:
        return ()


def problems_of(value: Any) -> tuple[OrgProblem, ...]:
    """The errors in an error array, or in the `errors` of a composite part; what has another shape is left out."""
    items = value if isinstance(value, list) else [value]
    return tuple(p for item in items[:_MOST_PROBLEMS] if (p := _problem(item)) is not None)


def _problem(item: Any) -> OrgProblem | None:
    if not isinstance(item, dict):
        return None
    code = item.get("errorCode") or item.get("statusCode") or item.get("error")
    if not isinstance(code, str):
        return None
    fields = item.get("fields")
    message = str(item.get("message") or item.get("error_description") or "")
    matches = _matches(item)
    return OrgProblem(
        code=code,
        message=f"{message} ({', '.join(matches)})" if matches else message,
        fields=[str(name) for name in fields] if isinstance(fields, list) else [],
    )


def _matches(item: Mapping[str, Any]) -> list[str]:
    """Ids of the records that a duplicate rule found; the member is misspelt on many versions."""
    result = item.get("duplicateResut") or item.get("duplicateResult")
    found: list[str] = []
    try:
        for match in result["matchResults"] if result else ():
            found.extend(str(entry["record"]["Id"]) for entry in match["matchRecords"])
    except (KeyError, TypeError):
        pass  # They are a help for the reader, not needed to decide.
    return found[:_MOST_MATCHES]


def _stated(code: str, message: str) -> OrgProblem:
    return OrgProblem(code=code, message=message, fields=[])


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, an hour at most; None where it asks for nothing (or gives a date)."""
    text = headers.get("Retry-After", "").strip()
    return min(float(text), _MOST_WAIT_S) if text.isascii() and text.isdigit() else None


def server_ms(headers: Mapping[str, str]) -> int:
    """The org's clock when it answered, milliseconds since the Unix epoch, UTC.

    Raises:
        LinkDown: There is no readable `Date`; without it a poll's window has no upper bound.
    """
    try:
        return int(parsedate_to_datetime(headers["Date"]).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError) as error:
        raise LinkDown("an answer without a readable Date header") from error


def clock_ms(headers: Mapping[str, str]) -> int | None:
    """The same for an answer that stands without it: None where there is no readable `Date`."""
    try:
        return server_ms(headers)
    except LinkDown:
        return None


def api_usage(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """Requests used and allowed in 24 hours, of `Sforce-Limit-Info`; None where it does not tell.

    Source: REST API Developer Guide, "Limit Info Header".
    """
    match = _LIMIT_INFO.search(headers.get("Sforce-Limit-Info", ""))
    return (int(match[1]), int(match[2])) if match else None

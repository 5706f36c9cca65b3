"""The org's error codes and the reaction to each: the one table, documented in docs/commands.md.

A code that is not here is final: the request is wrong as it is, and a repetition would be refused again.

Source: SOAP API Developer Guide, "Core Data Types Used in API Calls" (StatusCode, ExceptionCode); REST API Developer
Guide, "Status Codes and Error Responses".
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from connector.model.command import OrgProblem


class Reaction(StrEnum):
    """What an error asks for.

    Attributes:
        RETRY: The write was not taken; it may be in a moment (a lock, a busy server, an innocent bystander).
        WAIT: The org takes no request of this kind now, whoever sends it (a quota, maintenance).
        UNCERTAIN: The org failed while it worked: it may have taken the write.
        CONFLICT: The record is not as the write expected it: read it, and decide again.
        GONE: The record is deleted or was never there: what a delete wants, the end of an update.
        DUPLICATE: A unique value is taken; on a repeated create by the first attempt.
        FAIL: Final.
    """

    RETRY = "retry"
    WAIT = "wait"
    UNCERTAIN = "uncertain"
    CONFLICT = "conflict"
    GONE = "gone"
    DUPLICATE = "duplicate"
    FAIL = "fail"


LIMIT = "REQUEST_LIMIT_EXCEEDED"
LOCKED = "UNABLE_TO_LOCK_ROW"
EXPIRED_SESSION = "INVALID_SESSION_ID"
MODIFIED = "PRECONDITION_FAILED"
HALTED = "PROCESSING_HALTED"
MAINTENANCE = frozenset({"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "INVALID_READ_ONLY_USER_DML"})
DAILY_LIMIT_WAIT_S = 300.0

REACTIONS: Mapping[str, Reaction] = {
    LOCKED: Reaction.RETRY,
    "SERVER_UNAVAILABLE": Reaction.RETRY,
    "REQUEST_RUNNING_TOO_LONG": Reaction.RETRY,
    "QUERY_TIMEOUT": Reaction.RETRY,
    "TOO_MANY_APEX_REQUESTS": Reaction.RETRY,
    "ALL_OR_NONE_OPERATION_ROLLED_BACK": Reaction.RETRY,
    HALTED: Reaction.RETRY,
    EXPIRED_SESSION: Reaction.RETRY,
    LIMIT: Reaction.WAIT,
    **dict.fromkeys(sorted(MAINTENANCE), Reaction.WAIT),
    # These end when a person makes room; the request itself is right and keeps its place meanwhile.
    "STORAGE_LIMIT_EXCEEDED": Reaction.WAIT,
    "EXCEEDED_QUOTA": Reaction.WAIT,
    "LIMIT_EXCEEDED": Reaction.WAIT,
    "ORG_LOCKED": Reaction.WAIT,
    "TRIAL_EXPIRED": Reaction.WAIT,
    "UNKNOWN_EXCEPTION": Reaction.UNCERTAIN,
    MODIFIED: Reaction.CONFLICT,
    "MATCH_PRECONDITION_FAILED": Reaction.CONFLICT,
    "ENTITY_IS_DELETED": Reaction.GONE,
    "NOT_FOUND": Reaction.GONE,
    "INVALID_CROSS_REFERENCE_KEY": Reaction.GONE,
    "DUPLICATE_VALUE": Reaction.DUPLICATE,
    "DUPLICATE_EXTERNAL_ID": Reaction.DUPLICATE,
    # Final, named because people look for them here.
    "DUPLICATES_DETECTED": Reaction.FAIL,
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": Reaction.FAIL,
    "FIELD_FILTER_VALIDATION_EXCEPTION": Reaction.FAIL,
    "FIELD_INTEGRITY_EXCEPTION": Reaction.FAIL,
    "REQUIRED_FIELD_MISSING": Reaction.FAIL,
    "STRING_TOO_LONG": Reaction.FAIL,
    "NUMBER_OUTSIDE_VALID_RANGE": Reaction.FAIL,
    "INVALID_EMAIL_ADDRESS": Reaction.FAIL,
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": Reaction.FAIL,
    "INVALID_FIELD_FOR_INSERT_UPDATE": Reaction.FAIL,
    "INVALID_FIELD": Reaction.FAIL,
    "INVALID_TYPE": Reaction.FAIL,
    "MALFORMED_ID": Reaction.FAIL,
    "JSON_PARSER_ERROR": Reaction.FAIL,
    "CANNOT_EXECUTE_FLOW_TRIGGER": Reaction.FAIL,
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": Reaction.FAIL,
    "DELETE_FAILED": Reaction.FAIL,
    "ENTITY_IS_LOCKED": Reaction.FAIL,
    "CANNOT_UPDATE_CONVERTED_LEAD": Reaction.FAIL,
    "INSUFFICIENT_ACCESS_OR_READONLY": Reaction.FAIL,
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": Reaction.FAIL,
    "INACTIVE_OWNER_OR_USER": Reaction.FAIL,
}
# A trigger or flow that ran into a lock reports it inside its own error's text.
_WRAPPING = frozenset({"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER"})
_CONCURRENT_WAIT_S = 5.0
_MAINTENANCE_WAIT_S = 300.0
_PERSON_WAIT_S = 600.0
# Of several errors the most certain end decides: a write that is wrong stays wrong when the lock has gone.
_ORDER = (
    Reaction.FAIL,
    Reaction.DUPLICATE,
    Reaction.GONE,
    Reaction.CONFLICT,
    Reaction.UNCERTAIN,
    Reaction.WAIT,
    Reaction.RETRY,
)


def reaction(problem: OrgProblem) -> Reaction:
    """The reaction to one error."""
    return Reaction.RETRY if is_lock(problem) else REACTIONS.get(problem["code"], Reaction.FAIL)


def reaction_to(problems: Sequence[OrgProblem]) -> Reaction:
    """The reaction to everything that is said of one write; FAIL where nothing is."""
    found = {reaction(problem) for problem in problems}
    return next((r for r in _ORDER if r in found), Reaction.FAIL)


def wait_s(problems: Sequence[OrgProblem]) -> float | None:
    """How long the errors ask to wait, seconds; None where they do not: back off."""
    waits = [_wait_s(problem) for problem in problems if reaction(problem) is Reaction.WAIT]
    return max(waits, default=None)


def is_lock(problem: OrgProblem) -> bool:
    """True for a lock, also one inside a trigger's text."""
    return problem["code"] == LOCKED or (problem["code"] in _WRAPPING and LOCKED in problem["message"])


def is_daily_limit(problems: Iterable[OrgProblem]) -> bool:
    """True if the quota of 24 hours is used up, rather than that of concurrent requests."""
    return any(p["code"] == LIMIT and "concurrent" not in p["message"].lower() for p in problems)


def _wait_s(problem: OrgProblem) -> float:
    if problem["code"] == LIMIT:
        return DAILY_LIMIT_WAIT_S if is_daily_limit([problem]) else _CONCURRENT_WAIT_S
    return _MAINTENANCE_WAIT_S if problem["code"] in MAINTENANCE else _PERSON_WAIT_S

"""The table of the org's error codes: what it says, and that the documentation says the same."""

import re
from pathlib import Path

import pytest

from connector.model.codes import REACTIONS, Reaction, is_daily_limit, reaction_to, wait_s
from connector.model.command import OrgProblem

GUIDE = Path(__file__).parents[2] / "docs" / "commands.md"


def problem(code: str, message: str = "") -> OrgProblem:
    return OrgProblem(code=code, message=message, fields=[])


def test_the_documented_table_is_the_one_in_use() -> None:
    """Every code of the one stands in the other."""
    section = GUIDE.read_text("utf-8").partition("## What the org says")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {code for row in rows for code in re.findall(r"`([A-Z_]{5,})`", row)} == set(REACTIONS)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["UNABLE_TO_LOCK_ROW"], Reaction.RETRY),
        (["REQUEST_LIMIT_EXCEEDED"], Reaction.WAIT),
        (["SERVER_UNAVAILABLE"], Reaction.RETRY),
        (["DUPLICATES_DETECTED"], Reaction.FAIL),
        (["FIELD_CUSTOM_VALIDATION_EXCEPTION"], Reaction.FAIL),
        (["ENTITY_IS_DELETED"], Reaction.GONE),
        (["SOMETHING_NEW"], Reaction.FAIL),
        ([], Reaction.FAIL),
        (["UNABLE_TO_LOCK_ROW", "STRING_TOO_LONG"], Reaction.FAIL),
        (["UNABLE_TO_LOCK_ROW", "UNKNOWN_EXCEPTION"], Reaction.UNCERTAIN),
    ],
)
def test_reactions(codes: list[str], expected: Reaction) -> None:
    """What is unknown is final; of several errors the most certain end decides."""
    assert reaction_to([problem(code) for code in codes]) is expected


def test_a_lock_inside_a_triggers_text_is_a_lock() -> None:
    """Flows and triggers wrap what they ran into."""
    wrapped = problem("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "trigger: UNABLE_TO_LOCK_ROW, unable to obtain")
    assert reaction_to([wrapped]) is Reaction.RETRY
    assert reaction_to([problem("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "null pointer")]) is Reaction.FAIL


def test_waits() -> None:
    """Minutes for what is used up, seconds for concurrent requests, none for a lock: back off."""
    daily = problem("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    concurrent = problem("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.")
    assert is_daily_limit([daily])
    assert not is_daily_limit([concurrent])
    assert wait_s([daily]) == 300
    assert wait_s([concurrent]) == 5
    assert wait_s([problem("STORAGE_LIMIT_EXCEEDED")]) == 600
    assert wait_s([problem("UNABLE_TO_LOCK_ROW")]) is None

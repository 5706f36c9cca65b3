"""What an examination finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from connector.errors import ConnectorError, OrgRefused

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        check: What was looked at, one word.
        state: fail where something does not work until a person acts, warn where it works less well.
        message: What was found; never a secret.
        mend: What to do; empty where nothing is to be done or the message says it.
    """

    check: str
    state: State
    message: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    Attributes:
        skipped: Checks that could not be made, because what they need failed.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]

    @property
    def failed(self) -> frozenset[str]:
        """Checks with a failure."""
        return frozenset(finding.check for finding in self.findings if finding.state == "fail")


def reason(error: ConnectorError) -> str:
    """An error in words, with the org's own where it gave some."""
    if isinstance(error, OrgRefused) and error.errors:
        return "; ".join(f"{problem['code']}: {problem['message']}".rstrip(": ") for problem in error.errors)
    return str(error)


def listed(names: Iterable[str]) -> str:
    """Names in one line."""
    return ", ".join(names)

"""What docs/reading.md shows, to be run as it stands there."""

import re
from pathlib import Path

_READING = (Path(__file__).parents[1] / "docs" / "reading.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    """The code block with these words in it."""
    return _only(re.findall(rf"```{language}\n(.*?)```", _READING, re.DOTALL), holding)


def inline(holding: str) -> str:
    """The code within a line with these words in it."""
    outside = re.sub(r"```.*?```", "", _READING, flags=re.DOTALL)
    return _only(re.findall(r"`([^`]+)`", outside), holding)


def _only(found: list[str], holding: str) -> str:
    (code,) = [one for one in found if holding in one]
    return " ".join(code.split()) if "\n" not in code.strip() else code

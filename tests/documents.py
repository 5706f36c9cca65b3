"""What the documents show, to be run as it stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
READING = ROOT / "docs" / "reading.md"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [
    *GUIDES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "connector").rglob("*.md")),
]


def block(language: str, holding: str, document: Path = READING) -> str:
    """The code block with these words in it."""
    return _only(re.findall(rf"```{language}\n(.*?)```", _text(document), re.DOTALL), holding)


def inline(holding: str, document: Path = READING) -> str:
    """The code within a line with these words in it."""
    outside = re.sub(r"```.*?```", "", _text(document), flags=re.DOTALL)
    return _only(re.findall(r"`([^`]+)`", outside), holding)


def shell_lines(document: Path) -> list[str]:
    """The lines of every shell block, continued ones joined."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", _text(document), flags=re.DOTALL)
    shell = [block for language, block in blocks if language in ("sh", "")]
    return [line.strip() for block in shell for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines() if line.strip()]


def spans(text: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return [
        span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]


def shown_commands() -> list[str]:
    """Every call of the program that a document shows."""
    found = []
    for path in DOCUMENTS:
        candidates = [*shell_lines(path), *spans(_text(path))]
        found += [line.removeprefix("sudo ").removeprefix(".venv/bin/") for line in candidates]
    found = [line for line in found if "20261122T023000Z" not in line]  # a backup of somebody else's
    return sorted({line for line in found if line.startswith("salesforce-sync ") and not re.search(r"…|\.\.\.", line)})


def _text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def _only(found: list[str], holding: str) -> str:
    (code,) = [one for one in found if holding in one]
    return " ".join(code.split()) if "\n" not in code.strip() else code

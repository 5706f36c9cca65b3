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

# Beside those that a block of a document begins with.
PROGRAMS = {
    *("apt-get", "chmod", "journalctl", "mkdir", "mosquitto", "pip", "python", "service-user.sh", "ssh", "systemctl"),
    *("systemd-creds", "timedatectl"),
}


def block(language: str, holding: str, document: Path = READING) -> str:
    """The code block with these words in it."""
    return _only(re.findall(rf"```{language}\n(.*?)```", _text(document), re.DOTALL), holding)


def inline(holding: str, document: Path = READING) -> str:
    """The code within a line with these words in it."""
    outside = re.sub(r"```.*?```", "", _text(document), flags=re.DOTALL)
    return _only(re.findall(r"`([^`]+)`", outside), holding)


def shell_lines(document: Path, title: str | None = None) -> list[str]:
    """The lines of every shell block (below a heading), continued ones joined; without comments."""
    text = _text(document)
    if title is not None:
        text = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    shell = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    joined = [re.sub(r"\s*(\\|(?<=\|))\n\s*", " ", block) for block in shell]
    return [
        line for block in joined for line in (re.sub(r"\s+# .*", "", x).strip() for x in block.splitlines()) if line
    ]


def typed_lines() -> set[str]:
    """Everything that a reader is to type at a shell: lines of blocks, and what stands in a sentence."""
    blocks = {line for path in DOCUMENTS for line in shell_lines(path)}
    programs = {line.split()[0] for line in blocks} | PROGRAMS
    sentences = {span for path in DOCUMENTS for span in spans(_text(path)) if span.split()[0] in programs}
    whole = {span for span in sentences if " " in span and not re.search(r"…|\.\.\.", span)}
    return blocks | {span.partition("  #")[0] for span in whole}


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

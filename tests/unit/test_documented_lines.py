"""Every line that a document shows to be typed is typed by a test, or says here why it cannot be."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.deploy import test_operations
from tests.devorg import test_guide
from tests.documents import DOCUMENTS, ROOT, shell_lines, typed_lines
from tests.e2e import test_documents

NOT_TYPED: Mapping[str, str] = {
    "cd deploy/salesforce && sf project deploy start --source-dir force-app --target-org myorg": (
        "asks for an org and Salesforce's own program; tests/integration/test_deploy_units.py reads the files"
    ),
    "ssh -L 8099:127.0.0.1:8099": "asks for another machine",
    "timedatectl set-ntp true": "a node in a container has no clock of its own",
    "systemctl edit": "of services that the sentence names: tests/deploy/test_operations.py edits one of them",
    "chmod 600 .env": "doctor looks for it: tests/integration/test_doctor_node.py",
}
OTHERWISE: Mapping[str, str] = {
    r"sqlite3 data/salesforce\.db .*": "tests/e2e/test_documents.py",
    r"sqlite3 -readonly .*": "tests/e2e/test_sql.py",
    r"pip install 'salesforce-sync\[pubsub\]'": "tests/clients/test_wheel.py",
    r"python -m tests\.bench stream": "tests/e2e/test_bench.py",
    r"python -m connector\.devorg --port 0": "tests/devorg/test_server.py",
    r"python -m connector": "tests/e2e/test_documents.py",
    r"make [a-z-]+": "tests/unit/test_documentation.py",
    r"salesforce-sync devorg seed --contacts 1000": "tests/devorg/test_admin_cli.py",
    r"salesforce-sync verify --allow-deletions OBJECT": "tests/e2e/test_verify.py",
    r"(sudo salesforce-sync|salesforce-sync|\.venv/bin/salesforce-sync) (top|web|mirror|daemon|demo)\b.*": (
        "tests/e2e/test_documents.py"
    ),
}
"""Pattern of a line -> the test that does the same in its own way."""


def _typed() -> set[str]:
    """Lines that a test takes from the documents, or holds word by word."""
    node = [step.line for step in test_operations.WALK]
    return {
        *test_guide.TYPED,
        *node,
        *test_documents.COMMANDS,
        *test_documents.MESH,
        *test_documents.PYTEST,
        test_documents.BROKER,
    }


def test_every_line_that_is_shown_is_typed_by_a_test() -> None:
    """Whoever adds a line to a document gives it to one of the tests as well."""
    left = {line for line in typed_lines() - _typed() if not any(re.fullmatch(p, line) for p in OTHERWISE)}
    assert left == NOT_TYPED.keys()
    assert [place for place in OTHERWISE.values() if not (ROOT / place).exists()] == []


def test_every_line_of_the_walk_over_a_node_is_shown() -> None:
    """What the document does not say any more is not typed any more."""
    assert [step.line for step in test_operations.WALK if step.line not in typed_lines()] == []
    assert [pattern for pattern in OTHERWISE if not any(re.fullmatch(pattern, line) for line in typed_lines())] == []


def test_a_block_without_a_language_shows_no_line_to_be_typed() -> None:
    """Only what is marked as shell is looked for."""
    for path in DOCUMENTS:
        blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        assert {language for language, _ in blocks} <= {
            "",
            "sh",
            "text",
            "json",
            "python",
            "sql",
            "toml",
            "yaml",
            "ini",
        }
        pictures = "\n".join(block for language, block in blocks if not language)
        assert not re.search(
            r"^\s*(sudo|salesforce-sync|mosquitto_\w+|make|git|systemctl) [^|]*$", pictures, re.MULTILINE
        )


def test_lines_are_found() -> None:
    """In blocks, in sentences, over several lines, without their comments."""
    guide: Path = ROOT / "docs" / "devorg.md"
    assert "salesforce-sync devorg" in shell_lines(guide)
    assert any(line.startswith("echo ") and line.endswith("apply -") for line in shell_lines(guide))
    assert "sudo systemctl restart salesforce-sync" in typed_lines()
    assert len(typed_lines()) > 100

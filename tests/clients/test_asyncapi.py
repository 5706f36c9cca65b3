"""schemas/asyncapi.yaml by the published parser, with what it makes of a wrong one beside it. `make test-clients`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients import node

ASYNCAPI = Path(__file__).parents[2] / "schemas" / "asyncapi.yaml"
# As Spectral counts: 0 error, 1 warning, 2 information, 3 hint.
WORTH_MENDING = 1


@pytest.mark.timeout(360)  # the first time, packages are installed
def test_the_published_parser_takes_it(tmp_path: Path) -> None:
    """Without errors and warnings, and it sees every channel, operation and message."""
    document: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
    bad_schema, bad_reference = (json.loads(json.dumps(document)) for _ in range(2))
    bad_schema["components"]["schemas"]["StatusDocument"]["type"] = "thing"
    bad_reference["operations"]["takeCommand"]["channel"]["$ref"] = "#/channels/nowhere"

    paths = [ASYNCAPI, _file(tmp_path / "schema.json", bad_schema), _file(tmp_path / "reference.json", bad_reference)]
    verdict, of_schema, of_reference = json.loads(node.run(node.SOURCE / "validate.mjs", *map(str, paths)))

    assert [found for found in verdict["diagnostics"] if found["severity"] <= WORTH_MENDING] == []
    assert verdict["channels"] == len(document["channels"])
    assert verdict["operations"] == len(document["operations"])
    assert verdict["messages"] == len(document["components"]["messages"])
    assert any("StatusDocument" in found["at"] for found in _errors(of_schema))
    assert any("takeCommand" in found["at"] for found in _errors(of_reference))


def _file(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _errors(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for found in verdict["diagnostics"] if found["severity"] == 0]

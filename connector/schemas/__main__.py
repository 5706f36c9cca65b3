"""`python -m connector.schemas DIRECTORY DESCRIBES`: the contract as files, made anew.

DESCRIBES holds the describe results of the default objects, `Contact.json` and so on.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from connector.mesh.topics import Topics
from connector.model.objects import ObjectSpec, object_spec
from connector.schemas.asyncapi import asyncapi
from connector.schemas.documents import schemas
from connector.schemas.records import object_schema
from connector.settings import DEFAULT_OBJECTS


def contract(describes: Path) -> dict[str, str]:
    """Path below schemas/ -> what the file holds."""
    specs = {name: _described(describes, name, default["fields"]) for name, default in DEFAULT_OBJECTS.items()}
    documents = {f"{name}.json": _json(schema) for name, schema in schemas().items()}
    records = {f"objects/{name}.json": _json(object_schema(spec)) for name, spec in specs.items()}
    return {**documents, **records, "asyncapi.yaml": _yaml(asyncapi(Topics(), {}))}


def _described(describes: Path, name: str, fields: Sequence[str]) -> ObjectSpec:
    return object_spec(json.loads((describes / f"{name}.json").read_bytes()), fields)


def _json(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class _Unaliased(yaml.SafeDumper):
    """Repeats what occurs twice: tools show anchors badly."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _yaml(document: Mapping[str, Any]) -> str:
    # Through JSON: tuples are lists there, and keys text.
    plain = json.loads(json.dumps(document))
    return yaml.dump(plain, Dumper=_Unaliased, sort_keys=False, allow_unicode=True, width=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, and nothing else into the directory."""
    parser = argparse.ArgumentParser(prog="python -m connector.schemas", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write")
    parser.add_argument("describes", type=Path, help="where the objects' descriptions are")
    chosen = parser.parse_args(arguments)
    for name, text in contract(chosen.describes).items():
        path = chosen.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

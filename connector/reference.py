"""The reference of the settings, made of their model: `python -m connector.reference` prints docs/settings.md."""

import json
import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from connector.settings import AUTH_SECRETS, ObjectSettings, Secrets, Settings

_HEAD = """# Settings

Made of the model in `connector/settings.py` by `make schemas`; a test compares. `settings.toml` shows the same keys as
a working file.

The file is `settings.toml` in the working directory; `--settings` or `SALESFORCE_SYNC_SETTINGS` names another one.
Every key can be overridden by the environment as `SALESFORCE_SYNC_SECTION__KEY`, lists as JSON; the environment wins
over `.env`, which wins over the file. Durations are written `500ms`, `30s`, `15m`, `1h`, `30d`, sizes `256KiB`,
`1MiB`. An unknown key is an error, and all mistakes are told at once (exit 2).
"""
_SECRETS = """## Secrets

From the environment, `.env` beside the settings (`chmod 600 .env`) or systemd credentials, never from `settings.toml`:
{names}. `salesforce.auth = "auto"` takes the first login flow whose secrets are all there:

| flow | secrets |
|---|---|
"""
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def reference() -> str:
    """The whole page."""
    sections = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name == "objects":
            sections.append(_section("objects.X", ObjectSettings))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and not field.exclude:
            sections.append(_section(name, field.annotation))
    return "\n".join([*sections, _secrets()])


def _section(name: str, model: type[BaseModel]) -> str:
    rows = "".join(_row(name, key, field) for key, field in model.model_fields.items())
    return f"## `[{name}]`\n\n{model.__doc__}\n\n| key | default | expected | meaning |\n|---|---|---|---|\n{rows}"


def _row(section: str, key: str, field: FieldInfo) -> str:
    default = _written(field.get_default(call_default_factory=True))
    expected = _expected(field.annotation, field.metadata)
    cells = (f"`{section}.{key}`", f"`{default}`", expected, str(field.description))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _written(value: object) -> str:
    """A value as `settings.toml` has it."""
    match value:
        case None:
            written = "unset"
        case timedelta():
            seconds = value.total_seconds()
            written = next(f'"{int(seconds / unit)}{name}"' for unit, name in _UNITS if seconds % unit == 0)
        case ByteSize():
            written = f'"{value.human_readable().replace(".0", "")}"'
        case Path():
            written = f'"{value}"'
        case _:
            written = json.dumps(value)
    return written


def _expected(annotation: Any, metadata: list[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts if part != "")
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(part, []) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {_expected(parts[0], [])}"
    if origin is Annotated:
        return _expected(parts[0], metadata)
    names = {bool: "true or false", int: "number", float: "number", timedelta: "duration", ByteSize: "size"}
    name = "table" if origin is not None else names.get(annotation, "text")
    return " ".join([name, *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for bound in metadata:
        match bound:
            case annotated_types.Ge(low):
                yield f"≥ {low}"
            case annotated_types.Gt(low):
                yield f"> {low}"
            case annotated_types.Le(high):
                yield f"≤ {high}"
            case annotated_types.Lt(high):
                yield f"< {high}"
            case _:
                pass


def _secrets() -> str:
    names = ", ".join(f"`{name.upper()}`" for name in Secrets.model_fields)
    rows = [
        f"| `{flow}` | {', '.join(f'`{secret.upper()}`' for secret in secrets)} |\n"
        for flow, secrets in AUTH_SECRETS.items()
    ]
    return _SECRETS.format(names=names) + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(reference())

"""How the subcommands take values, and how they print answers."""

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
object_argument = click.argument("name", metavar="OBJECT")


def show(answer: Any) -> None:
    """As JSON, indented on a terminal."""
    click.echo(json.dumps(answer, indent=2 if sys.stdout.isatty() else None))


def seconds(text: str) -> float:
    """Seconds of a duration such as `90s`, `15m`, `72h` or `-1h`.

    Raises:
        click.BadParameter: It is none.
    """
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if found is None:
        raise click.BadParameter(f"{text}: expected a duration such as 90s, 15m or 72h")
    return float(found.group(1)) * _UNITS_S[found.group(2)]


def values(pairs: Iterable[str]) -> dict[str, Any]:
    """Field values of `Name=text` (an empty text is null) and `Name:=json`.

    Raises:
        click.BadParameter: A pair is neither.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = json.loads(text) if name.endswith(":") else text or None
        except ValueError as error:
            raise click.BadParameter(f"{pair}: no JSON behind :=") from error
        if not equals or not name.rstrip(":"):
            raise click.BadParameter(f"{pair}: expected Field=value")
        found[name.rstrip(":")] = value
    return found

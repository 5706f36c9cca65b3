"""The named queries of `sql/*.sql`.

A query is what follows its `-- name:` line, comments included.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load(file: str) -> Mapping[str, str]:
    """The queries of `sql/{file}.sql` by name."""
    text = (files("connector.store") / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))

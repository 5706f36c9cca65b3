"""Names in SQL that are not written in `sql/`: tables and columns of objects. Each is an API name that was checked."""

# Beside the fields, in every object's table.
OWN_COLUMNS = ("_version", "_synced_at", "_deleted_at", "_modstamp")


def quoted(name: str) -> str:
    """An SQL name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def text_index(table: str) -> str:
    """The full-text index of an object's table."""
    return f"{table}_search"


def field_index(table: str, field: str) -> str:
    """The index of an object's table on one field."""
    return f"{table}_by_{field}"

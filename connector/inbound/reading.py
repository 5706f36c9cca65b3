"""What the org answered about many records, turned into our terms by column: REST JSON and Bulk CSV.

By row, the calls for each value took two thirds of what reading a record costs; a column has one kind, most values pass
as they are, and those that do not (times, truths) are a few that come again and again.

Every function here is pure and raises ValueError naming field and kind, never the value.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from connector.inbound.values import csv_column, json_column, stamp_column
from connector.model.ids import to_record_ids
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage, ReadRecord


def json_page(spec: ObjectSpec, rows: Sequence[Mapping[str, Any]]) -> ReadPage:
    """Records of a REST answer that selected `spec.read_fields()`.

    Raises:
        ValueError: Of one of them, a field is missing or does not fit its kind, or the id is none.
    """
    try:
        return ReadPage(
            ids=to_record_ids([row["Id"] for row in rows]),
            names=spec.names,
            columns=[json_column(f, [row[f.name] for row in rows]) for f in spec.fields],
            modified=stamp_column(spec.modified_field, [row[spec.modified_field] for row in rows]),
            modstamp=stamp_column(spec.modstamp_field, [row[spec.modstamp_field] for row in rows]),
            deleted=[row.get("IsDeleted") is True for row in rows],
        )
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: missing in the answer") from None
    except (TypeError, AttributeError):
        raise ValueError("a record of the answer does not have the documented shape") from None


def from_row(spec: ObjectSpec, row: Mapping[str, Any]) -> ReadRecord:
    """One record of such an answer.

    Raises:
        ValueError: As `json_page`.
    """
    (read,) = json_page(spec, [row]).records()
    return read


def csv_page(columns: Sequence[str], spec: ObjectSpec, rows: Sequence[Sequence[str]]) -> ReadPage:
    """Rows of a Bulk result with these columns, decoded and without NULs.

    Raises:
        ValueError: A needed column is missing; a row has another number of values, or one that does not fit.
    """
    at = {name: i for i, name in enumerate(columns)}
    absent = [name for name in spec.read_fields() if name not in at]
    if absent:
        raise ValueError(f"{', '.join(absent)}: missing in the Bulk result")
    if not {len(columns)}.issuperset(map(len, rows)):
        raise ValueError("a row of the Bulk result has another number of values than its header")

    def column(name: str) -> list[str]:
        return list(map(itemgetter(at[name]), rows))

    return ReadPage(
        ids=to_record_ids(column("Id")),
        names=spec.names,
        columns=[csv_column(f, column(f.name)) for f in spec.fields],
        modified=stamp_column(spec.modified_field, column(spec.modified_field)),
        modstamp=stamp_column(spec.modstamp_field, column(spec.modstamp_field)),
        deleted=[text.lower() == "true" for text in column("IsDeleted")] if "IsDeleted" in at else [False] * len(rows),
    )

"""What makes an object's records quick to find: a full-text index, and an index per field that is looked up by.

They are made when the object has been loaded, a piece at a time, since a load that maintains them takes several times
as long; from its first piece on what changes in a record is kept for the full-text index in the same transaction.
"""

from collections.abc import Iterator

from connector.model.objects import ObjectColumns
from connector.store.names import field_index, quoted, text_index
from connector.store.part import Part
from connector.store.queries import load
from connector.store.tables import objects
from connector.store.textindex import listed, make, settle

_SQL = load("objects")
_ALL_ROWS = 2**63 - 1


class Indexes(Part):
    """Makes what is missing."""

    def extend_indexes(self, object_name: str, rows: int) -> bool:
        """Make one index, or take up to `rows` further records into the text index; True if there is more to do."""
        columns = objects(self._db).get(object_name)
        if columns is None:
            return False
        missing = next(self._missing(columns), None)
        if missing is not None:
            name, table = quoted(field_index(columns.table, missing)), quoted(columns.table)
            self._db.execute(f'CREATE INDEX {name} ON {table} ({quoted(missing)}, "Id")')
            # Or SQLite takes any two for equally good: of an owner with all the records and an account with ten.
            self._db.execute(f"ANALYZE {name}")
            return True
        state, position = self._db.execute(_SQL["search_state"], (object_name,)).fetchall()[0]
        if not columns.searched or state == "ready":
            return False
        if state == "none":
            make(self._db, columns)
        self._fill(columns, 0 if state == "none" else int(str(position)), rows)
        return True

    def settle_index(self, object_name: str) -> None:
        """Tell the object's text index of the rows that wait for others."""
        columns = objects(self._db).get(object_name)
        if columns is not None:
            settle(self._db, columns)

    def _missing(self, columns: ObjectColumns) -> Iterator[str]:
        for field in columns.looked_up:
            if not self._db.execute(_SQL["taken"], (field_index(columns.table, field),)).get:
                yield field

    def _fill(self, columns: ObjectColumns, after: int, rows: int) -> None:
        table, index = quoted(columns.table), quoted(text_index(columns.table))
        bounds = {"after": after, "rows": rows}
        # The names were checked when the table was made.
        piece = f"FROM {table} WHERE rowid > :after ORDER BY rowid LIMIT :rows"
        last = self._db.execute(f"SELECT max(rowid) FROM (SELECT rowid {piece})", bounds).get  # noqa: S608
        if last is None:
            self._db.execute(_SQL["set_search_state"], ("ready", _ALL_ROWS, columns.name))
            return
        fields = listed(columns)
        self._db.execute(f"INSERT INTO {index} (rowid, {fields}) SELECT rowid, {fields} {piece}", bounds)
        self._db.execute(_SQL["set_search_state"], ("filling", last, columns.name))

"""Pages of Bulk results, written as the org writes them and cut anywhere."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from connector.salesforce.bulk import CsvPage

values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["", '"', '""', "\n", "\r\n", "\r", ",", "a\u2028b", "null"]
)
tables = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(values, min_size=width, max_size=width), max_size=6))


@given(tables, st.integers(1, 7))
def test_every_value_comes_through(rows: list[list[str]], size: int) -> None:
    """Quotes, separators and line ends in values; chunks cut inside characters and quotes."""
    columns = [f"C{i}" for i in range(len(rows[0]) if rows else 1)]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([columns, *rows])
    body = text.getvalue().encode()
    page = CsvPage()
    page.read(body[i : i + size] for i in range(0, len(body), size))
    assert page.page({}).columns == columns
    assert page.page({}).rows == rows

"""Pages and jobs of Bulk 2.0 queries."""

from typing import Any

import pytest

from connector.errors import LinkDown
from connector.ports import BulkJob, BulkPage
from connector.salesforce import bulk


def _page(*chunks: bytes, **headers: str) -> BulkPage:
    page = bulk.CsvPage()
    page.read(iter(chunks))
    return page.page({name.replace("_", "-"): text for name, text in headers.items()})


def test_values_keep_quotes_separators_and_line_ends() -> None:
    """Cut at any byte, inside a character too."""
    body = '"Id","Notes"\n"1","a ""b"", c\r\nd\u2028e\x0bf € ü"\n"2",""\n'.encode()
    whole = BulkPage(["Id", "Notes"], [["1", 'a "b", c\r\nd\u2028e\x0bf € ü'], ["2", ""]], "MTAw")
    assert _page(body, Sforce_Locator="MTAw") == whole
    assert _page(*(body[i : i + 1] for i in range(len(body))), Sforce_Locator="MTAw") == whole


@pytest.mark.parametrize("body", [b"", b'"Id","Name"\n'])
def test_a_result_without_rows(body: bytes) -> None:
    """A header line, or nothing at all; the locator `null` is the end."""
    page = _page(body, Sforce_Locator="null")
    assert page.rows == []
    assert page.locator is None


def test_nul_characters_are_taken_out() -> None:
    """SQLite's texts end at a NUL."""
    assert _page(b'"Id"\n"a\0b"\n').rows == [["ab"]]


def test_a_value_longer_than_the_csv_module_takes() -> None:
    """A rich text area may hold more than 131,072 characters."""
    assert len(_page(b'"Id"\n"' + b"x" * 200_000 + b'"\n').rows[0][0]) == 200_000


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'"Id","Name"\n"1"\n', {}),
        (b'"Id"\n"unfinished', {}),
        (b'"Id"\n"\xff"\n', {}),
        (b'"Id"\n"1"\n', {"Sforce_NumberOfRecords": "2"}),
        (b"<html>\n<body>Bad, Gateway</body>\n</html>\n", {}),
    ],
)
def test_a_page_that_is_cut_or_no_csv_is_a_broken_link(body: bytes, headers: dict[str, str]) -> None:
    """Rows that are missing must not look like records that are gone."""
    with pytest.raises(LinkDown):
        _page(body, **headers)


def test_jobs() -> None:
    """`errorMessage` tells why one failed."""
    assert bulk.job({"id": "750", "state": "Failed", "errorMessage": "bad"}, {}) == BulkJob("750", "Failed", "bad")
    assert bulk.job({"id": "750", "state": "UploadComplete"}, {}) == BulkJob("750", "UploadComplete")


@pytest.mark.parametrize("value", [None, [], {}, {"id": "750"}, "text"])
def test_a_job_of_another_shape_is_a_broken_link(value: Any) -> None:
    """It never crashes."""
    with pytest.raises(LinkDown):
        bulk.job(value, {})

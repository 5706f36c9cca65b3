"""The commits an org tells of, applied one after the other, always give the records it holds."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.devorg.commits import Commit
from connector.devorg.errors import OrgError
from connector.devorg.records.transaction import Transaction
from tests.devorg.books import USER, Books

OPERATIONS = ("create", "update", "delete", "undelete", "merge", "child", "bad")
steps = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 7), st.integers(0, 7))
transactions = st.tuples(st.lists(steps, min_size=1, max_size=6), st.sampled_from(("commit", "hold", "abandon")))


def one_step(transaction: Transaction, accounts: list[str], operation: str, first: int, second: int) -> None:
    """Do one write, maybe a hopeless one."""
    if operation == "create" or not accounts:
        accounts.append(transaction.create("Account", {"Name": f"A{first}"}))
        return
    one, other = accounts[first % len(accounts)], accounts[second % len(accounts)]
    if operation == "update":
        transaction.update("Account", one, {"Phone": str(second), "ParentId": other})
    elif operation == "delete":
        transaction.delete("Account", one)
    elif operation == "undelete":
        transaction.undelete("Account", one)
    elif operation == "merge":
        transaction.merge("Account", one, [other])
    elif operation == "child":
        transaction.create("Contact", {"LastName": "C", "AccountId": one})
    else:
        transaction.update("Account", one, {"Name": None})


def fold(commits: list[Commit]) -> dict[str, Any]:
    live: dict[str, Any] = {}
    for change in (change for commit in commits for change in commit.changes):
        before = live.get(change.id)
        if change.kind in ("CREATE", "UNDELETE"):
            assert before is None
        else:
            assert before == change.before
        if change.kind == "DELETE":
            del live[change.id]
        else:
            live[change.id] = change.after
    return live


@given(st.lists(transactions, max_size=12))
@settings(max_examples=60)
def test_commits_fold_into_the_records(plan: list[tuple[list[tuple[str, int, int]], str]]) -> None:
    """Whatever is written, refused, held, released or abandoned."""
    books, accounts = Books(), list[str]()
    for part, end in plan:
        with books.org.transaction(USER, "", hold=end != "commit") as transaction:
            for operation, first, second in part:
                try:
                    one_step(transaction, accounts, operation, first, second)
                except OrgError:
                    books.clock.advance(1)
        if end == "abandon":
            books.org.abandon(transaction.key)
    for key in books.org.held():
        books.org.release(key)
    rows = books.database.connection
    ids = [
        (name, row["Id"])
        for name in ("Account", "Contact")
        for row in rows.execute(f"SELECT Id FROM record_{name.lower()} WHERE IsDeleted = 0")  # noqa: S608  our names
    ]
    assert fold(books.sink.commits) == {record_id: books.org.get(name, record_id) for name, record_id in ids}
    books.database.close()

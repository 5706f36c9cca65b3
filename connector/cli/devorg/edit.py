"""What people do in an org: make, change and delete records, one transaction each."""

import json
from typing import IO, Any

import click

from connector.cli.devorg.running import Org
from connector.cli.devorg.words import object_argument, show, values

id_arguments = click.argument("ids", nargs=-1, required=True, metavar="ID...")
pair_arguments = click.argument("pairs", nargs=-1, required=True, metavar="FIELD=VALUE...")
user_option = click.option("--user", default="", help="Id of the user who writes; an editor of the org if empty.")


@click.command()
@click.option("--accounts", default=0)
@click.option("--contacts", default=0)
@click.option("--leads", default=0)
@click.option("--opportunities", default=0)
@click.option("--number", default=1, show_default=True, help="Another number, other records.")
@click.option("--live", is_flag=True, help="Make them now, with change events, not as records of the last year.")
@click.pass_obj
def seed(org: Org, /, live: bool, **counts: int) -> None:
    """Fill the org with made-up records."""
    for name, made in org.ask("POST", "/seed", {**counts, "historic": not live}).items():
        click.echo(f"{name:18} {made}")


@click.command()
@object_argument
@pair_arguments
@user_option
@click.pass_obj
def create(org: Org, name: str, pairs: tuple[str, ...], user: str) -> None:
    """Create a record, as a person in the org's pages would."""
    _write(org, [{"op": "create", "object": name, "values": values(pairs)}], user)


@click.command()
@object_argument
@click.argument("record_id", metavar="ID")
@pair_arguments
@user_option
@click.pass_obj
def update(org: Org, name: str, record_id: str, pairs: tuple[str, ...], user: str) -> None:
    """Change fields of a record, as a person in the org's pages would."""
    _write(org, [{"op": "update", "object": name, "id": record_id, "values": values(pairs)}], user)


@click.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def delete(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Delete records, in one transaction."""
    _write(org, [{"op": "delete", "object": name, "id": one} for one in ids], user)


@click.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def undelete(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Take records back out of the recycle bin, in one transaction."""
    _write(org, [{"op": "undelete", "object": name, "id": one} for one in ids], user)


@click.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def purge(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Delete records for good; no change event tells of it."""
    _write(org, [{"op": "purge", "object": name, "id": one} for one in ids], user)


@click.command()
@click.argument("file", type=click.File())
@click.option("--hold", is_flag=True, help="Leave the transaction open; see `commit` and `rollback`.")
@user_option
@click.pass_obj
def apply(org: Org, file: IO[str], hold: bool, user: str) -> None:
    """Make the changes of a JSON file (`-` for standard input) in one transaction.

    The file holds a list such as [{"op": "update", "object": "Lead", "id": "00Q...", "values": {"Company": "X"}}].
    """
    try:
        changes = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"{file.name}: no JSON: {error}") from error
    show(org.ask("POST", "/changes", {"changes": changes, "hold": hold} | ({"user": user} if user else {})))


@click.command()
@click.argument("key")
@click.pass_obj
def commit(org: Org, key: str) -> None:
    """Commit a transaction that was left open."""
    org.ask("POST", f"/transactions/{key}/commit")


@click.command()
@click.argument("key")
@click.pass_obj
def rollback(org: Org, key: str) -> None:
    """Undo a transaction that was left open."""
    org.ask("POST", f"/transactions/{key}/rollback")


def _write(org: Org, changes: list[dict[str, Any]], user: str) -> None:
    """Make the changes in one transaction of the org, and print the ids."""
    order = {"changes": changes} | ({"user": user} if user else {})
    for result in org.ask("POST", "/changes", order)["results"]:
        click.echo(result["id"])

"""`salesforce-sync schema`: JSON Schemas of the messages and of each object's records, and the AsyncAPI document."""

import sys

import click

from connector.app.schema import asyncapi_document, schema_document, stored_specs
from connector.cli.outcome import WRONG_USAGE
from connector.cli.project import open_settings
from connector.cli.read import print_json
from connector.errors import StoreUnusable


@click.command("schema")
@click.argument("name", metavar="[NAME]", required=False)
@click.pass_obj
def schema(settings_path: str | None, name: str | None) -> None:
    """Print the JSON Schema of a message or an object, or all of them.

    `asyncapi` prints every topic and message as one AsyncAPI document, in JSON. Objects are known once they have been
    loaded.
    """
    settings = open_settings(settings_path)
    try:
        specs = stored_specs(settings)
    except StoreUnusable as error:
        click.echo(f"salesforce-sync: {error}", err=True)
        specs = {}
    document = schema_document(specs)
    if name is None:
        print_json(document)
        return
    known = {**document["messages"], "asyncapi": asyncapi_document(settings, specs), **document["objects"]}
    found = next((schema for key, schema in known.items() if key.lower() == name.lower()), None)
    if found is None:
        click.echo(f"salesforce-sync: no message or object {name}; there are: {', '.join(known)}", err=True)
        sys.exit(WRONG_USAGE)
    print_json(found)

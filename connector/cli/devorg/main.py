"""Run a local org, and the subcommands that edit, upset and look at one that runs."""

import asyncio
import json
from pathlib import Path

import click

from connector.cli.devorg import edit, look, upset
from connector.cli.devorg.running import DEFAULT_PORT, DEFAULT_URL, Org
from connector.cli.devorg.words import json_option
from connector.devorg.admin.interface import description
from connector.devorg.server import DevOrg, serve

DEFAULT_DIRECTORY = Path("data/devorg")


@click.group(invoke_without_command=True)
@click.option("--url", default=DEFAULT_URL, envvar="SALESFORCE_SYNC_DEVORG_URL", show_default=True)
@click.pass_context
def devorg(context: click.Context, url: str) -> None:
    """Run a local Salesforce org for development; edit and upset one that runs."""
    context.obj = Org(url)
    if context.invoked_subcommand is None:
        context.invoke(serve_command)


@devorg.command("serve")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="0 takes any free port.")
@click.option("--pubsub-port", type=int, help="Serve the Pub/Sub API too; 0 takes any free port.")
@click.option("--directory", type=click.Path(path_type=Path), default=DEFAULT_DIRECTORY, show_default=True)
@json_option
def serve_command(port: int, pubsub_port: int | None, directory: Path, as_json: bool) -> None:
    """Run a local org until interrupted."""
    try:
        asyncio.run(serve(directory, port, _announce_json if as_json else _announce, pubsub_port=pubsub_port))
    except (OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _announce_json(org: DevOrg) -> None:
    click.echo(json.dumps(description(org.ctx, org.keys)))


def _announce(org: DevOrg) -> None:
    for name, value in description(org.ctx, org.keys).items():
        click.echo(f"{name:18} {value}")
    click.echo("Interrupt with Ctrl-C.")


for _command in (
    edit.seed,
    edit.create,
    edit.update,
    edit.delete,
    edit.undelete,
    edit.purge,
    edit.apply,
    edit.commit,
    edit.rollback,
    upset.advance,
    upset.fault,
    upset.faults,
    upset.clear_faults,
    upset.emit,
    upset.rule,
    upset.clear_rules,
    upset.field,
    upset.expire_tokens,
    upset.expire_replay,
    upset.drop_connections,
    look.info,
    look.show_settings,
    look.select,
    look.stats,
    look.ledger,
    look.records,
):
    devorg.add_command(_command)

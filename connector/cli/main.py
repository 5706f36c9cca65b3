"""The program: its commands by name, and how it ends."""

import gc
import importlib
import sys
from collections.abc import Mapping

import click

from connector.cli.outcome import exit_code, lines_of
from connector.errors import ConnectorError

# A command's module is imported when it runs: `get` must not wait for what the daemon needs.
COMMANDS: Mapping[str, str] = {
    "init": "connector.cli.init:init",
    "doctor": "connector.cli.doctor:doctor",
    "sync": "connector.cli.sync:sync",
    "daemon": "connector.cli.daemon:daemon",
    "verify": "connector.cli.verify:verify",
    "mirror": "connector.cli.mirror:mirror",
    "status": "connector.cli.status:status",
    "top": "connector.cli.top:top",
    "web": "connector.cli.web:web",
    "list": "connector.cli.read:list_records",
    "get": "connector.cli.read:get_record",
    "search": "connector.cli.read:search_records",
    "history": "connector.cli.history:record_history",
    "schema": "connector.cli.schema:schema",
    "create": "connector.cli.commands:create_record",
    "update": "connector.cli.commands:update_record",
    "delete": "connector.cli.commands:delete_record",
    "push": "connector.cli.push:push",
    "commands": "connector.cli.commands:commands",
    "backup": "connector.cli.backup:backup",
    "restore": "connector.cli.backup:restore",
    "devorg": "connector.cli.devorg.main:devorg",
    "demo": "connector.cli.demo:demo",
}

# Cycles are looked for after so many more objects were made than freed (objects, such passes, passes over those). A
# batch of changes is some 20,000 objects without a cycle: with the usual 700 a sixth of the processor went into looking
# at them, and at all that has been imported, while they lived; and a tenth of each start.
_CYCLE_PASSES = (20_000, 20, 10)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--settings", "settings_path", type=click.Path(dir_okay=False), help="Settings file.")
@click.version_option(package_name="salesforce-sync")
@click.pass_context
def cli(ctx: click.Context, settings_path: str | None) -> None:
    """Keep a SQLite replica of Salesforce records current, and publish every change over MQTT."""
    ctx.obj = settings_path


def main(arguments: list[str] | None = None) -> None:
    """Run a command; ends the process with an exit code of section 8 of the interface."""
    gc.set_threshold(*_CYCLE_PASSES)
    try:
        cli.main(arguments, prog_name="salesforce-sync")
    except ConnectorError as error:
        for line in lines_of(error):
            click.echo(f"salesforce-sync: {line}", err=True)
        sys.exit(exit_code(error))

"""`salesforce-sync backup` and `restore`: copies of the replica."""

from pathlib import Path

import click

from connector.app.clock import wall_clock_ms
from connector.cli.asking import progress_bars
from connector.cli.project import open_settings
from connector.store import backup as copies


@click.command
@click.pass_obj
def backup(settings_path: str | None) -> None:
    """Copy the replica beside a running daemon, read the copy for damage, remove copies that are too old."""
    settings = open_settings(settings_path)
    folder, now_ms = settings.storage.backup_folder(), wall_clock_ms()
    with progress_bars() as advance:
        made = copies.backup(
            settings.storage.path, folder, now_ms=now_ms, progress=lambda done, total: advance("pages", done, total)
        )
    click.echo(f"{made}: {made.stat().st_size / 1024**2:,.1f} MiB, read in full and sound")
    keep_ms = round(settings.storage.keep_backups.total_seconds() * 1000)
    for old in copies.prune(folder, before_ms=now_ms - keep_ms):
        click.echo(f"{old}: removed, older than storage.keep_backups")


@click.command
@click.argument("backup_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def restore(settings_path: str | None, backup_file: Path) -> None:
    """Put the backup FILE in the replica's place, while no daemon runs; the present replica is moved aside."""
    settings = open_settings(settings_path)
    aside = copies.restore(backup_file, settings.storage.path)
    if aside is not None:
        click.echo(f"{aside}: the replica until now; remove it when all is well")
    click.echo(f"{settings.storage.path}: restored; the next start catches up with the org")

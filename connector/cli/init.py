"""`salesforce-sync init`: a settings file and an example of the secrets to begin with."""

from importlib.resources import files
from pathlib import Path

import click

from connector.cli.outcome import FAILED


@click.command
@click.option("--instance-url", help="The org's address, https://yourdomain.my.salesforce.com.")
@click.pass_obj
def init(settings_path: str | None, instance_url: str | None) -> None:
    """Write settings.toml and .env.example here; files that are there stay as they are."""
    target = Path(settings_path or "settings.toml")
    text = files("connector.cli").joinpath("template.toml").read_text(encoding="utf-8")
    if instance_url:
        text = text.replace("https://yourinstance.my.salesforce.com", instance_url)
    example = files("connector.cli").joinpath("template.env").read_text(encoding="utf-8")
    wrote = [_write(target, text), _write(target.parent / ".env.example", example)]
    if not any(wrote):
        raise SystemExit(FAILED)
    click.echo("Next: put the secrets into .env (see .env.example), then run `salesforce-sync doctor`.")


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        click.echo(f"{path}: is there already; left as it is", err=True)
        return False
    click.echo(f"{path}: written")
    return True

"""The project that a command works on: its settings and its logs."""

from pathlib import Path

from connector.errors import ConfigError
from connector.logs import configure_logs
from connector.settings import PLACEHOLDER_URL, Settings, load_settings


def open_settings(settings_path: str | None, *, quiet: bool = True) -> Settings:
    """The settings, with logging configured by them; `quiet`: warnings and errors only, for what a person waits for.

    Raises:
        ConfigError: With one line per mistake.
    """
    settings = load_settings(Path(settings_path) if settings_path else None)
    level = "warning" if quiet and settings.log.level == "info" else settings.log.level
    configure_logs(settings.log.format, level)
    return settings


def org_settings(settings_path: str | None, *, quiet: bool = True) -> Settings:
    """The settings of a command that talks to the org.

    Raises:
        ConfigError: Also where the org or the secrets to log in are missing.
    """
    settings = open_settings(settings_path, quiet=quiet)
    if settings.salesforce.instance_url == PLACEHOLDER_URL:
        raise ConfigError(f"salesforce.instance_url = {PLACEHOLDER_URL!r}: still the example; set your org's address")
    settings.auth_flow()
    return settings

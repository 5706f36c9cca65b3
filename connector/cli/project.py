"""The project that a command works on: its settings and its logs."""

from pathlib import Path

from connector.errors import ConfigError
from connector.logs import configure_logs
from connector.settings import PLACEHOLDER_URL, Settings, load_settings


def open_settings(settings_path: str | None) -> Settings:
    """The settings, with logging configured by them.

    Raises:
        ConfigError: With one line per mistake.
    """
    settings = load_settings(Path(settings_path) if settings_path else None)
    configure_logs(settings.log.format, settings.log.level)
    return settings


def org_settings(settings_path: str | None) -> Settings:
    """The settings of a command that talks to the org.

    Raises:
        ConfigError: Also where the org or the secrets to log in are missing.
    """
    settings = open_settings(settings_path)
    if settings.salesforce.instance_url == PLACEHOLDER_URL:
        raise ConfigError(f"salesforce.instance_url = {PLACEHOLDER_URL!r}: still the example; set your org's address")
    settings.auth_flow()
    return settings

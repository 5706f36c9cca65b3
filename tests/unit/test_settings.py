"""settings.toml, environment, .env and systemd credentials: what wins, and what is refused with which words."""

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from connector.errors import ConfigError
from connector.settings import DEFAULT_OBJECTS, PLACEHOLDER_URL, Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
URL = {"SALESFORCE_SYNC_SALESFORCE__INSTANCE_URL": "https://acme.my.salesforce.com"}


def load(tmp_path: Path, toml: str = "", env: Mapping[str, str] | None = None) -> Settings:
    (tmp_path / "settings.toml").write_text(toml, encoding="utf-8")
    return load_settings(environ=URL if env is None else {**URL, **env}, directory=tmp_path)


def problems(tmp_path: Path, toml: str = "", env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, env)
    return caught.value.problems


def test_defaults_are_those_of_the_interface(tmp_path: Path) -> None:
    """The four default objects, their fields and intervals."""
    settings = load(tmp_path)
    assert list(settings.synced()) == ["Contact", "Lead", "Account", "Opportunity"]
    assert settings.synced()["Opportunity"].fields == (
        "Name", "Amount", "StageName", "CloseDate", "AccountId", "OwnerId",
    )  # fmt: skip
    assert settings.poll_interval("Account") == timedelta(hours=1)
    assert settings.poll_interval("Lead") == timedelta(minutes=15)
    assert settings.mqtt.max_payload == 256 * 1024


def test_environment_wins_over_dotenv_over_file(tmp_path: Path) -> None:
    """The order of precedence."""
    (tmp_path / ".env").write_text(
        "SALESFORCE_SYNC_MQTT__HOST=from-dotenv\nSALESFORCE_SYNC_MQTT__PORT=2222\nSF_CLIENT_ID=id-dotenv\n", "utf-8"
    )
    settings = load(
        tmp_path, '[mqtt]\nhost = "from-file"\nkeepalive = "20s"', {"SALESFORCE_SYNC_MQTT__HOST": "from-env"}
    )
    assert (settings.mqtt.host, settings.mqtt.port) == ("from-env", 2222)
    assert settings.mqtt.keepalive == timedelta(seconds=20)
    assert settings.secrets.sf_client_id == "id-dotenv"


def test_systemd_credentials_win_and_a_key_file_is_named_by_its_path(tmp_path: Path) -> None:
    """LoadCredential= puts each secret into a file of its name."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "SF_CLIENT_SECRET").write_text("from-credential\n", "utf-8")
    (credentials / "SF_PRIVATE_KEY_FILE").write_text("-----BEGIN", "utf-8")
    env = {"CREDENTIALS_DIRECTORY": str(credentials), "SF_CLIENT_SECRET": "from-env"}
    secrets = load(tmp_path, "", env).secrets
    assert secrets.sf_client_secret.get_secret_value() == "from-credential"
    assert secrets.sf_private_key_file == str(credentials / "SF_PRIVATE_KEY_FILE")


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """Exit 2 with one line per problem, naming key, value and what was expected."""
    found = problems(
        tmp_path,
        '[mqtt]\nprot = 1\nport = 99999\n[health]\ninterval = "30"\n[colours]\nred = 1',
        {"SALESFORCE_SYNC_SYNC__BATCH_SIZ": "1"},
    )
    text = "\n".join(found)
    assert "mqtt.prot: unknown key" in found
    assert "sync.batch_siz: unknown key" in found
    assert "colours: unknown key" in found
    assert "mqtt.port = 99999: " in text
    assert "health.interval = '30': expected a duration such as" in text
    assert len(found) == 5


def test_objects_are_overridden_by_environment_custom_ones_too(tmp_path: Path) -> None:
    """The key of an object's variable is what follows the last double underscore."""
    env = {
        "SALESFORCE_SYNC_OBJECTS__Invoice__c__FIELDS": '["Name", "Amount__c"]',
        "SALESFORCE_SYNC_OBJECTS__CONTACT__POLL_INTERVAL": "2m",
    }
    settings = load(tmp_path, "", env)
    assert settings.synced()["Invoice__c"].fields == ("Name", "Amount__c")
    assert settings.poll_interval("Contact") == timedelta(minutes=2)
    assert settings.synced()["Contact"].fields[0] == "FirstName"


def test_sync_objects_selects_exactly_these(tmp_path: Path) -> None:
    """`sync.objects` leaves the defaults out."""
    settings = load(tmp_path, '[sync]\nobjects = ["Lead", "Case"]')
    assert list(settings.synced()) == ["Lead", "Case"]
    assert settings.synced()["Case"].fields == "all"


@pytest.mark.parametrize("url", ["http://acme.my.salesforce.com", "ftp://x", "https://u:p@acme.example", "acme"])
def test_unsafe_addresses_are_refused(tmp_path: Path, url: str) -> None:
    """Plain http is for loopback only; credentials do not belong into an address."""
    found = problems(tmp_path, "", {"SALESFORCE_SYNC_SALESFORCE__INSTANCE_URL": url})
    assert found[0].startswith("salesforce.instance_url")
    assert "u:p" not in found[0]


def test_loopback_may_be_plain_http(tmp_path: Path) -> None:
    """The local org has no certificate."""
    env = {"SALESFORCE_SYNC_SALESFORCE__INSTANCE_URL": "http://127.0.0.1:8620/"}
    assert load(tmp_path, "", env).salesforce.instance_url == "http://127.0.0.1:8620"


@pytest.mark.parametrize(
    ("secrets", "flow"),
    [
        ({"SF_CLIENT_ID": "i", "SF_CLIENT_SECRET": "s"}, "client_credentials"),
        ({"SF_CLIENT_ID": "i", "SF_CLIENT_SECRET": "s", "SF_USERNAME": "u", "SF_PASSWORD": "p"}, "password"),
        ({"SF_CLIENT_ID": "i", "SF_USERNAME": "u", "SF_PRIVATE_KEY_FILE": "f"}, "jwt"),
        ({"SF_CLIENT_ID": "i", "SF_REFRESH_TOKEN": "r"}, "refresh_token"),
        ({"SF_ACCESS_TOKEN": "t"}, "access_token"),
    ],
)
def test_login_flow_follows_the_secrets(tmp_path: Path, secrets: Mapping[str, str], flow: str) -> None:
    """`auth = "auto"`."""
    assert load(tmp_path, "", secrets).auth_flow() == flow


def test_missing_secrets_are_named(tmp_path: Path) -> None:
    """With a named flow each missing secret is one line; with auto the choices are listed."""
    with pytest.raises(ConfigError, match="SF_USERNAME: missing"):
        load(tmp_path, '[salesforce]\nauth = "jwt"\n').auth_flow()
    with pytest.raises(ConfigError, match="no login flow has all its secrets"):
        load(tmp_path).auth_flow()


def test_secrets_are_not_taken_from_the_file_and_not_shown(tmp_path: Path) -> None:
    """A secret in settings.toml is refused; a secret is in no repr."""
    assert "unknown" in problems(tmp_path, '[secrets]\nsf_password = "x"')[0]
    assert "hunter2" not in repr(load(tmp_path, "", {"SF_PASSWORD": "hunter2", "SF_REFRESH_TOKEN": "hunter2"}))


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A misspelt --settings is no reason to run with defaults."""
    with pytest.raises(ConfigError, match="no such settings file"):
        load_settings(tmp_path / "none.toml", URL, tmp_path)


def sections(model: type[BaseModel]) -> dict[str, set[str]]:
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and name != "secrets":
            found[name] = set(field.annotation.model_fields)
    return found


@pytest.mark.parametrize("file", ["settings.toml", "connector/cli/template.toml"])
def test_the_shipped_files_show_every_setting_with_its_default(file: str, tmp_path: Path) -> None:
    """settings.toml is the reference people read: each key is there, and each value is the default."""
    shown = tomllib.loads((REPOSITORY / file).read_text("utf-8"))
    assert {k: set(v) for k, v in shown.items() if k != "objects"} == sections(Settings)
    assert shown["objects"].keys() == DEFAULT_OBJECTS.keys()
    url = shown["salesforce"].pop("instance_url")
    env = {"SALESFORCE_SYNC_SALESFORCE__INSTANCE_URL": url}
    loaded, default = load_settings(REPOSITORY / file, env, tmp_path), load(tmp_path, "", env)
    assert [loaded.poll_interval(o) for o in loaded.objects] == [default.poll_interval(o) for o in default.objects]
    without_intervals = {"objects": {name: {"poll_interval"} for name in default.objects}}
    assert loaded.model_dump(exclude=without_intervals) == default.model_dump(exclude=without_intervals)


def test_the_two_shipped_files_differ_in_the_org_only() -> None:
    """The local set-up and the template of `init` must not drift apart."""
    local, template = (
        re.sub(r"(?s)\A.*?(?=\[node\])", "", (REPOSITORY / f).read_text("utf-8"))
        for f in ("settings.toml", "connector/cli/template.toml")
    )
    assert template == local.replace("http://127.0.0.1:8620", PLACEHOLDER_URL)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "::1:80", "http://x:80", "a b:80"])
def test_an_address_to_listen_on_is_host_and_port(tmp_path: Path, address: str) -> None:
    """Said with key, value and what was expected."""
    (problem,) = problems(tmp_path, f'[metrics]\nlisten = "{address}"')
    assert problem.startswith(f"metrics.listen = '{address}': expected \"host:port\"")


def test_metrics_may_be_served_to_others_and_the_page_may_not(tmp_path: Path) -> None:
    """The page shows records and asks nobody who they are."""
    settings = load(tmp_path, '[metrics]\nlisten = "0.0.0.0:9464"\n[web]\nlisten = "[::1]:8099"')
    assert (settings.metrics.address, settings.web.address) == (("0.0.0.0", 9464), ("::1", 8099))  # noqa: S104 - refused below
    assert load(tmp_path).metrics.address is None
    (problem,) = problems(tmp_path, '[web]\nlisten = "0.0.0.0:8099"')
    assert "loopback only" in problem

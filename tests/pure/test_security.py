"""Security: what goes together, and what is never shown."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import Producer

import quixframes as qf
from quixframes.confluent.secured import security_settings
from quixframes.job import Job
from quixframes.oauth import ClientCredentials
from quixframes.profiles import environment_profile, named_profile
from quixframes.settings import Connection
from quixframes.tls import context_of
from tests.secrets_kept import SecretsKept, keep

PASSWORD = "tyres-and-fuel"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----\n"


def everything() -> list[qf.Security]:
    return [
        qf.Security.tls("ca.pem"),
        qf.Security.scram("alice", PASSWORD, ca="ca.pem"),
        qf.Security.plain("alice", PASSWORD),
        qf.Security.plain("alice", PASSWORD, encrypted=False, allow_plaintext=True),
        qf.Security.mtls(KEY, KEY, key_password=PASSWORD),
        qf.Security.oauth(lambda: PASSWORD),
    ]


@pytest.mark.parametrize("security", everything(), ids=repr)
def test_no_secret_is_ever_shown(security: qf.Security) -> None:
    connection = Connection(("kafka:9092",), security=security)
    for thing in (security, connection, copy.deepcopy(security), asdict(security), [security.password, security.key]):
        for text in (repr(thing), str(thing), f"{thing}", "%s %r" % (thing, thing)):  # noqa: UP031
            assert PASSWORD not in text
            assert "MIIEvQ" not in text


def test_a_secret_is_the_same_after_a_copy_and_a_pickle() -> None:
    secret = qf.Secret(PASSWORD)
    assert pickle.loads(pickle.dumps(secret)) == copy.copy(secret) == secret
    assert qf.Secret(secret).reveal() == PASSWORD
    with pytest.raises(TypeError):
        json.dumps(secret)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mechanism": "GSSAPI", "user": "a", "password": PASSWORD}, "PLAIN, SCRAM-SHA-256"),
        ({"user": "a", "password": PASSWORD}, "without its mechanism"),
        ({"mechanism": "PLAIN", "user": "a"}, "a user and a password"),
        ({"mechanism": "SCRAM-SHA-512", "user": "", "password": PASSWORD}, "a user and a password"),
        ({"mechanism": "OAUTHBEARER"}, "a function that returns a token"),
        ({"mechanism": "OAUTHBEARER", "token": PASSWORD}, "a function that returns a token"),
        ({"mechanism": "PLAIN", "user": "a", "password": PASSWORD, "encrypted": False}, "allow_plaintext=True"),
        ({"mechanism": "OAUTHBEARER", "token": str, "encrypted": False}, "allow_plaintext=True"),
        ({"key": "key.pem"}, "without a certificate"),
        ({"ca": "ca.pem", "encrypted": False}, "without TLS there are none"),
        ({"ca": ""}, "is no file"),
    ],
)
def test_what_does_not_go_together_is_an_error(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(qf.SettingsError, match=text) as caught:
        qf.Security(**settings)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda **how: qf.Security.plain("alice", PASSWORD, **how),
        lambda **how: qf.Security.scram("alice", PASSWORD, **how),
        lambda **how: qf.Security.oauth(lambda: PASSWORD, **how),
    ],
    ids=["plain", "scram", "oauth"],
)
def test_a_password_or_token_goes_without_tls_only_where_that_is_said_to_be_meant(make: Any) -> None:
    with pytest.raises(qf.SettingsError, match="allow_plaintext=True"):
        make(encrypted=False)
    assert make(encrypted=False, allow_plaintext=True).protocol == "SASL_PLAINTEXT"
    assert make(allow_plaintext=True).protocol == "SASL_SSL"


def test_a_password_that_is_no_text_is_an_error_and_not_another_password() -> None:
    with pytest.raises(qf.SettingsError, match="has to be a text, and this is of type bytes") as caught:
        qf.Security.scram("alice", PASSWORD.encode())  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)


def test_a_connection_takes_nothing_else_and_does_not_show_what_it_was_given() -> None:
    with pytest.raises(qf.SettingsError, match="has to be a Security") as caught:
        Connection(("kafka:9092",), security=PASSWORD)  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)


def test_the_settings_of_a_kafka_client_do_not_show_what_is_secret_in_them(tmp_path: Path) -> None:
    own = trustme.CA().issue_cert("localhost")
    both = own.private_key_and_cert_chain_pem.bytes().decode()
    line = both.splitlines()[2]
    keep(line, PASSWORD)
    for security in (qf.Security.plain("alice", PASSWORD), qf.Security.mtls(both, key_password=PASSWORD)):
        settings = security_settings(security)
        assert PASSWORD not in repr(settings)
        assert line not in repr(settings)
        assert PASSWORD in settings.values()
        Producer(settings)  # librdkafka takes them


def test_an_identity_providers_address_has_no_password_in_it() -> None:
    with pytest.raises(qf.SettingsError, match="has a user or password in it") as caught:
        ClientCredentials(f"https://pace:{PASSWORD}@id.example.org/token", "pace", "secret")
    assert PASSWORD not in str(caught.value)


def test_the_environment_says_how_to_connect() -> None:
    environ = {
        "QUIXFRAMES_BROKER": "kafka:9093",
        "QUIXFRAMES_USER": "alice",
        "QUIXFRAMES_PASSWORD": PASSWORD,
        "QUIXFRAMES_CA": "/etc/ca.pem",
    }
    found = environment_profile(environ)
    assert found.broker == "kafka:9093"
    assert found.security == qf.Security.scram("alice", PASSWORD, ca=Path("/etc/ca.pem"))
    found = environment_profile({**environ, "QUIXFRAMES_SASL_MECHANISM": "PLAIN"})
    assert found.security == qf.Security.plain("alice", PASSWORD, ca=Path("/etc/ca.pem"))
    assert environment_profile({"QUIXFRAMES_BROKER": "kafka:9092"}).security is None
    assert environment_profile({"QUIXFRAMES_TLS": "true"}).security == qf.Security.tls()
    own = environment_profile({"QUIXFRAMES_CERTIFICATE": "/c.pem", "QUIXFRAMES_KEY": "/k.pem"}).security
    assert own == qf.Security.mtls(Path("/c.pem"), Path("/k.pem"))


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"QUIXFRAMES_USER": "alice"}, "a user and a password"),
        ({"QUIXFRAMES_PASSWORD": PASSWORD}, "a user and a password"),
        ({"QUIXFRAMES_TLS": "perhaps"}, "QUIXFRAMES_TLS has to be true or false"),
        ({"QUIXFRAMES_USER": "a", "QUIXFRAMES_PASSWORD": PASSWORD, "QUIXFRAMES_TLS": "false"}, "allow_plaintext=True"),
        ({"QUIXFRAMES_USER": "a", "QUIXFRAMES_PASSWORD_FILE": "/none"}, "/none cannot be read"),
        ({"QUIXFRAMES_SASL_MECHANISM": "OAUTHBEARER"}, "needs token_url"),
        ({"QUIXFRAMES_SASL_MECHANISM": "SCRAM"}, "QUIXFRAMES_SASL_MECHANISM='SCRAM' has to be one of PLAIN"),
        ({"QUIXFRAMES_MECHANISM": "PLAIN"}, "it is QUIXFRAMES_SASL_MECHANISM"),
        ({"QUIXFRAMES_CLIENT_ID": "a", "QUIXFRAMES_CLIENT_SECRET": PASSWORD}, "without token_url"),
    ],
)
def test_an_environment_that_cannot_be_is_an_error(environ: dict[str, str], text: str) -> None:
    with pytest.raises(qf.SettingsError, match=text) as caught:
        environment_profile(environ)
    assert PASSWORD not in str(caught.value)


def config(tmp_path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    return {"QUIXFRAMES_CONFIG": str(path)}


def test_a_profile_says_how_to_connect_and_its_paths_are_beside_it(tmp_path: Path) -> None:
    text = f'[production]\nbroker = "kafka:9093"\nca = "ca.pem"\nuser = "alice"\npassword = "{PASSWORD}"\n'
    found = named_profile("production", config(tmp_path, text))
    assert found.broker == "kafka:9093"
    assert found.security == qf.Security.scram("alice", PASSWORD, ca=tmp_path / "ca.pem")


def test_a_profile_may_be_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'my 🏎 "folder"'
    folder.mkdir()
    (folder / "the é ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    text = f'["🏎"]\nbroker = "kafka:9093"\nca = "the é ca.pem"\nuser = "a"\npassword = "{PASSWORD}"\n'
    found = named_profile("🏎", config(folder, text)).security
    assert found == qf.Security.scram("a", PASSWORD, ca=folder / "the é ca.pem")
    assert "BEGIN CERTIFICATE" in security_settings(found)["ssl.ca.pem"]
    assert context_of(found).get_ca_certs()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_with_a_password_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    environ = config(tmp_path, f'[p]\nbroker = "k:1"\nuser = "a"\npassword = "{PASSWORD}"\n', mode)
    with pytest.raises(qf.SettingsError, match="may be read by others: chmod 600") as caught:
        named_profile("p", environ)
    assert PASSWORD not in str(caught.value)


def test_a_private_key_in_the_file_is_kept_from_others_as_a_password_is(tmp_path: Path) -> None:
    text = f'[p]\nbroker = "k:1"\ncertificate = "c.pem"\nkey = """{KEY}"""\n'
    with pytest.raises(qf.SettingsError, match="may be read by others: chmod 600") as caught:
        named_profile("p", config(tmp_path, text, 0o644))
    assert "MIIEvQ" not in str(caught.value)
    assert named_profile("p", config(tmp_path, text)).security == qf.Security.mtls(tmp_path / "c.pem", KEY)


def test_a_password_may_be_in_a_variable_or_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    text = (
        '[one]\nbroker = "k:1"\nuser = "a"\npassword_env = "PACE"\n'
        '[other]\nbroker = "k:1"\nuser = "a"\npassword_file = "password"\n'
    )
    environ = {**config(tmp_path, text, 0o644), "PACE": PASSWORD}
    for name in ("one", "other"):
        assert named_profile(name, environ).security == qf.Security.scram("a", PASSWORD)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[other]\nbroker = "k:1"\n', "has no profile 'p'; it has: other"),
        ('[p]\nuser = "a"\n', "names no broker"),
        ('[p]\nbroker = "k:1"\npasword = "tyres-and-fuel"\n', "pasword is not known"),
        ('[p]\nbroker = "k:1"\ntls = "yes"\n', "tls has to be true or false"),
        ('[p]\nbroker = "k:1"\nuser = "a"\npassword = "tyres-and-fuel"\npassword_env = "B"\n', "were both given"),
        ('[p]\nbroker = "k:1"\nuser = "a"\npassword_env = "NONE_SUCH"\n', "there is none called 'NONE_SUCH'"),
        ('[p]\nbroker = "k:1"\nuser = "a"\npassword_env = "tyres-and-fuel"\n', "names an environment variable"),
        ('[p]\nbroker = "k:1"\nmechanism = "scram"\n', "mechanism='scram' has to be one of"),
        ('[p]\nbroker = "tyres-and-fuel\n', "is no TOML"),
    ],
)
def test_a_profile_that_cannot_be_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(qf.SettingsError, match=says) as caught:
        named_profile("p", config(tmp_path, text))
    assert PASSWORD not in str(caught.value)


def test_a_configuration_file_that_is_not_there_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(qf.SettingsError, match="there is no file .*config.toml"):
        named_profile("p", {"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_job_on_its_way_to_a_process_holds_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in config(tmp_path, f'[p]\nbroker = "k:1"\nuser = "a"\npassword = "{PASSWORD}"\n').items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUIXFRAMES_USER", "alice")
    monkeypatch.setenv("QUIXFRAMES_PASSWORD", PASSWORD)
    for profile in (None, "p"):
        job = Job(model="m:f", broker="k:1", sources=("t",), profile=profile)
        assert job.security is not None
        assert PASSWORD not in repr(job) + job.to_json()
        assert Job.from_json(job.to_json()) == job


def test_a_secret_that_is_logged_is_found() -> None:
    kept, secret = SecretsKept(), "a-secret-of-this-test"
    keep(secret)
    log = logging.Logger("of this test")
    log.addHandler(kept)
    log.info("nothing")
    assert not kept.places
    log.debug("user %s, password %s", "alice", secret)
    assert kept.places

"""Every way to log in works, over both Kafka clients; and the local cluster keeps its secrets."""

from __future__ import annotations

import json
import logging
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import trustme

import quixframes as qf
from quixframes.local_secure import LocalSecurity
from quixframes.oauth import ClientCredentials
from quixframes.security import Mechanism
from tests.secrets_kept import keep
from tests.secure.conftest import Client

MakeFrame = Callable[..., pd.DataFrame]


@pytest.fixture
def secure_topic(connect: Client, secure_kafka: qf.LocalKafka) -> Iterator[str]:
    """A topic of admin's."""
    admin = connect(secure_kafka.security("admin"))
    name = f"engine-{os.urandom(6).hex()}"
    admin.topics.create(name, partitions=1)
    yield name
    admin.topics.delete(name)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", None])
def test_rows_are_written_read_and_committed_whichever_way_one_logs_in(
    connect: Client, secure_kafka: qf.LocalKafka, secure_topic: str, make_frame: MakeFrame, mechanism: Mechanism | None
) -> None:
    address = secure_kafka.address if mechanism else secure_kafka.mtls_address
    client = connect(secure_kafka.security("admin", mechanism), address)
    frame = make_frame(20_000, 10)  # some 2 MB, so many records of TLS
    with client.open_output_topic(secure_topic) as out:
        out.write(frame, stream="car-44")
    with client.open_input_topic(secure_topic, "g", commit_settings=qf.CommitMode.Manual) as topic:
        for batch in topic.batches(rows=20_000, timeout=None):
            batch.commit()
            pd.testing.assert_frame_equal(batch.frame, frame, check_freq=False)
            break


def test_a_program_says_nothing_of_passwords_where_the_environment_or_a_profile_does(
    secure_kafka: qf.LocalKafka, secure_topic: str, transport: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    security = secure_kafka.security("admin")
    assert security.password is not None
    monkeypatch.setenv("QUIXFRAMES_CONFIG", str(folder / "profiles.toml"))
    for profile in ("admin", "admin-certificate"):
        with qf.StreamingClient.from_profile(profile, transport=transport) as client:
            assert client.topics.exists(secure_topic)
    monkeypatch.setenv("QUIXFRAMES_BROKER", secure_kafka.address)
    monkeypatch.setenv("QUIXFRAMES_USER", "admin")
    monkeypatch.setenv("QUIXFRAMES_PASSWORD", security.password.reveal())
    monkeypatch.setenv("QUIXFRAMES_CA", str(folder / "ca.pem"))
    for client in (qf.StreamingClient.from_env(transport=transport), qf.StreamingClient(transport=transport)):
        with client:
            assert client.topics.exists(secure_topic)
            assert security.password.reveal() not in repr(client) + repr(vars(client))


def test_without_a_ca_the_authorities_count_that_the_system_trusts(
    connect: Client, secure_kafka: qf.LocalKafka, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    password = secure_kafka.security().password
    assert password is not None
    connect(qf.Security.scram("admin", password)).topics.list()


def test_who_finds_the_cluster_running_gets_its_security_too(secure_kafka: qf.LocalKafka) -> None:
    with qf.LocalKafka(secure_kafka.directory) as found:
        assert not found.owned
        assert found.secured
        assert found.security("alice") == secure_kafka.security("alice")
        assert found.mtls_address == secure_kafka.mtls_address
    with qf.StreamingClient.local(secure_kafka.directory) as client:
        client.topics.list()
    for secure, brokers in ((False, None), (True, 3)):
        with pytest.raises(qf.LocalKafkaError, match="name another folder"):
            qf.LocalKafka(secure_kafka.directory, secure=secure, brokers=brokers).start()


def test_who_does_not_log_in_by_a_known_name_is_told_so(secure_kafka: qf.LocalKafka, tmp_path: Path) -> None:
    with pytest.raises(qf.SettingsError, match="admin, alice, bob"):
        secure_kafka.security("carol")
    with pytest.raises(qf.LocalKafkaError, match="not started with secure=True"):
        qf.LocalKafka(tmp_path).security()


def test_the_files_of_a_secured_cluster_are_its_users_alone_and_its_log_and_command_lines_hold_no_password(
    secure_kafka: qf.LocalKafka, folder: Path
) -> None:
    for path in (folder, *folder.iterdir(), secure_kafka.directory / "broker.properties"):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    passwords = LocalSecurity(secure_kafka.directory).passwords().values()
    texts = [(secure_kafka.directory / name).read_text() for name in ("broker.log", "console.log")]
    texts.append(" ".join(psutil.Process(secure_kafka.pid).cmdline()))
    assert not any(password in text for password in passwords for text in texts)


def test_a_secured_cluster_has_no_port_without_tls(secure_kafka: qf.LocalKafka) -> None:
    text = (secure_kafka.directory / "broker.properties").read_text()
    assert "PLAINTEXT" not in text
    listening = {c.laddr.port for c in psutil.Process(secure_kafka.pid).net_connections() if c.status == "LISTEN"}
    context = ssl.create_default_context(cafile=secure_kafka.directory / "secure" / "ca.pem")
    for port in listening:
        ssl.get_server_certificate(("127.0.0.1", port))
    assert len(listening) == 3
    assert context.check_hostname


def test_the_run_command_connects_as_a_profile_or_the_environment_says(
    connect: Client,
    secure_kafka: qf.LocalKafka,
    secure_topic: str,
    make_frame: MakeFrame,
    tmp_path: Path,
    transport: str,
    folder: Path,
) -> None:
    with connect(secure_kafka.security()).open_output_topic(secure_topic) as out:
        out.write(make_frame(100), stream="car-44")
    (tmp_path / "model.py").write_text("def model(frame):\n    return None\n")
    words = [sys.executable, "-m", "quixframes.cli", "run", f"{tmp_path / 'model.py'}:model", "--source", secure_topic]
    words += ["--until", "now", "--transport", transport]
    password = secure_kafka.security().password
    assert password is not None
    profile = {"QUIXFRAMES_CONFIG": str(folder / "profiles.toml"), "QUIXFRAMES_PROFILE": "admin"}
    profile |= {"QUIXFRAMES_BROKER": "127.0.0.1:1"}  # another cluster's, to which this login is not to be sent
    login = {"QUIXFRAMES_BROKER": secure_kafka.address, "QUIXFRAMES_CA": str(folder / "ca.pem")}
    login |= {"QUIXFRAMES_USER": "admin", "QUIXFRAMES_PASSWORD": password.reveal()}
    for group, environ in (("by-profile", profile), ("by-environment", login)):
        done = subprocess.run(
            [*words, "--group", group], env={**os.environ, **environ}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert " 100 " in done.stdout
        assert password.reveal() not in done.stdout + done.stderr


def test_the_demo_connects_as_a_profile_says(folder: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "QUIXFRAMES_CONFIG": str(folder / "profiles.toml")}
    words = [sys.executable, "-m", "quixframes.cli", "demo", "--profile", "alice", "--out", str(tmp_path)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "User:alice may not create topic 'weather-raw'" in done.stderr
    assert "Traceback" not in done.stderr


class Provider(BaseHTTPRequestHandler):
    """An identity provider that gives admin's tokens to who knows the secret."""

    security: LocalSecurity
    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        knows = self.headers["Authorization"] == "Basic cGFjZTp0eXJlcy1hbmQtb2lsLXNlY3JldA=="
        answer = {"error": "invalid_client"}
        if knows:
            answer = {"access_token": self.security.token("admin"), "token_type": "Bearer", "expires_in": 300}  # type: ignore[dict-item]
        body = json.dumps(answer).encode()
        self.send_response(200 if knows else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logging.getLogger(__name__).debug(format, *args)


def test_tokens_come_from_an_identity_provider_and_are_kept_while_they_are_valid(
    connect: Client,
    secure_kafka: qf.LocalKafka,
    secure_topic: str,
    folder: Path,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep("tyres-and-oil-secret", "cGFjZTp0eXJlcy1hbmQtb2lsLXNlY3JldA==")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    handler = type("Handler", (Provider,), {"security": LocalSecurity(secure_kafka.directory), "asked": 0})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_port}/token"
            tokens = ClientCredentials(url, "pace", "tyres-and-oil-secret")
            assert connect(qf.Security.oauth(tokens, ca=folder / "ca.pem")).topics.exists(secure_topic)
            assert tokens() == tokens()
            assert handler.asked == 1  # type: ignore[attr-defined]
            wrong = ClientCredentials(url, "pace", "not-the-oil-secret")
            with pytest.raises(qf.AuthenticationError, match="no token could be had.*invalid_client"):
                connect(qf.Security.oauth(wrong, ca=folder / "ca.pem")).topics.exists(secure_topic)
        finally:
            server.shutdown()
            thread.join()


def test_a_secret_is_not_sent_to_a_provider_without_tls() -> None:
    with pytest.raises(qf.SettingsError, match="https"):
        ClientCredentials("http://id.example.org/token", "pace", "tyres")

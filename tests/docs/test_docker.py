"""What is in ``docker/``: files that Docker, Kubernetes and systemd can read, and a broker that quixframes can use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

import quixframes as qf
from quixframes.cli import app
from quixframes.job import Job
from quixframes.local import KAFKA_VERSION
from quixframes.profiles import environment_profile
from quixframes.settings import seconds
from tests.docs.snippets import ROOT

COMPOSE = ROOT / "docker" / "compose.yaml"
IMAGE = f"apache/kafka:{KAFKA_VERSION}"


@pytest.fixture
def broker() -> dict[str, Any]:
    """The one service of the compose file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the compose file cannot be read")
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    (service,) = services.values()
    return service


def test_the_compose_file_has_the_version_that_everything_else_has(broker: dict[str, Any]) -> None:
    assert broker["image"] == IMAGE


def test_the_broker_is_reached_from_this_machine_only(broker: dict[str, Any]) -> None:
    (port,) = broker["ports"]
    assert port.startswith("127.0.0.1:")
    assert port.endswith(":9092")


def test_the_broker_says_the_address_that_is_published(broker: dict[str, Any]) -> None:
    """A client is told by the broker where to come back to: it has to be an address that leads there."""
    (port,) = broker["ports"]
    advertised = dict(part.split("://") for part in broker["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(","))
    published = re.fullmatch(r"127\.0\.0\.1:(.+):9092", port)
    assert published is not None
    assert advertised["HOST"] == f"localhost:{published[1]}"
    listeners = dict(part.split("://") for part in broker["environment"]["KAFKA_LISTENERS"].split(","))
    assert listeners["HOST"] == ":9092"


def test_every_setting_is_text(broker: dict[str, Any]) -> None:
    """YAML makes a boolean of false, which Compose refuses."""
    assert {type(value) for value in broker["environment"].values()} == {str}


def test_the_broker_is_asked_whether_it_is_well(broker: dict[str, Any]) -> None:
    assert "kafka-topics.sh" in " ".join(broker["healthcheck"]["test"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A broker from testcontainers."""
    docker = pytest.importorskip("docker", reason="Docker's Python client is not installed")
    containers = pytest.importorskip("testcontainers.kafka", reason="testcontainers is not installed")
    try:
        docker.from_env().ping()
    except Exception as exc:
        pytest.skip(f"no Docker engine answers ({type(exc).__name__})")
    with containers.KafkaContainer().with_kraft() as container:
        yield container.get_bootstrap_server()


def test_a_frame_goes_through_a_broker_in_docker(
    address: str, make_frame: Callable[[int], pd.DataFrame], group: str
) -> None:
    frame = make_frame(1_000)
    with qf.StreamingClient(address) as client:
        client.topics.create(group)
        with client.open_output_topic(group) as topic:
            topic.write(frame, stream="s")
        with client.open_input_topic(group, group) as topic:
            read = pd.concat(batch.frame for batch in topic.batches(until="now"))
    pd.testing.assert_frame_equal(read, frame, check_exact=True)


MODEL_COMPOSE = ROOT / "docker" / "compose.model.yaml"
KUBERNETES = ROOT / "docker" / "kubernetes" / "model.yaml"
UNIT = ROOT / "docker" / "systemd" / "quixframes@.service"
DOCKERFILE = ROOT / "docker" / "model" / "Dockerfile"

STOP = seconds(next(f.default for f in fields(Job) if f.name == "stop_timeout"))


@pytest.fixture
def model() -> dict[str, Any]:
    """The model's service of the compose file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the compose file cannot be read")
    service: dict[str, Any] = yaml.safe_load(MODEL_COMPOSE.read_text())["services"]["model"]
    return service


@pytest.fixture
def pod() -> dict[str, Any]:
    """What the Kubernetes Deployment runs."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the manifest cannot be read")
    deployment, _ = yaml.safe_load_all(KUBERNETES.read_text())
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def options(arguments: list[str]) -> None:
    """Fails where ``quixframes run`` would not take them."""
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert entry is not None
    command, name, *fixed = json.loads(entry[1])
    assert (command, name) == ("quixframes", "run")
    typer.main.get_command(app).commands["run"].make_context("run", [*fixed, *arguments])  # type: ignore[attr-defined]


def test_the_command_takes_the_options_of_every_container(model: dict[str, Any], pod: dict[str, Any]) -> None:
    options(model["command"])
    options(pod["containers"][0]["args"])


def test_everywhere_an_instance_has_longer_to_stop_than_the_command_gives_it(
    model: dict[str, Any], pod: dict[str, Any]
) -> None:
    assert seconds(model["stop_grace_period"]) > STOP
    assert pod["terminationGracePeriodSeconds"] > STOP
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)[1]) > STOP  # type: ignore[index]


def test_the_image_runs_as_nobody_and_is_asked_whether_it_is_ready() -> None:
    text = DOCKERFILE.read_text()
    assert text.count("\nFROM ") == 2
    assert "\nUSER 10001\n" in text
    assert "http://127.0.0.1:8080/ready" in text
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_model_in_compose_is_three_containers_on_the_broker_of_the_other_file(
    model: dict[str, Any], broker: dict[str, Any]
) -> None:
    assert model["deploy"]["replicas"] == 3
    address = model["environment"]["QUIXFRAMES_BROKER"]
    assert f"INTERNAL://{address}" in broker["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"image: {IMAGE}\n" in MODEL_COMPOSE.read_text()


def test_kubernetes_asks_the_paths_that_there_are(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}
    assert "--health-host=0.0.0.0" in container["args"]


def test_kubernetes_knows_every_field_of_the_manifest() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the manifest cannot be read")
    for resource in yaml.safe_load_all(KUBERNETES.read_text()):
        validator.validate(resource, "1.31", strict=True)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not on this machine")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert unit.name.split("@")[0] not in verified.stderr, verified.stderr


SECURE_COMPOSE = ROOT / "docker" / "compose.secure.yaml"
SCRIPTS = ROOT / "docker" / "secure"


@pytest.fixture
def secure() -> dict[str, Any]:
    """The compose file of the three brokers."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the compose file cannot be read")
    found: dict[str, Any] = yaml.safe_load(SECURE_COMPOSE.read_text())
    return found


def brokers_of(secure: dict[str, Any]) -> list[dict[str, Any]]:
    return [service for name, service in secure["services"].items() if name.startswith("kafka-")]


def test_three_brokers_differ_in_name_number_port_and_data_alone(secure: dict[str, Any]) -> None:
    brokers = brokers_of(secure)
    assert [broker["hostname"] for broker in brokers] == ["kafka-1", "kafka-2", "kafka-3"]
    for number, broker in enumerate(brokers, 1):
        assert broker["image"] == IMAGE == secure["services"]["certificates"]["image"]
        (port,) = broker["ports"]
        assert broker["environment"] == {"BROKER": str(number), "PORT": port.split(":", 1)[1].rpartition(":")[0]}
        assert port.startswith("127.0.0.1:")
        assert port.endswith(":9092")
        assert f"data-{number}:/var/lib/kafka/data" in broker["volumes"]
        assert "secrets:/secrets:ro" in broker["volumes"]
        assert broker["depends_on"]["certificates"]["condition"] == "service_completed_successfully"
        assert "localhost:19093" in broker["healthcheck"]["test"][1]
    defaults = [re.search(r":-(\d+)", broker["ports"][0])[1] for broker in brokers]  # type: ignore[index]
    assert ",".join(f"localhost:{port}" for port in defaults) in (ROOT / "docker" / "README.md").read_text()


def test_every_volume_of_the_secure_cluster_is_declared_and_every_script_is_there(secure: dict[str, Any]) -> None:
    used = [volume.split(":") for service in secure["services"].values() for volume in service["volumes"]]
    assert {source for source, *_ in used if not source.startswith(".")} == secure["volumes"].keys()
    assert {source for source, *_ in used if source.startswith(".")} == {"./secure"}
    for service in secure["services"].values():
        shell, script = service["entrypoint"]
        assert shell == "/bin/bash"
        assert (SCRIPTS / Path(script).name).exists()
        assert Path(script).parent == Path("/scripts")


@pytest.mark.parametrize("script", ["certificates.sh", "broker.sh"])
def test_bash_can_read_the_scripts(script: str) -> None:
    read = subprocess.run(["bash", "-n", str(SCRIPTS / script)], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr


def test_no_listener_of_the_secure_cluster_is_open_and_no_password_is_in_its_files() -> None:
    text = (SCRIPTS / "broker.sh").read_text()
    facts = dict(re.findall(r"^([a-z0-9.-]+)=(.*)$", text, re.MULTILINE))
    protocols = dict(pair.split(":") for pair in facts["listener.security.protocol.map"].split(","))
    assert protocols == {"HOST": "SASL_SSL", "CLIENT": "SASL_SSL", "BROKER": "SSL", "CONTROLLER": "SSL"}
    assert facts["listeners"].count("://") == 4
    for name in ("broker", "controller"):
        assert facts[f"listener.name.{name}.ssl.client.auth"] == "required"
    assert facts["allow.everyone.if.no.acl.found"] == "false"
    assert facts["authorizer.class.name"].endswith("StandardAuthorizer")
    assert {facts[f"ssl.{store}.password"].rstrip('"') for store in ("keystore", "truststore")} == {"$password"}
    assert "PASSWORD" not in SECURE_COMPOSE.read_text()


def test_the_first_password_is_on_no_command_line_and_in_no_log(tmp_path: Path) -> None:
    """The script, with tools that tell what they are given."""
    secrets, tools = tmp_path / "secrets", tmp_path / "kafka" / "bin"
    (secrets / "client").mkdir(parents=True)
    tools.mkdir(parents=True)
    for name in ("store-password", "cluster-id", "client/admin-password"):
        (secrets / name).write_text(f"the-{Path(name).name}\n")
    for name in ("kafka-storage.sh", "kafka-server-start.sh"):
        given = f'case $1 in @*) cat "${{1#@}}" | tee {tmp_path}/given ;; esac'
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/told\n{given}\n')
        (tools / name).chmod(0o755)
    environment = {"SECRETS": secrets, "KAFKA": tools.parent, "DATA": tmp_path, "WORK": tmp_path, "BROKER": "1"}
    run = subprocess.run(
        ["bash", str(SCRIPTS / "broker.sh")],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}, "PORT": "9092"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "--add-scram=SCRAM-SHA-512=[name=admin,password=the-admin-password]\n" in (tmp_path / "given").read_text()
    told = (tmp_path / "told").read_text() + run.stdout + run.stderr
    assert "kafka-server-start.sh" in told
    assert "the-admin-password" not in told
    assert not (tmp_path / "format").exists()
    assert not (tmp_path / "server.properties").stat().st_mode & 0o077


def test_git_leaves_out_what_the_readme_has_copied_from_the_cluster() -> None:
    assert "kafka-1:/secrets/client ." in (ROOT / "docker" / "README.md").read_text()
    assert "docker/client/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.faults  # each of its dozen keytools starts a Java
def test_certificates_are_of_the_names_under_which_brokers_are_reached(tmp_path: Path) -> None:
    """Made for real, where there is a keytool: the script needs no more."""
    if shutil.which("keytool") is None or shutil.which("openssl") is None:
        pytest.skip("keytool or openssl is not on this machine")
    tool = tmp_path / "kafka" / "bin" / "kafka-storage.sh"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho MkU3OEVBNTcwNTJENDM2Qg\n")
    tool.chmod(0o755)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    environment = {**os.environ, "SECRETS": str(secrets), "KAFKA": str(tmp_path / "kafka")}
    command = ["bash", str(SCRIPTS / "certificates.sh")]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert made.returncode == 0, made.stderr
    password = (secrets / "store-password").read_text().strip()
    assert len(password) >= 24
    assert not (secrets / "authority.p12").exists()  # nobody can make further certificates
    assert password not in made.stdout + made.stderr
    chain = subprocess.run(
        ["openssl", "pkcs12", "-in", str(secrets / "kafka-2.p12"), "-nokeys", "-passin", f"pass:{password}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    own = re.search(r"CN ?= ?kafka-2\n.*?(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n)", chain, re.DOTALL)
    assert own is not None
    (tmp_path / "kafka-2.pem").write_text(own[1])
    verify = ["openssl", "verify", "-CAfile", str(secrets / "client" / "ca.pem")]
    for check in (["-verify_hostname", "kafka-2"], ["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"]):
        for purpose in ("sslserver", "sslclient"):
            subprocess.run([*verify, "-purpose", purpose, *check, str(tmp_path / "kafka-2.pem")], check=True)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "already" in again.stdout
    assert (secrets / "store-password").read_text().strip() == password


def test_the_example_of_a_model_on_the_secured_cluster_fits_it_and_its_password_is_kept() -> None:
    text = (ROOT / "docker" / "README.md").read_text()
    compose = (ROOT / "docker" / "compose.secure.yaml").read_text()
    (name,) = re.findall("^name: (.+)$", compose, re.MULTILINE)
    assert f"--network {name}_default " in text
    (lines,) = re.findall(r'write_text\(f"""\\\n(.+?)"""\)', text, re.DOTALL)
    found = environment_profile(dict(line.split("=", 1) for line in lines.splitlines()))
    assert found.security is not None
    assert found.security.user == "smoothing"
    assert all(f"hostname: {broker.split(':')[0]}" in compose for broker in str(found.broker).split(","))
    assert text.index("touch(mode=0o600)") < text.index("write_text(")
    assert "chmod 600 /etc/quixframes/smoothing.env" in text

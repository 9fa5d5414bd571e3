"""What the compose file and the Dockerfile promise, checked without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.settings import REPOSITORY, Settings
from include.stack.component import COMMANDS
from include.warehouse import server

DOCKER = REPOSITORY / "docker"
PLACES = {"listen_addresses", "port", "unix_socket_directories"}  # where the embedded server listens; a container listens in its own network
LOCAL_ADDRESS = "127.0.0.1:"


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name != "postgres"}


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed (Debian's package docker-compose needs no engine)")
    done = subprocess.run([program, "-f", DOCKER / "compose.yaml", "config"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {"postgres", "prepare", *COMMANDS}


def test_services_are_the_components_of_the_house(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "prepare", *COMMANDS}
    assert {name: service["command"] for name, service in ours(compose).items()} == {name: [name] for name in ("prepare", *COMMANDS)}


def test_what_stays_has_a_health_check_and_restarts(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name == "prepare":
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        if name in COMMANDS:
            assert service["healthcheck"]["test"][-1] == name
            assert service["depends_on"]["prepare"] == {"condition": "service_completed_successfully"}


def test_nothing_is_published_beyond_this_host(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(isinstance(port, str) and port.startswith(LOCAL_ADDRESS) for port in published), published
    assert not any("network_mode" in service or "privileged" in service for service in compose["services"].values())


def test_no_secret_stands_in_the_files(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in environment_of(service).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", variable):
                assert variable.endswith("_FILE"), f"{name} gets a secret in its environment: {variable}"
                assert value.startswith("/run/secrets/"), f"{name}: {variable} is not a secret's file"
    everything = "".join((DOCKER / name).read_text() for name in ("compose.yaml", "Dockerfile"))
    assert not re.search(r"://[^/\s:]+:[^@\s]+@", everything), "an address with a password"
    assert not re.search(r"_PASSWORD:\s*\S", everything), "a password with a value"
    assert {secret["file"] for secret in compose["secrets"].values()} == {"./secrets/postgres_password", "./secrets/prepare", "./secrets/tidemark"}
    assert {"secrets/", ".env"} <= set((DOCKER / ".gitignore").read_text().splitlines())


def test_only_prepare_knows_the_administrator(compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        expected = "prepare" if name == "prepare" else "tidemark"
        assert service["secrets"] == [expected]
        assert environment_of(service)["TIDEMARK_SECRETS_FILE"] == f"/run/secrets/{expected}"


def test_environment_names_are_settings(compose: dict[str, Any]) -> None:
    known = {f"TIDEMARK_{name.upper()}" for name in Settings.model_fields}
    for name, service in ours(compose).items():
        given = {variable for variable in environment_of(service) if variable.startswith("TIDEMARK_")}
        assert given <= known, f"{name}: {given - known} are no settings"
        assert environment_of(service)["TIDEMARK_AIRFLOW_AUTH"] == "fab"


def test_airflow_variables_exist(compose: dict[str, Any]) -> None:
    from airflow.configuration import conf

    for name, service in ours(compose).items():
        for variable in environment_of(service):
            if variable.startswith("AIRFLOW__"):
                _, section, option = variable.split("__")
                assert conf.configuration_description[section.lower()]["options"][option.lower()], f"{name}: {variable}"


def test_server_settings_are_those_of_the_embedded_server(compose: dict[str, Any]) -> None:
    arguments = compose["services"]["postgres"]["command"]
    assert arguments[0] == "postgres"
    given = dict(argument.removeprefix("-c").split("=", 1) for argument in arguments[1:])
    assert given == {name: value for name, value in server.configuration().items() if name not in PLACES}


def test_server_release_is_that_of_the_embedded_server(compose: dict[str, Any]) -> None:
    version = subprocess.run([server.packaged_binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert compose["services"]["postgres"]["image"].startswith(f"postgres:{version}-")


def test_processes_do_not_run_as_root(instructions: list[tuple[str, str]]) -> None:
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["${IMAGE_UID}:${IMAGE_UID}"]
    assert ("ARG", "IMAGE_UID=10001") in instructions
    last_user = max(number for number, (word, _) in enumerate(instructions) if word == "USER")
    assert not [word for word, _ in instructions[last_user:] if word in {"RUN", "COPY", "ADD"}]


def test_base_image_is_pinned_and_fits_the_requirements(instructions: list[tuple[str, str]]) -> None:
    base = next(rest for word, rest in instructions if word == "ARG").removeprefix("PYTHON_IMAGE=")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), base
    assert {rest.split()[0] for word, rest in instructions if word == "FROM"} == {"${PYTHON_IMAGE}"}


def test_packages_come_before_code(instructions: list[tuple[str, str]]) -> None:
    first_stage = instructions[: max(number for number, (word, _) in enumerate(instructions) if word == "FROM")]
    assert [rest for word, rest in first_stage if word == "COPY"] == ["requirements.txt ./"]
    assert "index" not in " ".join(rest for _, rest in instructions), "no index address belongs into the image"


def test_every_source_exists_and_passes_the_ignore_file(copies: list[tuple[list[str], str]]) -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    sources = {source for group, _ in copies for source in group}
    assert all((REPOSITORY / source).exists() for source in sources)
    assert sources | {"requirements.txt"} == let_in

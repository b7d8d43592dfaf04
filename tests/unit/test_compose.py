"""docker-compose.yml, checked without an engine: the compose specification's schema, then what a schema cannot say."""

import http.server
import importlib.util
import ipaddress
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
import yaml

from contracts.roles import ROLES
from contracts.settings import ENV_PREFIX, Section, Settings
from streams.cli.main import COMMANDS
from streams.embedded.jars import KAFKA_VERSION

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
ONE_SHOT = {"topics"}


def test_it_fits_the_compose_specification():
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None, "check-jsonschema is missing: run scripts/setup"
    folder = Path(package.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    errors = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(COMPOSE)
    ]
    assert errors == []


def test_there_is_one_service_for_each_role():
    assert {name for name, service in SERVICES.items() if service.get("command", [""])[0] == "run"} == set(ROLES)
    assert all(SERVICES[role]["command"] == ["run", role] for role in ROLES)


def test_ports_are_published_on_loopback_only():
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            address, *_ = port.rsplit(":", 2)
            assert ipaddress.ip_address(address).is_loopback, f"{name}: {port}"
        assert service.get("network_mode") != "host", name


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_version(name):
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert re.search(r"\d+[.-]\d+", tag), SERVICES[name]["image"]


def test_the_broker_is_the_version_of_the_embedded_one():
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("name", set(SERVICES) - ONE_SHOT)
def test_every_server_has_a_health_check_and_comes_back(name):
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_it_depends_on_services_that_exist_in_a_state_they_can_reach(name):
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        done = "service_completed_successfully"
        assert wanted["condition"] == (done if other in ONE_SHOT else "service_healthy"), other
        assert other in SERVICES
        assert "profiles" not in SERVICES[other], f"{other} may not be there"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_networks_are_declared(name):
    volumes = {volume.partition(":")[0] for volume in SERVICES[name].get("volumes", [])}
    assert volumes <= set(COMPOSE["volumes"])
    assert set(SERVICES[name]["networks"]) <= set(COMPOSE["networks"])


@pytest.mark.parametrize("name", [*ROLES, *ONE_SHOT])
def test_the_environment_names_settings_that_exist(name):
    for variable in SERVICES[name]["environment"]:
        section, _, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
        default = Settings.model_fields[section].default
        assert not key or (isinstance(default, Section) and key in type(default).model_fields), variable


def test_only_vllm_needs_a_gpu_and_only_its_profile_starts_it():
    assert [name for name, service in SERVICES.items() if "gpu" in service.get("profiles", [])] == ["vllm"]
    (device,) = SERVICES["vllm"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_dockerfile_copies_only_what_its_ignore_file_lets_through():
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    allowed = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert [path for line in copied for path in line.split() if f"!{path}" not in allowed] == []


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [(200, b"{}", 0), (503, b'{"missing": ["model"]}', 0), (503, b'{"missing": ["items", "model"]}', 1), (500, b"", 1)],
)
def test_a_ranker_without_its_first_model_is_healthy_so_that_up_wait_can_end(status, body, code):
    class Role(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Role) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert healthy(server.server_port) == code
        thread.join()
    if not code:
        assert healthy(server.server_port) == 1


def healthy(port):
    command = [sys.executable, "docker/ready", str(port)]
    return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False).returncode


def test_the_way_to_the_first_model_in_the_header_is_the_images_own_command():
    assert "docker compose run --rm train train " in (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert (ROOT / "docker" / "Dockerfile").read_text().rstrip().endswith('ENTRYPOINT ["reki"]')
    assert "train" in COMMANDS
    assert "entrypoint" not in SERVICES["train"]


def test_the_ranker_has_the_name_that_others_ask_it_by():
    assert SERVICES["rank"]["hostname"] == "rank"

"""The compose file, held against its schema and against the files it mounts. No container engine is needed."""

import importlib.resources
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from stack_programs import DASHBOARDS, program, run

ROOT = DASHBOARDS.parent
COMPOSE: dict[str, Any] = yaml.safe_load((DASHBOARDS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Nothing but the program is in these images.
WITHOUT_HEALTH_CHECK = {"collector", "tempo"}


def mounts() -> Iterator[tuple[str, str, str]]:
    """Service, source and target of what services mount from here."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert mode == ["ro"], volume
                yield name, source, target


def inside(service: str, path: str) -> Path | None:
    """What a path inside the service's container is here."""
    for name, source, target in mounts():
        if name == service and (path == target or path.startswith(f"{target}/")):
            return (DASHBOARDS / source).resolve() / path[len(target) :].lstrip("/")
    return None


def test_it_is_a_compose_file() -> None:
    """By the specification's own schema, which check-jsonschema brings."""
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    broken = {**COMPOSE, "services": {"redis": {"image": "redis", "port": ["6379:6379"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_it_is_whole() -> None:
    assert {"collector", "prometheus", "alertmanager", "grafana", "tempo", "redis", "demo"} <= {
        *SERVICES
    }
    for name, service in SERVICES.items():
        _, _, version = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+\.\d+", version), f"{name} is not pinned: {service['image']}"
        assert ("healthcheck" in service) is (name not in WITHOUT_HEALTH_CHECK), name
        for needed, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy is ("healthcheck" in SERVICES[needed]), (name, needed)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith(".") or source in COMPOSE["volumes"], volume


def test_nothing_is_open_to_the_network() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
        assert not service.get("privileged")
        assert service.get("network_mode", "").partition(":")[0] in ("", "service")
    grafana = SERVICES["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not [name for name in grafana if "PASSWORD" in name]


def test_what_is_mounted_is_here() -> None:
    found = {(name, source) for name, source, _ in mounts() if (DASHBOARDS / source).exists()}
    assert found == {(name, source) for name, source, _ in mounts()}
    assert len(found) >= 7


def test_what_the_programs_are_given_is_mounted() -> None:
    """Each file that a command names, and each that Grafana's provisioning names."""
    for name in ("prometheus", "alertmanager", "collector", "tempo"):
        (config,) = (
            argument.partition("=")[2]
            for argument in SERVICES[name]["command"]
            if "config" in argument.partition("=")[0]
        )
        path = inside(name, config)
        assert path is not None
        assert path.is_file(), (name, config)
    boards = "/var/lib/grafana/dashboards/spanledger"
    provider = inside("grafana", "/etc/grafana/provisioning/dashboards/spanledger.yml")
    assert provider is not None
    assert yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"] == boards
    home = inside(
        "grafana", SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    )
    assert home is not None
    assert home.is_file()


def test_hosts_that_are_named_are_services() -> None:
    """In Prometheus' targets, Grafana's data sources, and the environments."""
    prometheus = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target
        for job in (*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"])
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    sources = yaml.safe_load(
        (DASHBOARDS / "grafana/provisioning/datasources/spanledger.yml").read_text()
    )
    urls = [source["url"] for source in sources["datasources"]]
    for service in SERVICES.values():
        environment: Mapping[str, str] = service.get("environment", {})
        urls += [value for value in environment.values() if "://" in value]
    hosts = {target.partition(":")[0] for target in targets}
    hosts |= {re.split(r"[:/]+", url)[1] for url in urls if not url.startswith("sqlite")}
    assert hosts - {"localhost"} <= {*SERVICES}
    assert {"collector", "alertmanager", "prometheus", "tempo", "redis"} <= hosts


def test_prometheus_config() -> None:
    run(program("promtool"), "check", "config", str(DASHBOARDS / "prometheus" / "prometheus.yml"))
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text())
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "spanledger")
    assert job["honor_labels"] is True
    sources = (DASHBOARDS / "grafana/provisioning/datasources/spanledger.yml").read_text()
    assert f"timeInterval: {config['global']['scrape_interval']}" in sources


def test_the_collector_is_that_of_the_tests() -> None:
    builder = yaml.safe_load((DASHBOARDS / "collector" / "builder-config.yaml").read_text())
    image = SERVICES["collector"]["image"]
    assert image == f"otel/opentelemetry-collector-contrib:{builder['dist']['version']}"


def test_the_alerts_are_sent_to_who_prints_them() -> None:
    webhook = (DASHBOARDS / "alertmanager" / "webhook.yml").read_text()
    receiver = (DASHBOARDS / "demo" / "alerts.py").read_text()
    assert "http://localhost:9095/" in webhook
    assert '"127.0.0.1:9095"' in receiver
    assert SERVICES["alerts"]["network_mode"] == "service:alertmanager"


def test_the_dockerfile_copies_what_there_is() -> None:
    """And the files beside it are let through to the engine."""
    folder = DASHBOARDS / "demo"
    allowed = [
        line[1:]
        for line in (folder / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in (folder / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in shlex.split(line)[1:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = wheel["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= {*copied}

"""The files of `deployments/` name only what there is: commands, modules, variables, pools, services, volumes."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.serving.deploying import read_file

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployments"
PUBLIC = {"postgres:15"}
OURS = {"contrans:cpu", "contrans:cuda"}
ELSEWHERE = {"HF_TOKEN", "HF_HOME", "DO_NOT_TRACK", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "PGDATA"}
"""Variables that libraries and images read, and that no code of ours or settings of Prefect tell."""


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def manifests(kind: str | None = None) -> list[dict[str, Any]]:
    every = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    return [one for one in every if kind is None or one["kind"] == kind]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in manifests():
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in compose()["services"].items():
        if service["image"] in OURS:
            yield f"compose {name}", service["command"]
    for name, pod in pods():
        for container in pod["containers"]:
            if container["image"] in OURS:
                yield f"kubernetes {name}", container["command"]


def variables() -> Iterator[tuple[str, str]]:
    for name, service in compose()["services"].items():
        yield from ((f"compose {name}", key) for key in service.get("environment", {}))
    for name, pod in pods():
        for container in pod["containers"]:
            yield from ((f"kubernetes {name}", one["name"]) for one in container.get("env", []))
    for line in re.findall(r"^(?:ENV )?\s*([A-Z][A-Z_]+)=", (FOLDER / "Dockerfile").read_text(), re.MULTILINE):
        yield "Dockerfile", line
    for line in (FOLDER / "example.env").read_text().splitlines():
        if "=" in line:
            yield "example.env", line.partition("=")[0]


@pytest.mark.parametrize(
    ("where", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_exist(where: str, command: list[str]) -> None:
    assert command[0] in {point.name for point in entry_points(group="console_scripts")}, where
    if command[0] == "uvicorn":
        module, _, name = command[2].partition(":")
        assert callable(getattr(import_module(module), name))
    if command[0] == "contrans":
        from typer.main import get_command

        from flows.cli.app import app

        assert command[1] in get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    if command[:2] == ["prefect", "worker"]:
        pools = read_file(FOLDER / "prefect.yaml").definitions.work_pools
        assert command[command.index("--pool") + 1] in pools


def test_variables_are_read_by_somebody() -> None:
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    prefects = set(_get_settings_fields(Settings))
    code = "\n".join(
        path.read_text() for room in ("contrans", "registry", "flows") for path in (ROOT / room).rglob("*.py")
    )
    for where, name in variables():
        if name.startswith("PIP_") or name in ELSEWHERE or name == "PYTHONUNBUFFERED":
            continue
        assert name in prefects or f'"{name}"' in code, (where, name)


def test_images_are_ours_or_public_ones() -> None:
    used = {service["image"] for service in compose()["services"].values()}
    used |= {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert used == PUBLIC | OURS
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert re.findall(r"^FROM (.+)$", dockerfile, re.MULTILINE) == ["python:${PYTHON}-slim"]
    assert "ARG VARIANT=cpu" in dockerfile
    for copied in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in (FOLDER / "Dockerfile.dockerignore").read_text()


def test_compose_fits_together() -> None:
    found = compose()
    for name, service in found["services"].items():
        for other in service.get("depends_on", {}):
            assert other in found["services"]
            if service["depends_on"][other]["condition"] == "service_healthy":
                assert "healthcheck" in found["services"][other], other
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in found["volumes"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    hosts = set(re.findall(r"(?:@|http://)([a-z]+):\d+", (FOLDER / "compose.yaml").read_text()))
    assert hosts - {"mlflow"} <= set(found["services"])


def test_kubernetes_fits_together() -> None:
    services = {one["metadata"]["name"]: one for one in manifests("Service")}
    assert {one["metadata"].get("namespace") for one in manifests() if one["kind"] != "Namespace"} == {"contrans"}
    hosts = set(re.findall(r"(?:@|http://)([a-z]+):\d+", (FOLDER / "kubernetes.yaml").read_text()))
    assert hosts == set(services)
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in manifests("Deployment") + manifests("StatefulSet")
    ]
    assert all(service["spec"]["selector"] in labels for service in services.values())
    claims = {one["metadata"]["name"] for one in manifests("PersistentVolumeClaim")}
    maps = {one["metadata"]["name"] for one in manifests("ConfigMap")}
    for name, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | ({"files"} if name == "postgres" else set())
        for volume in pod.get("volumes", []):
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {*claims, None}
            assert volume.get("configMap", {}).get("name") in {*maps, None}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            declared = [one["name"] for one in container.get("env", [])]
            for i, one in enumerate(container.get("env", [])):
                # Kubernetes puts in what was declared before, and leaves the rest as it is written.
                assert set(re.findall(r"\$\((\w+)\)", one.get("value", ""))) <= set(declared[:i])


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_no_secret_stands_in_a_file(file: Path) -> None:
    if file.suffix not in (".yaml", ".env", ".dockerignore"):
        return
    text = file.read_text()
    assert not re.search(r"hf_[A-Za-z0-9]{8,}", text)
    for line in text.splitlines():
        if re.match(r"\s*(POSTGRES_PASSWORD|HF_TOKEN)\s*[:=]", line):
            value = re.split(r"[:=]", line, maxsplit=1)[1].strip()
            assert value == "" or value.startswith("${"), line


def test_example_automations_are_some() -> None:
    from prefect.automations import AutomationCore

    from flows.drift import EVENT

    every = yaml.safe_load((FOLDER / "automations.yaml").read_text())
    loss, silence = (AutomationCore.model_validate(found).trigger for found in every)
    assert EVENT in loss.expect  # pyright: ignore[reportAttributeAccessIssue]
    assert silence.within > timedelta(days=1)  # pyright: ignore[reportAttributeAccessIssue]


def compose_command() -> list[str]:
    """How Compose 2 is called here; empty where there is none. Version 1 cannot read files of today's kind."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if version.returncode == 0 and version.stdout.lstrip("v")[:2] not in ("", "1."):
                return command
    return []


def test_compose_reads_its_file(tmp_path: Path) -> None:
    found = compose_command()
    if not found:
        pytest.skip("Docker Compose 2 is not installed")
    environment = tmp_path / "env"
    environment.write_text("POSTGRES_PASSWORD=abc\n")
    command = [*found, "--env-file", str(environment), "--file", str(FOLDER / "compose.yaml"), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

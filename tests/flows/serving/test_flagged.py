"""A target that loses what transplants do to it, end to end: scored again, flagged, told, acted upon; history stays."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

from contrans.concepts import ConceptVector
from contrans.models import Model, load_model
from contrans.transplants import Transplant
from flows.drift import EVENT, REGRESSED
from registry import Registry
from tests.flows.conftest import Done, Runner
from tests.flows.serving.machines import until
from tests.flows.tiny_pipeline import LABELS, TEMPLATE

DOSE = 4.0
AUTOMATIONS = Path(__file__).resolve().parents[3] / "deployments" / "automations.yaml"


@dataclass
class Planted:
    """A pipeline's run on a target whose head names a concept wherever the concept's transplant leads."""

    contrans: Runner
    home: Path
    target: Path
    heads: list[torch.Tensor]
    labels: list[int]
    transplants: list[str]
    mlflow: Path

    def again(self, night: str) -> list[dict[str, Any]]:
        uri = f"sqlite:///{self.mlflow}"
        words = ("revalidate", *self.transplants, "--night", night, "--json")
        process = self.contrans(self.home, *words, MLFLOW_TRACKING_URI=uri)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)["scored"]

    def says(self, roll: int) -> None:
        """Writes a revision of the target that names the label so many places further on."""
        model = load_model(self.target, device="cpu")
        name_labels(model, self.labels, self.heads[roll:] + self.heads[:roll])
        model.module.save_pretrained(self.target)

    def tracked(self, key: str, night: str) -> list[str]:
        """A tag's values in MLflow's runs of a night."""
        query = (
            "select t.value from tags t join tags n on t.run_uuid = n.run_uuid "
            "where t.key = ? and n.key = 'contrans.night' and n.value = ? order by t.value"
        )
        with sqlite3.connect(self.mlflow) as mlflow:
            return [value for (value,) in mlflow.execute(query, (key, night))]


def name_labels(model: Model, labels: list[int], directions: list[torch.Tensor]) -> None:
    head: Any = model.module.get_output_embeddings()
    with torch.no_grad():
        for label, direction in zip(labels, directions, strict=True):
            head.weight[label] = 20 * direction


def leading_to(model: Model, block: int, shift: torch.Tensor) -> torch.Tensor:
    """The state [d] before the head that a shift leads to, the mean over a few scenarios."""
    seen: list[torch.Tensor] = []
    head: Any = model.module.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, args: seen.append(args[0][0, -1]))
    try:
        with torch.inference_mode(), Transplant(model, {block: shift}):
            for text in LABELS.values():
                model.module(**model.tokenizer(TEMPLATE.format(text=text), return_tensors="pt"))
    finally:
        handle.remove()
    return torch.stack(seen).mean(0)


@pytest.fixture(scope="module")
def planted(contrans: Runner, done: Done, spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = Path(shutil.copytree(spec_path.parent, tmp_path_factory.mktemp("planted") / "tiny"))
    model = load_model(folder / "target", device="cpu")
    assert not model.module.config.tie_word_embeddings
    refs = [v["ref"] for v in done.found["versions"] if v["kind"] == "transplant"]
    block = done.found["choice"]["chosen"]["target_block"]
    states = []
    with Registry.open(done.home / "registry.db") as registry:
        for ref in refs:
            files = {n: registry.read(ref, n) for n in ("concept_vector.safetensors", "concept_vector.json")}
            vector = ConceptVector.from_files(files)
            direction = vector.direction(block)
            states.append(leading_to(model, block, DOSE * vector.residual_norm[block] * direction / direction.norm()))
    heads = [state - torch.stack(states).mean(0) for state in states]
    heads = [head / head.norm() for head in heads]
    concepts = [ref.split("/")[0] for ref in refs]
    labels = [model.tokenizer(f" {concept}", add_special_tokens=False)["input_ids"][0] for concept in concepts]
    assert len(set(labels)) == len(LABELS)
    name_labels(model, labels, heads)
    model.module.save_pretrained(folder / "target")

    spec = yaml.safe_load(spec_path.read_text())
    arms = {"arms": ["unsteered", "transplanted", "own"], "doses": [DOSE], "test_per_label": None}
    (folder / "planted.yaml").write_text(yaml.safe_dump({**spec, "validate": {**spec["validate"], **arms}}))
    home, mlflow = folder.parent / "home", done.home / "mlflow.db"
    process = contrans(home, "run", folder / "planted.yaml", "--json", "-", MLFLOW_TRACKING_URI=f"sqlite:///{mlflow}")
    assert process.returncode == 0, process.stderr
    made = [v["ref"] for v in json.loads(process.stdout)["versions"] if v["kind"] == "transplant"]
    assert [ref.split("/")[0] for ref in made] == concepts
    return Planted(contrans, home, folder / "target", heads, labels, made, mlflow)


@pytest.fixture
def refreshes(contrans: Runner, tmp_path: Path) -> Iterator[tuple[SyncPrefectClient, Any]]:
    """The example automation on the server, with a deployment that it is to run."""
    pool, entrypoint = {"name": "cpu"}, "flows.serving.refreshing.refresh"
    deployment = {"name": "after-a-loss", "entrypoint": entrypoint, "work_pool": pool}
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"definitions": {"work_pools": {"cpu": {}}}, "deployments": [deployment]}))
    assert contrans(tmp_path, "deploy", "--file", file).returncode == 0
    with SyncPrefectClient(contrans.prefect_url) as client:
        found = client.read_deployment_by_name("refresh/after-a-loss")
        example, _ = yaml.safe_load(AUTOMATIONS.read_text())
        example["actions"][0]["deployment_id"] = str(found.id)
        made = client.create_automation(AutomationCore.model_validate(example))
        yield client, found.id
        client.delete_automation(made)


def flagged(registry: Registry) -> set[str]:
    return {version.ref for version in registry.list("transplant") if REGRESSED in registry.tags(version)}


def events(url: str) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}/events/filter", json={"filter": {"event": {"name": [EVENT]}}}, timeout=60)
    answer.raise_for_status()
    return answer.json()["events"]


def test_a_loss_is_flagged_told_and_acted_upon(planted: Planted, refreshes: tuple[SyncPrefectClient, Any]) -> None:
    client, deployment = refreshes
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))

    same = planted.again("2026-01-01")
    assert [one["drift"]["verdict"] for one in same] == ["unchanged"] * 3
    assert all(one["drift"]["before"] == one["drift"]["after"] > 0.9 for one in same)  # the effect is as it was planted
    assert not events(planted.contrans.prefect_url)
    with Registry.open(planted.home / "registry.db") as registry:
        history = {v.ref: v.digest for v in registry.list("validation")}
        assert flagged(registry) == set()

    planted.says(1)
    lost = planted.again("2026-01-02")
    assert [one["changed"] for one in lost] == [True] * 3
    assert [one["drift"]["verdict"] for one in lost] == ["worse"] * 3
    assert all(one["drift"]["p_holm"] < 0.05 and one["drift"]["change"] < -0.5 for one in lost)
    with Registry.open(planted.home / "registry.db") as registry:
        assert flagged(registry) == set(planted.transplants)
        now = {v.ref: v.digest for v in registry.list("validation")}
        assert history.items() < now.items()  # a validation for each transplant more, and the others as they were
        assert len(now) == len(history) + 3
        assert registry.check() == []
    told = until(lambda: len(found := events(planted.contrans.prefect_url)) == 3 and found)
    assert {event["payload"]["transplant"] for event in told} == set(planted.transplants)
    assert {event["payload"]["verdict"] for event in told} == {"worse"}
    assert until(lambda: client.read_flow_runs(deployment_filter=mine))  # the automation has one scheduled
    assert planted.tracked("contrans.verdict", "2026-01-01") == ["unchanged"] * 3
    assert planted.tracked("contrans.verdict", "2026-01-02") == ["worse"] * 3
    assert planted.tracked("contrans.revalidated", "2026-01-02") == sorted(planted.transplants)
    assert [*filter(None, planted.tracked("contrans.regressed", "2026-01-02"))] == [", ".join(planted.transplants)]

    planted.says(0)
    back = planted.again("2026-01-03")
    assert [one["drift"]["verdict"] for one in back] == ["unchanged"] * 3
    with Registry.open(planted.home / "registry.db") as registry:
        assert flagged(registry) == set()
        assert now.items() <= {v.ref: v.digest for v in registry.list("validation")}.items()
    assert len(events(planted.contrans.prefect_url)) == 3

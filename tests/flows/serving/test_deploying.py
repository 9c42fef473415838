"""The file of deployments: what is refused, and that bringing it about twice changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient

from contrans.errors import SpecError
from flows.serving.deploying import find_file, read_file
from tests.flows.conftest import Runner

ONE = {"name": "nightly", "entrypoint": "flows.serving.stages.refine", "work_pool": {"name": "cpu"}}
POOLS = {"work_pools": {"cpu": {}}}


def written(folder: Path, **values: Any) -> Path:
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"definitions": POOLS, "deployments": [ONE], **values}))
    return path


def test_the_file_that_ships() -> None:
    found = read_file(find_file())
    by_name = {(one.flow().name, one.name): one for one in found.deployments}
    assert len(by_name) == len(found.deployments)
    assert {name for name, _ in by_name} == {
        "refresh",
        "cell",
        "refine",
        "align",
        "transplant",
        "publish",
        "import-from-hub",
        "revalidate",
    }
    assert [s.cron for s in by_name["refresh", "nightly"].schedules] == ["0 2 * * *"]
    assert [s.cron.split()[-1] for s in by_name["revalidate", "weekly"].schedules] == ["0"]
    assert by_name["publish", "with-approval"].parameters == {"ask": True}
    assert found.definitions.concurrency_limits == {"gpu": 1}
    for one in found.deployments:
        flow = one.flow()
        assert isinstance(flow, Flow)
        required = set(flow.parameters.model_dump().get("required", []))
        if one.schedules:
            flow.validate_parameters(one.parameters)
            assert required <= set(one.parameters)  # nobody is there to fill in a form


def test_prefects_own_command_reads_it_too() -> None:
    from prefect.flows import load_flow_from_entrypoint

    for one in read_file(find_file()).deployments:
        assert load_flow_from_entrypoint(one.entrypoint).name == one.flow().name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"deployments": [{**ONE, "work_pool": {"name": "tpu"}}]}, "which definitions.work_pools does not have"),
        ({"deployments": [{**ONE, "schedule": []}]}, "schedule"),
        ({"deployments": [{**ONE, "entrypoint": "flows/x.py:flow"}]}, "entrypoint"),
        ({"deployments": 3}, "deployments"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_file(written(tmp_path, **values))


def test_an_entrypoint_that_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, deployments=[{**ONE, "entrypoint": "flows.serving.stages.refines"}])
    with pytest.raises(SpecError, match="which there is not"):
        read_file(path).deployments[0].flow()
    with pytest.raises(SpecError, match="--file"):
        find_file(tmp_path / "nowhere.yaml")


def test_deploying_twice_is_deploying_once(contrans: Runner, tmp_path: Path) -> None:
    client = SyncPrefectClient(contrans.prefect_url)
    schedules = [{"cron": "0 2 * * *", "slug": "nightly"}]
    counts = []
    for limit in (1, 2):
        definitions = {"work_pools": {"cpu": {"concurrency_limit": limit}}, "concurrency_limits": {"gpu": limit}}
        path = written(tmp_path, definitions=definitions, deployments=[{**ONE, "schedules": schedules}])
        process = contrans(tmp_path, "deploy", "--file", path, "--json")
        assert process.returncode == 0, process.stderr
        assert json.loads(process.stdout) == ["refine/nightly"]
        with client as connected:
            found = connected.read_deployment_by_name("refine/nightly")
            assert [schedule.schedule.cron for schedule in found.schedules] == ["0 2 * * *"]  # pyright: ignore
            assert connected.read_work_pool("cpu").concurrency_limit == limit
            assert connected.read_global_concurrency_limit_by_name("gpu").limit == limit
            counts.append((len(connected.read_deployments()), len(connected.read_automations_by_name(AUTOMATION))))
        client = SyncPrefectClient(contrans.prefect_url)
    assert counts[0] == counts[1]
    assert counts[0][1] == 1


AUTOMATION = "contrans: move runs that fell silent"


def test_without_a_server_nothing_is_deployed(contrans: Runner, tmp_path: Path) -> None:
    nowhere = contrans(tmp_path, "deploy", PREFECT_API_URL="")
    assert nowhere.returncode == 2
    assert "set PREFECT_API_URL" in nowhere.stderr
    away = contrans(tmp_path, "deploy", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert away.returncode == 2
    assert "check PREFECT_API_URL" in away.stderr
    assert "Traceback" not in away.stderr

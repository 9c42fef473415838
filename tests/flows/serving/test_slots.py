"""A GPU is held by one deployed run at a time, and a server without the limit is an error, not a warning."""

import json
from pathlib import Path

from tests.flows.conftest import Runner

HOLDING = """
import json
from prefect import get_client
from contrans.errors import ContransError
from flows.serving import slots
slots.LIMIT = "gpu-of-a-test"
said = {}
try:
    with slots.gpu_slot("cuda", needed=True):
        pass
except ContransError as error:
    said["without"] = str(error)
with get_client(sync_client=True) as client:
    client.upsert_global_concurrency_limit_by_name(slots.LIMIT, 1)
    def held():
        return client.read_global_concurrency_limit_by_name(slots.LIMIT).active_slots
    with slots.gpu_slot("cuda:1", needed=True):
        said["within"] = held()
    said["after"] = held()
    try:
        with slots.gpu_slot("cuda", needed=True):
            raise ValueError("the run fails")
    except ValueError:
        said["after a failure"] = held()
    for device, needed in (("cpu", True), ("cuda", None)):  # no GPU, or not started by a worker
        with slots.gpu_slot(device, needed=needed):
            said[device] = held()
print(json.dumps(said))
raise SystemExit
"""


def test_the_slot_of_a_gpu(contrans: Runner, tmp_path: Path) -> None:
    process = contrans(tmp_path, code=HOLDING)
    assert process.returncode == 0, process.stderr
    said = json.loads(process.stdout)
    assert said.pop("without").endswith("make it with `contrans deploy`.")
    assert said == {"within": 1, "after": 0, "after a failure": 0, "cpu": 0, "cuda": 0}

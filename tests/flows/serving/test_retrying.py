"""What is tried again and what is not, and with how large batches."""

import json
import socket
from pathlib import Path

import httpx
import httpx2
import pytest
import torch

from contrans.errors import ContransError, ModelError, SpecError
from flows.retrying import ATTEMPTS, Batches, helps, of_the_network, out_of_memory
from flows.spec import PipelineSpec
from registry.hub import HubError
from tests.flows.conftest import Runner

REQUEST = httpx.Request("GET", "https://example.org")


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        httpx.ConnectError("no route", request=REQUEST),
        httpx2.ReadTimeout("silent"),
        httpx.HTTPStatusError("busy", request=REQUEST, response=httpx.Response(503, request=REQUEST)),
        HubError("The Hub answered with error 502; try again later.", passing=True),
        caused(ModelError("It cannot be fetched."), ConnectionRefusedError()),
        caused(ContransError("a"), caused(OSError("b"), TimeoutError())),
    ],
    ids=lambda error: type(error).__name__,
)
def test_network_is_tried_again(error: Exception) -> None:
    assert of_the_network(error)
    assert helps(error)


@pytest.mark.parametrize(
    "error",
    [
        SpecError("There is no such key."),
        ModelError("It names nothing."),
        ValueError("bad"),
        FileNotFoundError("spec.yaml"),
        PermissionError("registry.db"),
        KeyError("arm"),
        httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(404, request=REQUEST)),
        HubError("Your token may not do this."),
        httpx.InvalidURL("bad"),
        caused(ModelError("It is damaged."), ValueError("bad header")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_bad_input_is_not(error: Exception) -> None:
    assert not helps(error)


def test_memory_is_known_below_other_errors() -> None:
    error = caused(ContransError("The step failed."), torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(error)
    assert helps(error)
    assert not out_of_memory(MemoryError())


def test_batches_are_halved_for_each_lack_of_memory() -> None:
    spec = PipelineSpec.model_validate({"source": "a/b", "target": "c/d", "compute": {"batch_tokens": 100}})
    batches, seen = Batches(), []
    for error in (torch.OutOfMemoryError(), ValueError(), torch.OutOfMemoryError(), torch.OutOfMemoryError()):
        seen.append(batches.fitted(spec).compute.batch_tokens)
        with pytest.raises(type(error)), batches.smaller_next_time():
            raise error
    assert seen == [100, 50, 50, 25]
    assert batches.fitted(spec).compute.batch_tokens == 16  # the smallest that a spec allows
    assert Batches().fitted(spec) is spec
    assert spec.compute.batch_tokens == 100


FAULT = """
import json, os, pathlib
import flows.steps, flows.work as work, flows.retrying, torch
flows.retrying.RETRIES["retry_delay_seconds"] = 0.01
from contrans.errors import FitError
seen = pathlib.Path(os.environ["SEEN"])
real = work.refine_concepts
def refine_concepts(study, side):
    run = real(study, side)
    def faulty(context):
        tries = json.loads(seen.read_text()) if seen.exists() else []
        seen.write_text(json.dumps([*tries, [context.spec.compute.batch_tokens, study.spec.compute.batch_tokens]]))
        if len(tries) < 2:
            raise {error}
        return run(context)
    return faulty
work.refine_concepts = refine_concepts
"""


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        ('torch.OutOfMemoryError("CUDA out of memory")', [[64, 64], [32, 32], [16, 16]]),
        ('ConnectionResetError("gone")', [[64, 64]] * 3),
        ('FitError("The rows are too few; give more.")', [[64, 64]]),
    ],
    ids=["memory", "network", "bad input"],
)
def test_a_flow_tries_again_only_what_helps(
    contrans: Runner, spec_path: Path, tmp_path: Path, error: str, tries: list[list[int]]
) -> None:
    seen = tmp_path / "seen.json"
    arguments = ("refine", spec_path, "--set", "compute.batch_tokens=64", "--quiet", "--json")
    process = contrans(tmp_path, *arguments, code=FAULT.replace("{error}", error), SEEN=str(seen))
    assert json.loads(seen.read_text()) == tries
    assert len(tries) <= ATTEMPTS
    if len(tries) == 1:
        assert (process.returncode, process.stdout) == (2, "")
        assert process.stderr.strip() == "Error: The rows are too few; give more."
    else:
        assert process.returncode == 0, process.stderr
        assert "refine · source" in json.loads(process.stdout)["steps"]["computed"]

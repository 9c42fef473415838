"""repeng and steering-vectors themselves: they use our files as the usage lines say, and we read theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contrans.concepts import contrast_set
from contrans.exchange import FORMATS, Shift, read_foreign, write_content
from contrans.models import Model
from contrans.states import capture
from contrans.transplants import Transplant
from tests.interop.other_python import run_there
from tests.tiny import tiny

pytestmark = pytest.mark.interop
IDS = [[1, 20, 35, 70, 111, 9], [1, 54, 88, 23, 100, 4]]


USES = [(name, architecture) for name in ("repeng", "steering-vectors") for architecture in ("llama", "gpt2")]


def saved(model: Model, folder: Path) -> None:
    for part in (model.module, model.tokenizer):
        saving: Any = part
        saving.save_pretrained(folder / "model")


def shift_of(model: Model) -> Shift:
    made = torch.Generator().manual_seed(4)
    blocks = {block: torch.randn(model.hidden_size, generator=made) for block in (0, 2)}
    return Shift("test", model.record, blocks, 1.0)


def check_logits(model: Model, folder: Path) -> None:
    """The logits that another tool left in a folder are ours, without and with the transplant of `shift_of`."""
    with torch.inference_mode():
        plain = model.module(torch.tensor(IDS)).logits.numpy()
        with Transplant(model, shift_of(model).blocks, positions="with_bos"):
            ours = model.module(torch.tensor(IDS)).logits.numpy()
    np.testing.assert_allclose(np.load(folder / "plain.npy"), plain, atol=1e-4)
    np.testing.assert_allclose(np.load(folder / "steered.npy"), ours, atol=1e-4)
    assert np.abs(ours - plain).max() > 0.1


def pairs() -> tuple[list[str], list[str]]:
    part = contrast_set("emotion/anger").split("refine")
    return [e.prompt for e in part.positives[:16]], [e.prompt for e in part.negatives[:16]]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The folder where the other Python did all that the tests look at."""
    root, jobs = tmp_path_factory.mktemp("there"), []
    for name, architecture in USES:
        folder, model = root / f"{name}-{architecture}", tiny(architecture)
        saved(model, folder)
        shift, form = shift_of(model), FORMATS[name]
        path = write_content(folder / f"vector{form.suffix}", form.write(shift))
        jobs.append(("logits", folder, {"usage": form.usage(shift, str(path)), "ids": IDS, "kind": name}))
    write_content(root / "ours.gguf", FORMATS["repeng"].write(shift_of(tiny("llama"))))
    jobs.append(("repeng_copy", root, {"source": "ours.gguf"}))
    saved(tiny("llama"), root)
    positive, negative = pairs()
    jobs.append(("extract", root, {"positive": positive, "negative": negative, "layers": [1, 2]}))
    run_there(jobs, root)
    return root


@pytest.mark.parametrize(("name", "architecture"), USES)
def test_the_usage_lines_give_our_logits(name, architecture, done):
    check_logits(tiny(architecture), done / f"{name}-{architecture}")


def test_repeng_reads_and_writes_it_again(done):
    found, _ = read_foreign(done / "copy.gguf", "repeng")
    due = shift_of(tiny("llama")).blocks
    assert found.hint == "llama"
    assert found.directions.keys() == due.keys()
    assert all(torch.equal(found.directions[b], due[b]) for b in due)


def test_what_they_extract_is_what_we_read(done):
    model, (positive, negative) = tiny("llama"), pairs()
    mean, _ = read_foreign(done / "mean.safetensors", "steering-vectors")
    pca, _ = read_foreign(done / "pca.gguf", "repeng")
    centred, _ = read_foreign(done / "pca_center.gguf", "repeng")
    assert sorted(mean.directions) == sorted(pca.directions) == sorted(centred.directions) == [1, 2]
    for block in (1, 2):
        rows = (capture(model, positive)[block] - capture(model, negative)[block]).double()
        torch.testing.assert_close(mean.directions[block].double(), rows.mean(0), rtol=1e-3, atol=1e-4)
        # repeng: the first principal component of the differences, less their mean by default; the pairs give its sign
        for found, of in ((pca, rows - rows.mean(0)), (centred, rows)):
            first = torch.linalg.svd(of, full_matrices=False).Vh[0]
            assert abs(float(torch.cosine_similarity(found.directions[block].double(), first, dim=0))) > 0.99

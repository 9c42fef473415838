"""EasySteer and EasyEdit2 themselves, on PyPI in name only: by their sources at the commits in the Makefile."""

from pathlib import Path

import pytest
import torch

from contrans.exchange import FORMATS, read_foreign, write_content
from tests.interop.other_python import run_there, sources
from tests.interop.test_packages import IDS, check_logits, saved, shift_of
from tests.tiny import tiny

pytestmark = pytest.mark.interop


def test_easysteer_reads_and_writes_it_again(tmp_path):
    due = shift_of(tiny("llama"))
    write_content(tmp_path / "ours.gguf", FORMATS["easysteer"].write(due))
    run_there([("easysteer_copy", tmp_path, {"sources": str(sources("EasySteer"))})], tmp_path)
    found, _ = read_foreign(tmp_path / "copy.gguf", "easysteer")
    assert (tmp_path / "method.txt").read_text() == found.facts["method"] == "contrans"
    assert found.hint == "llama"
    assert found.directions.keys() == due.blocks.keys()
    assert all(torch.equal(found.directions[b], due.blocks[b]) for b in due.blocks)


def test_easyedit2_steers_as_we_do(tmp_path):
    """Its CAA applier, given our folder: its settings and its vectors, and the model that it loads and wraps."""
    folder, jobs = sources("EasyEdit"), []
    made: dict[str, Path] = {}
    for architecture in ("llama", "gpt2"):  # by which word in the path it knows how to wrap a model
        made[architecture] = there = tmp_path / architecture
        saved(tiny(architecture), there)
        write_content(there / "vector", FORMATS["easyedit2"].write(shift_of(tiny(architecture))))
        jobs.append(("easyedit2_logits", there, {"sources": str(folder), "ids": IDS}))
    run_there(jobs, tmp_path)
    for architecture, there in made.items():
        check_logits(tiny(architecture), there)

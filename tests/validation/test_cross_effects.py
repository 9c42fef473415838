"""The cross-effect matrix of planted directions, against full forward passes and a bootstrap written out."""

import io
import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from contrans.errors import FitError, SpecError
from contrans.models import Model
from contrans.transplants import Transplant, combine
from contrans.validation.cross_effects import cross_effects
from contrans.validation.engine import ScoringEngine
from contrans.validation.protocol import Hits
from tests.tiny import tiny

BLOCK, NORM, DOSE = 3, 10.0, 0.5
LABELS = {"joy": 40, "fear": 60, "anger": 80}
TEXTS = [
    "the cat",
    "and the other",
    "cat sat there",
    "with their mother",
    "she thinks",
    "this is",
    "the weather",
    "one",
]


class LabelProtocol:
    """Log-probability of a label's token after each text; texts of the label itself do not count."""

    name = "labels"
    effect = "log_probability"

    def __init__(self, model: Model) -> None:
        self.concepts = list(LABELS)
        ids = [model.tokenizer(t)["input_ids"] for t in TEXTS]
        self.truth = np.arange(len(TEXTS)) % (len(LABELS) + 1)
        self.n_tokens = sum(map(len, ids))
        self._engine = ScoringEngine(model, BLOCK, ids)

    @property
    def n_items(self) -> int:
        return len(TEXTS)

    def score(self, shift: torch.Tensor | None) -> np.ndarray:
        out = np.empty((len(TEXTS), len(LABELS)))
        for indices, logits in self._engine.logits(shift):
            out[indices] = logits.log_softmax(-1)[:, list(LABELS.values())].double().numpy()
        return out

    def hits(self, scores: np.ndarray, concept: str) -> Hits:
        at = self.concepts.index(concept)
        return {self.effect: (scores[:, at], self.truth != at), "unused": (scores[:, at] * 0, self.truth == at)}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama")


@pytest.fixture(scope="module")
def directions(model) -> dict[str, torch.Tensor]:
    """What the head reads each label by, less what is common to all: the label's own direction."""
    weight = model.module.get_output_embeddings().weight.detach()
    return {name: weight[token] - weight.mean(0) for name, token in LABELS.items()}


def by_full_passes(model, shift) -> np.ndarray:
    """Log-probabilities [texts, labels] text by text, without the engine."""
    rows = []
    for text in TEXTS:
        with torch.inference_mode(), Transplant(model, {BLOCK: shift}):
            logits = model.module(input_ids=torch.tensor([model.tokenizer(text)["input_ids"]])).logits[0, -1]
        rows.append(logits.log_softmax(-1)[list(LABELS.values())].double().numpy())
    return np.array(rows)


def test_matrix_and_intervals(model, directions):
    protocol = LabelProtocol(model)
    seen = []
    found = cross_effects(
        protocol, directions, DOSE, residual_norm=NORM, pairs=True, draws=300, seed=5, progress=seen.append
    )
    assert found.put_in == ("joy", "fear", "anger", "joy + fear", "joy + anger", "fear + anger")
    assert found.measured == tuple(LABELS)
    assert seen == [protocol.n_tokens] * 7
    base = by_full_passes(model, torch.zeros(model.hidden_size))
    weights = np.random.default_rng(5).multinomial(len(TEXTS), np.full(len(TEXTS), 1 / len(TEXTS)), size=300)
    for i, name in enumerate(found.put_in):
        parts = [directions[n] for n in name.split(" + ")]
        shift = combine(torch.stack(parts), [DOSE] * len(parts), "sum", NORM)
        change = by_full_passes(model, shift) - base
        for j in range(len(LABELS)):
            counts = protocol.truth != j
            effect = found.effects[i * len(LABELS) + j]
            assert (effect.concept_in, effect.concept_measured) == (name, found.measured[j])
            assert effect.n == counts.sum() == 6
            assert effect.value == pytest.approx(change[counts, j].mean(), abs=1e-3)
            drawn = [(w * counts) @ change[:, j] / (w * counts).sum() for w in weights]
            assert (effect.low, effect.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=2e-3)
    matrix = found.matrix()
    # each label's own direction moves it most, and is felt beside another one
    assert (matrix[:3].argmax(1) == [0, 1, 2]).all()
    assert (np.diag(matrix[:3]) > 0).all()
    assert matrix[3, 0] > matrix[1, 0]


def test_combination_and_a_dose_each(model, directions):
    protocol = LabelProtocol(model)
    doses = {"joy": 0.4, "fear": -0.2}
    two = {name: directions[name] for name in doses}
    found = cross_effects(protocol, two, doses, residual_norm=NORM, pairs=True, combine="solve", draws=50)
    shift = combine(torch.stack(list(two.values())), [0.4, -0.2], "solve", NORM)
    change = by_full_passes(model, shift) - by_full_passes(model, torch.zeros(model.hidden_size))
    expected = [change[protocol.truth != j, j].mean() for j in range(3)]
    np.testing.assert_allclose(found.matrix()[2], expected, atol=1e-3)
    assert (found.combination, found.doses) == ("solve", doses)
    assert found.matrix().shape == (3, 3)
    # without pairs nothing is combined
    assert cross_effects(protocol, two, doses, residual_norm=NORM, draws=50).combination is None


def test_renders_as_rows_json_table_and_figure(model, directions):
    found = cross_effects(LabelProtocol(model), directions, DOSE, residual_norm=NORM, draws=50)
    assert found.rows()[1].keys() == {"concept_in", "concept_measured", "value", "low", "high", "n"}
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (again["metric"], len(again["rows"])) == ("log_probability", 9)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(found.table())
    text = console.export_text()
    assert "labels: change of log_probability against unsteered" in text
    assert f"{found.matrix()[0, 0]:.2f} [{found.matrix('low')[0, 0]:.2f}, " in text
    assert imread(io.BytesIO(found.figure())).ndim == 3


def test_bad_input(model, directions):
    protocol = LabelProtocol(model)
    with pytest.raises(SpecError, match="at least one direction"):
        cross_effects(protocol, {}, DOSE, residual_norm=NORM)
    with pytest.raises(SpecError, match="no dose for 'fear'"):
        cross_effects(protocol, directions, {"joy": 0.2}, residual_norm=NORM)
    with pytest.raises(SpecError, match="Combination 'mean' is not known"):
        cross_effects(protocol, directions, DOSE, residual_norm=NORM, combine="mean")
    twins = {"joy": directions["joy"], "glee": directions["joy"]}
    with pytest.raises(FitError, match="nearly dependent"):
        cross_effects(protocol, twins, DOSE, residual_norm=NORM, pairs=True, combine="loewdin")
    protocol.truth = np.zeros(len(TEXTS))
    with pytest.raises(FitError, match="No item counts for 'joy'"):
        cross_effects(protocol, directions, DOSE, residual_norm=NORM)

"""Many shifts at once score and cost what they do one by one, and none goes through the model twice."""

import numpy as np
import pytest
import torch

from contrans.concepts.contrast import family_of
from contrans.validation.arms import Directions
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.fluency import FluencyMeter
from contrans.validation.scorer import Scorer
from tests.texts import write_family
from tests.tiny import tiny

BLOCK = 2
DRAWS = (-2, -1)


@pytest.fixture(scope="module")
def model():
    return tiny("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def protocol(model, tmp_path_factory):
    family = family_of(write_family(tmp_path_factory.mktemp("mood"))[0])
    return EmotionProtocol(model, family, block=BLOCK, split="dev", per_label=2)


class OneByOne:
    """The protocol without its `score_many`, like one that generates."""

    def __init__(self, protocol: EmotionProtocol):
        self._protocol, self.n_tokens = protocol, protocol.n_tokens
        self.name, self.effect, self.concepts = protocol.name, protocol.effect, protocol.concepts

    @property
    def n_items(self) -> int:
        return self._protocol.n_items

    def score(self, shift: torch.Tensor | None):
        return self._protocol.score(shift)

    def hits(self, scores, concept: str):
        return self._protocol.hits(scores, concept)


def test_scores_and_costs_equal_those_of_single_shifts(model, protocol):
    meter = FluencyMeter(model, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    shifts = list(torch.randn(3, model.hidden_size, generator=torch.Generator().manual_seed(2)))
    for shift, scores in zip(shifts, protocol.score_many(shifts), strict=True):
        one = protocol.score(shift)
        np.testing.assert_allclose(scores.label_logprob, one.label_logprob, rtol=1e-4)
        np.testing.assert_array_equal(scores.greedy_label, one.greedy_label)
    assert meter.kl_many(shifts) == pytest.approx([meter.kl(s) for s in shifts], rel=1e-4)
    assert meter.kl_many(shifts)[0] == pytest.approx(meter.measure(shifts[0]).kl, rel=1e-4)


def test_each_shift_is_scored_once(model, protocol):
    generator = torch.Generator().manual_seed(3)
    of = {c: torch.randn(model.hidden_size, generator=generator) for c in protocol.concepts}
    directions = Directions({"transplanted": of}, residual_norm=5.0)
    ticks, single = [], []
    expected, found = (
        [s.hits("transplanted", 0.5), s.hits("wrong_concept", 0.5), *s.hits_of_draws("random", 0.5, DRAWS)]
        for s in (Scorer(protocol, directions, ticks.append), Scorer(OneByOne(protocol), directions, single.append))
    )
    # a wrong concept's shifts are the transplanted ones
    n = len(of) + len(DRAWS)
    assert ticks == single == [protocol.n_tokens] * n
    for a, b in zip(expected, found, strict=True):
        for concept, metrics in a.items():
            for metric, (hit, counts) in metrics.items():
                np.testing.assert_array_equal(hit, b[concept][metric][0])
                np.testing.assert_array_equal(counts, b[concept][metric][1])

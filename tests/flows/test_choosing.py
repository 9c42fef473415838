"""The choice among candidates: what maps from one source block share is computed once, and changes none of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contrans.maps import splits
from contrans.maps.affine import MapSet
from contrans.states.moments import Moments
from flows import choosing, fitting
from flows.spec import load_spec
from tests.flows.stepping import run_steps

SETTINGS = [
    "blocks.source=[1, 2]",
    "blocks.target=[1, 2]",
    "blocks.tries=4",
    "map.estimator=auto",
    "map.lambda_select=auto",
    "corpus.mixes=[[wrapped, truncated], [wrapped]]",
    "validate.kl_budget=0.5",
]


@pytest.mark.parametrize("room", [0, 2**30])
def test_candidates_share_what_hangs_on_the_source_alone(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(choosing, "_KEPT", room)
    decomposed: list[int] = []

    def counted(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
        decomposed.extend([1] * (len(moments.sxx) == 32))  # the source's width; the target's is another
        return _spectrum(moments)

    monkeypatch.setattr(splits, "spectrum", counted)
    made: list[tuple[Any, MapSet, MapSet, int, int]] = []

    def both(study: Any, context: Any, choice: Any, name: str, *, spectra: Any = None) -> MapSet:
        before = len(decomposed)
        shared = _fit_arm(study, context, choice, name, spectra=spectra)
        between = len(decomposed)
        alone = _fit_arm(study, context, choice, name)
        made.append((choice, shared, alone, between - before, len(decomposed) - between))
        return shared

    monkeypatch.setattr(fitting, "fit_arm", both)
    run_steps(load_spec(spec_path, SETTINGS), tmp_path, until="choose")
    assert {choice.estimator for choice, *_ in made} == {"whitened", "ridge", "procrustes"}
    assert len({choice.mix for choice, *_ in made}) == len({choice.source_block for choice, *_ in made}) == 2
    for choice, shared, alone, *_ in made:
        for field in ("weight", "bias", "retained", "source_mean", "target_mean"):
            a, b = (getattr(found[choice.pair], field) for found in (shared, alone))
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))
        assert shared[choice.pair].info["lambda"] == pytest.approx(alone[choice.pair].info["lambda"], rel=1e-6)
    assert all(shared <= alone for *_, shared, alone in made)
    # one of the rows fitted on and one of all rows, for each source block and mix
    least = 2 * len({(choice.source_block, choice.mix) for choice, *_ in made})
    assert least <= sum(shared for *_, shared, _ in made) < sum(alone for *_, alone in made)
    if room:
        assert sum(shared for *_, shared, _ in made) == least


def test_candidates_that_change_equally_many_answers_are_told_apart_by_how_far_they_move_them() -> None:
    candidates = [choosing.Choice(block, 1, ("wrapped",), "ridge", "r2") for block in range(5)]
    measured = [(0.0, 0.02), (None, None), (0.0, 0.05), (0.0, 0.05), (0.0, 0.01)]
    tried: list[dict[str, Any]] = [
        {"effect": effect, "graded": graded, "random_reach": None, "why": "too few"} for effect, graded in measured
    ]
    assert choosing._best(tried, candidates) is candidates[2]
    # an answer more counts for more
    tried[4] |= {"effect": 0.1}
    assert choosing._best(tried, candidates) is candidates[4]


def test_a_block_where_any_direction_does_as_much_is_not_chosen() -> None:
    swayed, sound = (choosing.Choice(1, block, ("wrapped",), "ridge", "r2") for block in (1, 2))
    tried = [
        {"effect": 0.95, "graded": 0.9, "random_reach": 0.8, "why": None},
        {"effect": 0.85, "graded": 0.7, "random_reach": 0.6, "why": None},
    ]
    assert choosing._best(tried, [swayed, sound]) is sound


@pytest.mark.parametrize("n", [0, 3])
def test_a_map_is_held_against_random_directions_of_its_block(spec_path: Path, tmp_path: Path, n: int) -> None:
    settings = [*SETTINGS, f"blocks.control_draws={n}"]
    run = run_steps(load_spec(spec_path, settings), tmp_path, until="choose")
    found = json.loads(run.context.read("choose")["choice.json"])
    able = [t for t in found["tried"] if t["why"] is None]
    reach = {(t["target_block"], t["random_reach"]) for t in able}
    assert [block for block, _ in sorted(reach)] == [1, 2]
    assert all((value is None) == (n == 0) for _, value in reach)
    best = max(able, key=lambda t: (t["effect"] - (t["random_reach"] or 0.0), t["graded"]))
    assert found["chosen"] == {key: best[key] for key in found["chosen"]}
    # nothing is drawn where all maps share a block
    alone = run_steps(load_spec(spec_path, [*settings, "blocks.target=[1]"]), tmp_path, until="choose")
    tried = json.loads(alone.context.read("choose")["choice.json"])["tried"]
    assert len(tried) > 1
    assert {t["random_reach"] for t in tried} == {None}


_fit_arm, _spectrum = fitting.fit_arm, splits.spectrum

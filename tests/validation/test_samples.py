"""Samples side by side: every arm's own text, with its flaw, however it is shown."""

import io
import json

import pytest
import torch
from rich.console import Console

from contrans.errors import SpecError, TextError
from contrans.transplants import Transplant
from contrans.validation.generation import Sampling
from contrans.validation.samples import Sample, Samples, by_concept, side_by_side
from tests.tiny import tiny

PROMPTS = ["the cat", "they think of\n[one] | stone"]
BLOCK = 3


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def towards(model, token: str) -> dict[int, torch.Tensor]:
    row = model.module.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids(token)]
    return {BLOCK: row / row.norm() * 1e4}


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_each_arm_writes_its_own(model):
    shift = {1: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(2)) * 3}
    found = side_by_side(
        model,
        PROMPTS,
        {"unsteered": None, "own": shift, "empty": towards(model, "</s>"), "loop": towards(model, "b")},
        max_new_tokens=7,
        batch_size=1,
    )
    assert found.arms == ["unsteered", "own", "empty", "loop"]
    by_arm = {arm: [s for s in found.samples if s.arm == arm] for arm in found.arms}
    plain = [model.complete(p, max_new_tokens=7)[0] for p in PROMPTS]
    with Transplant(model, shift):
        steered = [model.complete(p, max_new_tokens=7)[0] for p in PROMPTS]
    assert [s.text for s in by_arm["unsteered"]] == plain
    assert [s.text for s in by_arm["own"]] == steered
    assert [(s.text, s.flaw, s.n_tokens) for s in by_arm["empty"]] == [("", "empty", 0)] * 2
    assert [(s.text, s.flaw, s.n_tokens) for s in by_arm["loop"]] == [("b" * 7, "degenerate", 7)] * 2
    assert [s.prompt for s in found.samples[::4]] == PROMPTS
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert found.to_json()["settings"]["max_new_tokens"] == 7
    assert len(found.rows()) == 8


def test_sampled_arms_share_their_draws(model):
    nothing = {BLOCK: torch.zeros(model.hidden_size)}
    found = side_by_side(model, PROMPTS, {"a": None, "b": nothing}, max_new_tokens=7, sampling=Sampling())
    assert found.samples[0].text == found.samples[1].text
    assert found.settings["sampling"] == {"temperature": 0.8, "top_p": 0.95, "top_k": 0}


def test_renderings_show_text_as_it_is():
    texts = ["[bold]x[/bold] | <s>\ny_z*", "", "loop loop"]
    arms = ["shuffled_map", "own", "paper"]
    flaws = ["", "empty", "degenerate"]
    samples = [Sample("a [red]prompt", a, t, f, len(t)) for a, t, f in zip(arms, texts, flaws, strict=True)]
    result = Samples(samples, {})
    for part in ("a [red]prompt", "[bold]x[/bold] | <s>", "y_z*", "(empty)", "(degenerate) loop loop", "shuffled_map"):
        assert part in shown(result.table())
    lines = result.markdown().splitlines()
    assert lines[0] == "| prompt | shuffled\\_map | own | paper |"
    assert lines[1] == "| --- | --- | --- | --- |"
    assert lines[2] == "| a [red]prompt | [bold]x[/bold] \\| &lt;s><br>y\\_z\\* | (empty) | (degenerate) loop loop |"
    assert len(lines) == 3


def test_concepts_stand_beside_one_unsteered_text(model):
    draw = torch.Generator().manual_seed(2)
    shifts = {
        c: {arm: {1: torch.randn(model.hidden_size, generator=draw) * 3} for arm in ("transplanted", "own")}
        for c in ("calm", "haste")
    }
    asked = []
    found = by_concept(model, PROMPTS, shifts, max_new_tokens=5, progress=asked.append)
    assert sum(asked) == 5 * len(PROMPTS)
    for concept, arms in shifts.items():
        alone = side_by_side(model, PROMPTS, {"unsteered": None, **arms}, max_new_tokens=5).samples
        own = [s for s in found.samples if s.concept == concept]
        assert [(s.prompt, s.arm, s.text) for s in own] == [(s.prompt, s.arm, s.text) for s in alone]
    assert Samples.from_rows(json.loads(json.dumps(found.rows()))).samples == found.samples
    lines = found.markdown().splitlines()
    assert lines[0] == "| concept | prompt | unsteered | transplanted | own |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| calm", "| calm", "| haste", "| haste"]


def test_the_same_prompt_twice_has_two_lines():
    twice = [Sample("p", arm, f"{arm} {i}", "", 1) for i in range(2) for arm in ("a", "b")]
    assert Samples(twice).markdown().splitlines()[2:] == ["| p | a 0 | b 0 |", "| p | a 1 | b 1 |"]


def test_bad_input(model):
    with pytest.raises(SpecError, match="no concepts to set side by side"):
        by_concept(model, PROMPTS, {})
    with pytest.raises(SpecError, match="no arms to set side by side"):
        side_by_side(model, PROMPTS, {})
    with pytest.raises(TextError, match="no prompts to continue"):
        side_by_side(model, [], {"unsteered": None})
    with pytest.raises(TextError, match="Text 1 of 2 is empty"):
        side_by_side(model, ["the", " "], {"unsteered": None})

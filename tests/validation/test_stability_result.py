"""Verdicts as a table, and renderings."""

import io
import json

import pytest
from rich.console import Console

from contrans.models import Model
from contrans.validation.stability_result import StabilityResult, WindowRow, verdict
from tests.tiny import tiny
from tests.validation.long_texts import PROMPTS, stability, towards


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama", max_position_embeddings=1024)


def rows_of(arm, effects, *, degenerate=None, width=0.1, metric="effect", reached=None):
    degenerate = degenerate or [0.0] * len(effects)
    out = []
    for k, effect in enumerate(effects):
        place = (k, 64 * k, 64 * (k + 1))
        out.append(WindowRow(*place, "written", arm, 1.0, 1.0, 1.0, 9))
        if reached is None or k < reached:
            out.append(WindowRow(*place, metric, arm, effect, effect - width, effect + width, 9))
            out.append(WindowRow(*place, "degenerate", arm, degenerate[k], None, None, 9))
    return out


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (rows_of("own", [0.4, 0.3, 0.35]), "own: the effect holds over 192 tokens (0.40 at first, 0.35 at last)."),
        (rows_of("own", [0.4, 0.1, 0.35]), "own: the effect holds over 192 tokens (0.40 at first, 0.35 at last)."),
        (
            rows_of("own", [0.4, 0.3, 0.1]),
            "own: the effect fades after window 2, token 128 (0.40 at first, 0.10 at last).",
        ),
        (
            rows_of("own", [0.4, 0.1, 0.1]),
            "own: the effect fades after window 1, token 64 (0.40 at first, 0.10 at last).",
        ),
        (
            rows_of("own", [0.4, 0.3, -0.4]),
            "own: the effect fades after window 2, token 128 (0.40 at first, -0.40 at last).",
        ),
        (rows_of("own", [-0.4, -0.3]), "own: the effect holds over 128 tokens (-0.40 at first, -0.30 at last)."),
        (
            rows_of("own", [0.4, 0.3, 0.3], reached=2),
            "own: the effect holds over 128 tokens, where the last text ends (0.40 at first, 0.30 at last).",
        ),
        (rows_of("own", [0.05, 0.5]), "own: there is no clear effect in the first window."),
        (rows_of("own", [0.4, 0.4], degenerate=[0.2, 0.6]), "own: the text degenerates after token 64."),
        (
            rows_of("own", [0.4, 0.4], degenerate=[0.2, 0.6]) + rows_of("unsteered", [0, 0], degenerate=[0.0, 0.9]),
            "own: the text degenerates after token 64; so does the unsteered model's.",
        ),
        (
            rows_of("own", [0.4, 0.4]) + rows_of("own", [0.9, 0.1], metric="score_gain"),
            "own: the effect fades after window 1, token 64 (0.90 at first, 0.10 at last).",
        ),
        (rows_of("own", [0.4], reached=0), "own: the texts are empty, so nothing can be said about the effect."),
    ],
)
def test_verdicts(rows, expected):
    assert verdict(rows, "own", "token") == expected


def test_verdicts_by_turn():
    def turns(effects, degenerate=None):
        found = rows_of("own", effects, degenerate=degenerate)
        return [WindowRow(r.window, r.window, r.window + 1, *list(vars(r).values())[3:]) for r in found]

    assert "holds over 3 turns" in verdict(turns([0.4, 0.3, 0.3]), "own", "turn")
    assert "fades after turn 2" in verdict(turns([0.4, 0.3, 0.1]), "own", "turn")
    assert "degenerates in turn 3" in verdict(turns([0.4] * 3, [0, 0, 1.0]), "own", "turn")


def result(rows, verdicts=None, texts=None):
    return StabilityResult(rows, verdicts or {}, "token", texts or {}, {"seed": 0})


def test_several_concepts_have_one_unsteered_model_and_a_line_each():
    unsteered = rows_of("unsteered", [0.0, 0.0])
    parts = {
        "calm": result(
            unsteered + rows_of("own", [0.4, 0.3]), {"own": "own: holds."}, {"unsteered": [["u"]], "own": [["c"]]}
        ),
        "haste": result(
            unsteered + rows_of("own", [0.2, 0.1], reached=1),
            {"own": "own: fades."},
            {"unsteered": [["u"]], "own": [["h"]]},
        ),
    }
    whole = StabilityResult.of_concepts(parts)
    assert [(r.concept, r.arm) for r in whole.window_rows if r.metric == "effect"] == [
        *[("all", "unsteered")] * 2,
        *[("calm", "own")] * 2,
        ("haste", "own"),
    ]
    assert whole.verdicts == {"calm, own": "calm, own: holds.", "haste, own": "haste, own: fades."}
    assert whole.texts == {"unsteered": [["u"]], "calm, own": [["c"]], "haste, own": [["h"]]}
    lines = whole.markdown().splitlines()
    assert lines[0] == "| concept | arm | last tokens | effect at first | effect at last | degenerate | written |"
    assert lines[3] == "| calm | own | 64–127 | 0.40 [0.30, 0.50] | 0.30 [0.20, 0.40] | 0.00 | 1.00 |"
    # the second window holds no text
    assert lines[4] == "| haste | own | 0–63 | 0.20 [0.10, 0.30] | 0.20 [0.10, 0.30] | 0.00 | 1.00 |"
    again = StabilityResult.from_json(json.loads(json.dumps(whole.to_json())))
    assert (again.window_rows, again.verdicts, again.markdown()) == (
        whole.window_rows,
        whole.verdicts,
        whole.markdown(),
    )


def test_a_score_of_the_unsteered_model_is_kept_for_every_concept():
    parts = {c: result(rows_of("unsteered", [s], metric="score")) for c, s in (("calm", 0.1), ("haste", 0.6))}
    scores = [(r.concept, r.value) for r in StabilityResult.of_concepts(parts).window_rows if r.metric == "score"]
    assert scores == [("calm", 0.1), ("haste", 0.6)]


def test_the_figure_is_drawn_even_without_any_text():
    for rows in (rows_of("own", [0.4, 0.3]), rows_of("own", [0.4], reached=0)):
        assert result(rows).figure().startswith(b"\x89PNG")


def test_renderings(model):
    result = stability(model).long_texts(PROMPTS, {"own": towards(model, "b", 3.0)}, max_new_tokens=20, window=8)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False)) == result.to_json()
    assert result.rows()[0]["metric"] == result.window_rows[0].metric
    assert result.settings["window"] == 8
    lines = result.markdown().splitlines()
    assert lines[0] == "| arm | tokens | effect | repetition | distinct-2 | perplexity | degenerate | written |"
    assert lines[2].startswith("| unsteered | 0–7 | 0.00 [0.00, 0.00] |")
    assert lines[-1] == result.verdicts["own"]
    console = Console(file=io.StringIO(), width=200)
    console.print(result.table())
    assert result.verdicts["own"] in console.file.getvalue()  # type: ignore[attr-defined]

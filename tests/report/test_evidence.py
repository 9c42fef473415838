"""One result, four renderings: what the rows say must stand in each of them."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from contrans.errors import ArtifactError
from contrans.report.evidence import Evidence, evidence_of
from contrans.report.grids import arms_grid, concepts_grid, curve_summary, grids_of
from contrans.validation.findings import Finding
from contrans.validation.grids import markdown_text
from contrans.validation.row_table import RowTable
from contrans.validation.rows import Row
from contrans.validation.statistics import area_under_curve
from tests.results import CONCEPTS, DOSES, STRENGTH, document, emotion_rows, kl, row, share


def printed(evidence: Evidence, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(evidence)
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


@pytest.fixture(scope="module")
def emotion() -> Evidence:
    return Evidence.of_document(document())


def test_the_terminal_has_arms_metrics_intervals_costs_and_significance(emotion):
    said = printed(emotion)
    for words in ("logit accuracy", "token accuracy", "gain recovered", "KL", "against unsteered"):
        assert words in said
    line = next(part for part in said.splitlines() if "transplanted" in part and "[" in part)
    assert "0.65 [0.60, 0.69]" in line
    assert "0.56 [0.50, 0.62]" in line
    assert "higher (3 of 3 concepts)" in line
    assert "lower (3 of 3 concepts)" in said
    assert "n=150 sees differences of ±8 points" in said


@pytest.mark.parametrize("width", [100, 60])
def test_a_narrow_terminal_breaks_no_interval_and_no_name(emotion, width):
    said = printed(emotion, width=width)
    assert max(map(len, said.splitlines())) <= width
    assert "0.65 [0.60, 0.69] │" in said
    assert said.count("│ transplanted │") >= 3
    assert "(continued)" in said


def test_panels_hold_every_column_once():
    grid = arms_grid(RowTable.of(emotion_rows()), "all")
    panels = grid.panels(60)
    assert [c for p in panels for c in p.columns[1:]] == list(grid.columns[1:])
    assert all(p.columns[0] == "arm" and len(p.rows) == len(grid.rows) for p in panels)
    assert len(grid.panels(1)) == len(grid.columns) - 1
    assert grid.panels(300) == [grid]


def test_what_is_not_significant_is_said_in_the_terminal_and_in_the_card():
    evidence = Evidence.of_document(document(emotion_rows(p=0.1)))
    for said in (printed(evidence), evidence.markdown()):
        assert "not significant (p = 0.30)" in said
        assert "Not significant: the transplant's change of logit accuracy for anger (p = 0.30)" in " ".join(
            said.split()
        )


def test_the_effect_comes_first_and_its_controls_are_in_the_card(emotion):
    card = emotion.markdown()
    assert card.startswith("## Evidence (emotion): small-instruct → large-base\n")
    header = next(line for line in card.splitlines() if line.startswith("| arm"))
    assert header.startswith(
        "| arm | dose | logit accuracy | against unsteered | gain recovered | token accuracy | KL |"
    )
    for arm in STRENGTH:
        assert any(line.strip("| *").startswith(arm.replace("_", " ")) for line in card.splitlines())
    assert "### What to read with care" in card
    assert "- **Note.** The control random breaks the model" in card
    assert "n=150 sees differences of ±8 points" in card
    # every line of a table has as many cells as its head
    for block in card.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1


def test_a_card_without_findings_says_so(emotion):
    card = Evidence.of(emotion.results.rows, findings=()).markdown(heading="###")
    assert card.startswith("### Evidence (emotion)\n")
    assert "#### What to read with care\n\nNone of the known failure signatures" in card


def test_json_is_plain_and_comes_back_the_same(emotion):
    written = json.loads(json.dumps(emotion.to_json(), allow_nan=False))
    again = Evidence.from_json(written)
    assert again.to_json() == written
    assert again.markdown() == emotion.markdown()
    by = {(c["arm"], c["concept"], c["against"]): c for c in written["comparisons"]}
    assert by["transplanted", "fear", "unsteered"]["p_holm"] == pytest.approx(3e-4)
    assert by["transplanted", "fear", "random"]["words"] == "higher"
    assert written["power"]["n"] == 150
    with pytest.raises(ArtifactError, match="lacks effect, rows"):
        Evidence.from_json({k: v for k, v in written.items() if k not in ("effect", "rows")})


def test_curves_hold_the_area_under_effect_against_kl(emotion):
    found = {c["arm"]: c for c in emotion.to_json()["curves"]}
    table = emotion.results
    kl_max = min(kl(arm, DOSES[-1]) for arm in STRENGTH)
    points = table.curve_by_kl("own")
    area = area_under_curve([p[1] for p in points], [p[2] for p in points], kl_max, base=0.1)
    assert found["own"]["mean_effect"] == pytest.approx(float(area) / kl_max, abs=1e-3)
    assert found["own"]["mean_effect"] > found["transplanted"]["mean_effect"] > found["opposite"]["mean_effect"]
    assert "at KL 0.1" in printed(emotion)


def test_no_curves_without_kl_or_without_the_unsteered_model():
    rows = emotion_rows()
    assert curve_summary(RowTable.of(r for r in rows if r["metric"] != "kl")) == []
    assert curve_summary(RowTable.of(r for r in rows if r["arm"] != "unsteered")) == []


def test_a_budget_out_of_an_arms_reach_has_no_value():
    rows = [r for r in emotion_rows() if r["arm"] in ("unsteered", "own") and (r["dose"] or 0) <= 0.1]
    (curve,) = curve_summary(RowTable.of(rows))
    assert [p["kl"] for p in curve["at"] if p["effect"] is not None] == [0.1]


def test_the_figure_is_the_one_that_the_rows_allow(emotion):
    tested = [r for r in emotion_rows() if r["split"] == "test"]
    for evidence in (emotion, Evidence.of(tested)):
        assert evidence.figure().startswith(b"\x89PNG")
    assert Evidence.of(tested).figure() != emotion.figure()


def truthfulqa() -> list[dict]:
    rows = []
    for arm, mc1, mc2 in (("unsteered", 0.18, 0.30), ("transplanted", 0.36, 0.5), ("own", 0.36, 0.52)):
        dose = None if arm == "unsteered" else 0.3
        rows.append(share("honesty", arm, "mc1", mc1, 400, protocol="truthfulqa", dose=dose))
        rows.append(row("honesty", arm, "mc2", mc2, low=mc2 - 0.03, high=mc2 + 0.03, protocol="truthfulqa", dose=dose))
    rows.append(row("honesty", "transplanted", "mcnemar_p", 0.0123, protocol="truthfulqa", dose=0.3))
    return rows


def test_a_protocol_of_one_concept_has_one_table_with_its_p_value():
    evidence = Evidence.of(truthfulqa(), chance={"mc1": 0.226})
    said = printed(evidence)
    assert "truthfulqa, honesty, test items" in said
    assert "higher (p = 0.012)" in said
    assert "by concept" not in said
    assert "n=400 sees differences of ±5 points" in said
    assert [f.code for f in evidence.findings] == ["below_chance"]


def test_capability_and_perplexity_are_side_effects_without_a_power_note_where_there_is_no_share():
    rows = []
    for arm, nll in (("unsteered", -0.7), ("transplanted", -0.9)):
        values = {"low": nll - 0.02, "high": nll + 0.02, "protocol": "perplexity"}
        rows.append(row("all", arm, "negative_nll_per_byte", nll, **values))
    evidence = Evidence.of(rows)
    assert [f.code for f in evidence.findings] == ["side_effect"]
    assert evidence.power == ""
    assert "sees differences" not in evidence.markdown()
    assert "lower" in printed(evidence)


def test_all_protocols_of_a_document():
    found = evidence_of(document([*emotion_rows(), *truthfulqa()], chance={"mc1": 0.226}))
    assert [e.results.protocol for e in found] == ["emotion", "truthfulqa"]
    assert [f.code for f in found[1].findings] == ["below_chance"]
    assert evidence_of({}) == []
    with pytest.raises(ArtifactError, match="name the one that is meant"):
        Evidence.of_document(document([*emotion_rows(), *truthfulqa()]))


def beside() -> list[dict]:
    rows = []
    for arm, nll in (("unsteered", -0.7), ("transplanted", -0.9)):
        ends = {"low": nll - 0.02, "high": nll + 0.02}
        rows.append(row("all", arm, "negative_nll_per_byte", nll, protocol="perplexity", **ends))
    return rows


def test_summary_samples_and_findings_of_the_run_belong_to_the_protocol_of_its_spec():
    sample = {"prompt": "p", "arm": "own", "text": "t", "flaw": "", "concept": "anger"}
    spec = {"source": "small-instruct", "target": "large-base", "validate": {"protocol": "emotion"}}
    summary = {"gain_recovered": {"value": None, "low": None, "high": None}}
    more = {"spec": spec, "summary": summary, "samples": [sample], "match_rate": 0.1}
    main, perplexity = evidence_of(document([*emotion_rows(), *beside()], **more))
    assert main.summary == summary
    assert {"tokenizers_unlike", "own_gains_nothing"} <= {f.code for f in main.findings}
    assert "- **anger, own** — p → t" in main.markdown()
    assert (perplexity.summary, perplexity.samples) == ({}, ())
    assert [f.code for f in perplexity.findings] == ["side_effect"]
    assert perplexity.markdown().startswith("## Evidence (perplexity): small-instruct → large-base\n")


def test_many_tasks_are_one_table_and_a_task_has_only_its_own_metrics():
    def task(name: str, metric: str) -> list[dict]:
        arms = ("unsteered", "transplanted")
        return [share(name, arm, m, 0.5, protocol="capability") for arm in arms for m in ("score", metric)]

    few = RowTable.of([*task("sums", "acc"), *task("prose", "f1")])
    assert arms_grid(few, "sums").columns[2:] == ("score", "against unsteered", "acc")
    assert arms_grid(few, "prose").columns[2:] == ("score", "against unsteered", "f1")
    assert [g.title for g in grids_of(few)][:2] == ["capability, sums, test items", "capability, prose, test items"]
    (grid,) = grids_of(RowTable.of([r for i in range(9) for r in task(f"task {i}", "acc")]))
    assert grid.columns[0] == "task"
    assert len(grid.rows) == 9
    assert grid.title.startswith("score by task")


def test_an_effect_named_by_the_document_is_the_first_column():
    evidence = Evidence.of_document(document(truthfulqa(), effects={"truthfulqa": "mc2"}))
    assert arms_grid(evidence.results, "honesty").columns[2:] == ("mc2", "against unsteered", "mc1")


def test_rows_as_the_protocols_make_them():
    values = [
        Row("all", "emotion", "test", arm, "logit_accuracy", None, 0.1, 0.0, 0.2, 50) for arm in ("unsteered", "own")
    ]
    assert Evidence.of(values).results.arms() == ["unsteered", "own"]


def test_concepts_side_by_side():
    grid = concepts_grid(RowTable.of(emotion_rows()))
    assert grid is not None
    assert [cells[0] for cells in grid.rows] == list(CONCEPTS)
    assert grid.columns[-2:] == ("against unsteered", "against random")
    assert all(len(cells) == len(grid.columns) for cells in grid.rows)


def test_samples_in_the_card_are_text_whatever_they_hold(emotion):
    sample = {"prompt": "# Say [so](http://x)", "arm": "wrong_concept", "text": "a|b\n<b>*c*</b>", "flaw": "copied"}
    empty = {"prompt": "p", "arm": "own", "text": " ", "flaw": "empty"}
    long = {"prompt": "p", "arm": "own", "text": "x" * 1000}
    card = Evidence.of(emotion.results.rows, samples=[sample, empty, long, sample]).markdown(samples=3)
    assert "- **wrong concept, copied** — # Say [so\\](http://x) → a\\|b<br>&lt;b>\\*c\\*&lt;/b>" in card
    assert "- **own, empty** — p → (nothing)" in card
    assert "x" * 599 + "…" in card
    assert "x" * 600 not in card
    assert card.count("wrong concept, copied") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.65 [0.60, 0.69]", "0.65 [0.60, 0.69]"),
        ("p < 0.001", "p < 0.001"),
        ("shuffled_map", "shuffled\\_map"),
        ("![x](y)", "![x\\](y)"),
        ("<!-- -->", "&lt;!-- -->"),
        ("a & b &lt;", "a & b &amp;lt;"),
        ("a\\b", "a\\\\b"),
    ],
)
def test_markdown_text(text, expected):
    assert markdown_text(text) == expected


def test_brackets_are_no_markup_in_the_terminal():
    rows = [row("[bold]all", "unsteered", "mc1", 0.3), row("[bold]all", "[red]own", "mc1", 0.3)]
    said = printed(Evidence.of(rows, findings=[Finding("x", "note", "Read [red] with care.")]))
    assert "[bold]all" in said
    assert "[red]own" in said
    assert "Read [red] with care." in said


def test_results_are_shown_without_torch():
    code = "import sys, contrans.report.evidence; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

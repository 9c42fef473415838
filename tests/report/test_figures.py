"""Figures hold the numbers of the rows: their lines are read back from the axes before they become pixels."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from contrans.errors import ArtifactError
from contrans.report import figures
from contrans.report.drawing import COLOURS, colour_of
from contrans.report.figures import accuracy_by_dose, effect_by_arm, effect_by_kl, effect_by_window, kl_ticks
from tests.results import DOSES, STRENGTH, effect, emotion_rows, kl, row, share


@pytest.fixture
def axes(monkeypatch) -> list:
    """The axes of every figure that is drawn."""
    seen = []
    draw = figures.as_png

    def watched(figure, axes, **more):
        seen.append(axes)
        return draw(figure, axes, **more)

    monkeypatch.setattr(figures, "as_png", watched)
    return seen


def lines(axes) -> dict[str, np.ndarray]:
    """Points of each labelled line [points, 2], by the first word of its label."""
    return {str(line.get_label()).split(" ")[0]: line.get_xydata() for line in axes.lines}


def test_effect_by_kl_draws_every_curve_from_the_unsteered_model_on(axes):
    png = effect_by_kl(emotion_rows(), source="small", target="large")
    assert imread(io.BytesIO(png)).shape[:2] == (598, 1040)
    drawn = lines(axes[0])
    for arm in ("transplanted", "own", "paper", "shuffled", "random"):
        name = "shuffled_map" if arm == "shuffled" else arm
        expected = [(0.0, 0.1), *((kl(name, d), effect(name, d)) for d in DOSES)]
        assert drawn[arm] == pytest.approx(np.array(expected), abs=5e-3)
    assert axes[0].get_title(loc="left") == "small → large: emotion, mean over concepts"
    assert axes[0].get_ylabel() == "logit accuracy"
    assert axes[0].get_ylim() == (-0.02, 1.02)


def test_the_opposite_arm_and_negative_doses_stand_on_the_left(axes):
    rows = [r for r in emotion_rows() if r["arm"] in ("unsteered", "transplanted", "opposite")]
    rows += [share("all", "transplanted", "logit_accuracy", 0.02, split="dev", dose=-0.2)]
    rows += [row("all", "transplanted", "kl", 0.6, split="dev", dose=-0.2)]
    effect_by_kl(rows)
    drawn = lines(axes[0])
    assert drawn["opposite"][0] == pytest.approx((-kl("opposite", 0.5), effect("opposite", 0.5)), abs=5e-3)
    assert (np.diff(drawn["opposite"][:, 0]) > 0).all()
    assert drawn["transplanted"][0] == pytest.approx((-0.6, 0.02))
    assert "left: −dose" in axes[0].get_xlabel()
    assert axes[0].get_xlim()[0] < -kl("opposite", 0.5)


def test_without_an_opposite_arm_there_is_no_left_half(axes):
    effect_by_kl([r for r in emotion_rows() if r["arm"] != "opposite"])
    assert -0.01 < axes[0].get_xlim()[0] < 0
    assert "left" not in axes[0].get_xlabel()


def test_test_points_stand_at_their_own_kl(axes):
    effect_by_kl(emotion_rows())
    points = sorted(float(c.lines[0].get_xydata()[0, 0]) for c in axes[0].containers)
    expected = sorted((-1 if arm == "opposite" else 1) * kl(arm, 0.2) for arm in STRENGTH)
    assert points == pytest.approx(expected)


def test_a_budget_is_marked(axes):
    effect_by_kl(emotion_rows(), budget=0.1)
    assert lines(axes[0])["KL"][:, 0].tolist() == [0.1, 0.1]


def test_points_without_a_kl_are_left_out(axes):
    effect_by_kl([r for r in emotion_rows() if not (r["arm"] == "paper" and r["metric"] == "kl")])
    assert "paper" not in lines(axes[0])
    assert "own" in lines(axes[0])


def test_an_effect_that_is_no_share_has_free_limits(axes):
    rows = [row("all", arm, "logit_difference", v, dose=d, split="dev") for arm, v, d in [("own", 7.0, 0.1)]]
    rows += [row("all", "own", "kl", 0.2, dose=0.1, split="dev"), row("all", "unsteered", "logit_difference", -3.0)]
    effect_by_kl(rows)
    assert axes[0].get_ylim()[1] > 7
    assert lines(axes[0])["own"].tolist() == [[0.0, -3.0], [0.2, 7.0]]


def test_accuracy_by_dose_has_every_arm(axes):
    rows = emotion_rows()
    dev, test = ([r for r in rows if r["split"] == split] for split in ("dev", "test"))
    png = accuracy_by_dose(dev, test, source="small", target="large")
    assert png.startswith(b"\x89PNG")
    drawn = lines(axes[0])
    assert drawn["own"][:, 0].tolist() == [0.0, *DOSES]
    assert drawn["opposite"][:, 0].tolist() == [*(-d for d in reversed(DOSES)), 0.0]
    assert len(axes[0].containers) == len(STRENGTH)


def test_effect_by_arm_has_a_line_for_every_arm(axes):
    effect_by_arm(emotion_rows())
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    assert labels[:3] == ["unsteered", "transplanted", "own"]
    points = [c.lines[0].get_xydata()[0].tolist() for c in axes[0].containers]
    assert points[2] == pytest.approx([effect("own", 0.2), 2], abs=5e-3)


def test_effect_by_arm_of_several_concepts_and_of_values_without_interval(axes):
    rows = [row(c, arm, "mc2", 0.3) for c in ("honesty", "fairness") for arm in ("unsteered", "transplanted", "new")]
    effect_by_arm(rows)
    assert [t.get_text() for t in axes[0].get_yticklabels()][2:4] == ["honesty: new", "fairness: unsteered"]


def test_figures_are_the_same_every_time():
    assert effect_by_arm(emotion_rows()) == effect_by_arm(emotion_rows())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.5, [0.0, 0.01, 0.03, 0.1, 0.3, 1.0]),
        (0.0, 0.04, [0.0, 0.003, 0.01, 0.03]),
        (-4.0, 90.0, [-3.0, -1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]),
    ],
)
def test_ticks_do_not_touch(low, high, expected):
    assert kl_ticks(low, high) == expected


def test_an_arm_keeps_its_colour_between_figures_and_runs():
    assert colour_of("transplanted") == COLOURS["transplanted"]
    assert colour_of("a new arm") == colour_of("a new arm")
    assert colour_of("unsteered") == "black"


def test_no_rows():
    for figure in (effect_by_kl, effect_by_arm):
        with pytest.raises(ArtifactError, match="no rows"):
            figure([])


def window(concept: str, arm: str, k: int, value: float, **more) -> dict:
    found = {"low": value - 0.1, "high": value + 0.1, "metric": "effect", "n": 4, **more}
    return {"concept": concept, "arm": arm, "window": k, "start": 64 * k, "end": 64 * (k + 1), "value": value, **found}


def test_windows_have_a_line_for_each_arm_with_intervals_and_crosses_where_the_text_breaks(axes):
    rows = [window("", "unsteered", k, 0.0) for k in range(3)]
    rows += [
        window("", arm, k, v) for arm, vs in (("own", [0.4, 0.3, 0.2]), ("paper", [0.1, 0.1])) for k, v in enumerate(vs)
    ]
    rows += [window("", "own", k, share, metric="degenerate") for k, share in enumerate([0.0, 0.2, 0.9])]
    effect_by_window(rows, title="Stability by token")
    drawn = lines(axes[0])
    assert set(drawn) >= {"own", "paper", "unsteered"}
    assert drawn["own"][:, 1] == pytest.approx([0.4, 0.3, 0.2])
    assert drawn["own"][:, 0] == pytest.approx(np.array([32, 96, 160]) - 8)
    assert drawn["paper"][:, 0] == pytest.approx(np.array([32, 96]) + 8)
    marks = [line.get_marker() for line in axes[0].lines if line.get_marker() in ("o", "X")]
    assert marks == ["o", "o", "X", "o", "o"]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("tokens", "effect (residual norms)")


def test_windows_of_several_concepts_have_a_colour_each(axes):
    rows = [window(c, "transplanted", k, 0.3) for c in ("calm", "haste") for k in range(2)]
    rows += [window(c, "transplanted", 0, 0.5, metric="score_gain", low=None, high=None) for c in ("calm", "haste")]
    effect_by_window(rows)
    named = {str(line.get_label()): line for line in axes[0].lines}
    assert named["calm"].get_color() != named["haste"].get_color()
    assert named["calm"].get_ydata() == pytest.approx([0.5])
    assert axes[0].get_ylabel() == "score, change against unsteered"


def test_many_values_below_each_other_have_room():
    rows = [
        share(f"task {i}", arm, "score", 0.5, protocol="capability") for i in range(20) for arm in ("unsteered", "own")
    ]
    assert imread(io.BytesIO(effect_by_arm(rows))).shape[0] == pytest.approx(130 * (0.27 * 40 + 1), abs=2)

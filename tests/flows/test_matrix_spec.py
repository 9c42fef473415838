"""Specs of many pairs: which cells there are, named corpora, what is published, settings of the environment."""

from itertools import product
from pathlib import Path

import pytest

from contrans.errors import SpecError, TextError
from flows.spec import Matrix, load_spec, load_sweep
from flows.spec.publishing import Publish

MODELS = "sources: [org/a, org/b]\ntargets: [org/b, org/c]\n"
ANGER, FEAR, JOY = "emotion/anger", "emotion/fear", "emotion/happiness"


def matrix(tmp_path: Path, text: str, *settings: str) -> Matrix:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    found = load_sweep(path, settings)
    assert isinstance(found, Matrix)
    return found


def pairs(found: Matrix) -> list[str]:
    return [f"{cell.spec.source[-1]}{cell.spec.target[-1]}" for cell in found.points]


@pytest.mark.parametrize(
    ("directions", "models", "expected"),
    [
        ("one", "abc", ["ab", "ac", "bc"]),
        ("both", "abc", ["ab", "ac", "ba", "bc", "ca", "cb"]),
        ("all", "abc", [f"{x}{y}" for x, y in product("abc", "abc")]),
        ("one", "ba", ["ba"]),
    ],
)
def test_pairs_of_a_matrix(tmp_path: Path, directions: str, models: str, expected: list[str]) -> None:
    listed = ", ".join(f"org/{name}" for name in models)
    found = matrix(tmp_path, f"sources: [{listed}]\ntargets: [{listed}]\ndirections: {directions}\n")
    assert pairs(found) == expected


def test_a_cell_is_a_spec_of_its_own(tmp_path: Path) -> None:
    found = matrix(tmp_path, f"{MODELS}seed: 3\n", "validate.random_draws=5")
    assert pairs(found) == ["ab", "ac", "bc"]
    assert [cell.spec.name for cell in found.points] == ["my.a-b", "my.a-c", "my.b-c"]
    assert [cell.label for cell in found.points] == ["a → b", "a → c", "b → c"]
    assert {(c.spec.seed, c.spec.validate_.random_draws, tuple(c.spec.concepts)) for c in found.points} == {
        (3, 5, ("emotion/*",))
    }
    alone = tmp_path / "alone.yaml"
    alone.write_text("source: org/a\ntarget: org/c\nseed: 3\nname: my.a-c\n")
    assert load_spec(alone, ["validate.random_draws=5"]) == found.points[1].spec
    assert found.spec["sources"] == ["org/a", "org/b"]
    assert {"source", "target", "include", "sweep"}.isdisjoint(found.spec)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("include: [{source: org/a}]", ["ab", "ac"]),
        ("include: [{source: org/a, target: org/c}, {source: b}]", ["ac", "bc"]),
        ("include: [{target: '*/c'}]", ["ac", "bc"]),
        ("exclude: [{target: '[cd]'}]", ["ab"]),
        ("include: [{source: org/a}]\nexclude: [{target: org/b}]", ["ac"]),
    ],
)
def test_rules_choose_pairs(tmp_path: Path, rules: str, expected: list[str]) -> None:
    assert pairs(matrix(tmp_path, MODELS + rules)) == expected


def test_rules_choose_concepts(tmp_path: Path) -> None:
    rules = f"exclude: [{{target: c, concepts: [{FEAR}, 'h*']}}, {{source: b, concepts: ['*']}}]"
    found = matrix(tmp_path, f"{MODELS}concepts: [{ANGER}, {FEAR}, {JOY}]\n{rules}")
    assert [(pair, cell.spec.concepts) for pair, cell in zip(pairs(found), found.points, strict=True)] == [
        ("ab", [ANGER, FEAR, JOY]),
        ("ac", [ANGER]),
    ]


def test_families_of_concepts_have_cells_of_their_own(tmp_path: Path) -> None:
    text = "source: org/a\ntargets: [org/b, org/c]\nconcepts: ['emotion/*', civility]\n"
    found = matrix(tmp_path, text)
    assert pairs(found) == ["ab", "ab", "ac", "ac"]
    assert [len(cell.spec.concepts) for cell in found.points] == [6, 1, 6, 1]
    assert [cell.spec.name for cell in found.points][:2] == ["my.a-b.anger", "my.a-b.civility"]
    assert found.points[1].label == "a → b (civility)"
    toxic = "validate: {protocol: toxicity, data: d.csv, classifier: c}"
    assert [c.spec.concepts for c in matrix(tmp_path, f"{text}{toxic}").points][-1] == ["civility"]
    assert len(matrix(tmp_path, f"{text}{toxic}").points) == 2 * 7


def test_a_sweep_runs_through_every_cell(tmp_path: Path) -> None:
    found = matrix(tmp_path, f"{MODELS}sweep: {{refine.pairs: [5, 10]}}\n")
    assert pairs(found) == ["ab", "ab", "ac", "ac", "bc", "bc"]
    assert [cell.spec.refine.pairs for cell in found.points] == [5, 10] * 3
    assert [cell.values for cell in found.points][:2] == [{"refine.pairs": 5}, {"refine.pairs": 10}]
    assert found.points[1].spec.name == "my.a-b.pairs-10"
    assert found.points[1].label == "a → b (refine.pairs=10)"
    assert found.spec["sweep"] == {"refine.pairs": [5, 10]}
    over_targets = matrix(tmp_path, "sources: [org/a]\nsweep: {target: [org/b, org/c]}\n")
    assert pairs(over_targets) == ["ab", "ac"]


def test_settings_replace_models(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(MODELS)
    with pytest.raises(SpecError, match="has many models; read it with load_sweep"):
        load_spec(path)
    one = load_spec(path, ["source=org/x", "target=org/y"])
    assert (one.source, one.target) == ("org/x", "org/y")
    assert pairs(matrix(tmp_path, MODELS, "source=org/x")) == ["xb", "xc"]
    assert pairs(matrix(tmp_path, "source: org/a\ntarget: org/b", "sources=[org/x, org/y]")) == ["xb", "yb"]


def test_paths_lie_beside_the_spec(tmp_path: Path) -> None:
    text = "sources: [./a, ./b]\ntarget: ./c\nexclude: [{source: ./b}]\n"
    text += "corpora: {mine: {name: ./d.txt}}\ncorpus: {name: mine}\n"
    [cell] = matrix(tmp_path, text).points
    assert (Path(cell.spec.source), Path(cell.spec.corpus.name)) == (tmp_path / "a", tmp_path / "d.txt")


NAMED = "source: org/a\ntarget: org/b\ncorpora:\n  news: {name: n.txt, wrapped: 70, spread: 9}\n  few: {wrapped: 20}\n"


def test_a_corpus_is_taken_over_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"{NAMED}corpus: {{name: news, spread: 0, mixes: []}}\n")
    spec = load_spec(path)
    assert (spec.corpus.name, spec.corpus.wrapped, spec.corpus.spread) == ("n.txt", 70, 0)
    swept = load_sweep(path, ["corpus={mixes: []}", "sweep.corpus.name=[news, few, passages]"])
    assert [(p.spec.corpus.name, p.spec.corpus.wrapped) for p in swept.points] == [
        ("n.txt", 70),
        ("passages", 20),
        ("passages", 1300),
    ]
    assert load_spec(path, ["corpora.news.wrapped=71"]).corpus.wrapped == 71


def test_what_is_published_is_part_of_the_spec(tmp_path: Path) -> None:
    text = "publish: {to: 'me/{concept}-of-{source}.{target}', if: gain_recovered.low > .7 and kl < .1}\n"
    for cell in matrix(tmp_path, MODELS + text).points:
        assert cell.spec.publish is not None
        assert cell.spec.canonical()["publish"] == {
            "to": "me/{concept}-of-{source}.{target}",
            "if": "gain_recovered.low > .7 and kl < .1",
            "private": False,
        }
        assert cell.spec.publish.repository("opposite of anger", "a", "b") == "me/opposite-of-anger-of-a.b"
    assert Publish(to="me/x{concept}").repository("--y..", "a", "b") == "me/x-y"
    assert len(Publish(to="me/{concept}").repository("y" * 200, "a", "b")) == len("me/") + 96


MISTAKES = [
    ("source: org/a\n" + MODELS, 1, "the spec has both source and sources; keep one of them."),
    (f"{MODELS}sweep: {{target: [org/x]}}", 3, "the spec has both sweep.target and targets; keep one of them."),
    (f"{MODELS}include: [{{sorce: org/a}}]", 3, "there is no key include[0].sorce; did you mean include[0].source?"),
    (f"{MODELS}exclude:\n  - target: org/b\n  - target: org/x", 5, "exclude[1] matches no cell; compare it with"),
    (f"{MODELS}exclude: [{{target: '*'}}]", 1, "the matrix has no cell; change directions, which is one"),
    (f"{MODELS}directions: two", 3, "directions cannot be 'two'; use one, both or all."),
    ("sources: []\ntarget: org/b", 1, "sources must not be empty"),
    ("sources: [org/a]\n", None, "the key target is missing"),
    ("source: org/a\ntarget: org/b\ninclude: []", 3, "include is about a matrix of models"),
    (f"{MODELS}sourses: 1", 3, "there is no key sourses; did you mean sources?"),
    (f"{MODELS}sweep: {{sources: [org/a]}}", 3, "there is no key sources; did you mean source?"),
    (f"{NAMED}  old: {{wraped: 3}}", 6, "there is no key corpora.old.wraped; did you mean corpora.old.wrapped?"),
    (f"{NAMED}  old: 3", 6, "corpora.old must be a mapping of keys to values, not 3."),
    (f"{NAMED}corpus: {{name: newz}}", 6, "there is no corpus newz; did you mean news?"),
    ("source: org/a\ntarget: org/b\ncorpora: [1]", 3, "corpora must be a mapping of names to settings of a corpus"),
    (f"{MODELS}publish: {{}}", 3, "the key publish.to is missing; add `to: …`."),
    (f"{MODELS}publish: {{to: me}}", 3, "publish.to must be an owner and a name, such as my-org/"),
    (
        f"{MODELS}publish: {{to: 'me/{{model}}'}}",
        3,
        "publish.to names {model}, which is no place; use {concept}, {source}",
    ),
    (f"{MODELS}publish: {{to: 'me/{{concept'}}", 3, "publish.to has a brace that is not closed"),
    (f"{MODELS}publish: {{to: me/x, when: 1}}", 3, "there is no key publish.when; the keys there are to, if, private."),
    (
        f"{MODELS}publish:\n  to: me/x\n  if: kl <",
        5,
        "publish.if cannot be read: The gate 'kl <' is not understood at its",
    ),
    (
        f"{MODELS}publish: {{to: me/x, if: opposite/kl < 1}}",
        None,
        "has a publish.if about the arm opposite, which is not measured; put it into validate.arms",
    ),
    (f"{MODELS}compute: {{memory_gb: 0}}", 3, "compute.memory_gb must be above 0, not 0."),
]


@pytest.mark.parametrize(("text", "line", "sentence"), MISTAKES)
def test_a_mistake_names_line_key_and_fix(tmp_path: Path, text: str, line: int | None, sentence: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_sweep(path)
    said = str(raised.value)
    assert sentence in said
    assert said.startswith(f"{path}, line {line}: " if line else f"{path}: ")
    assert ".." not in said.replace("…", "")


def test_a_concept_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="did you mean emotion/anger"):
        matrix(tmp_path, f"{MODELS}concepts: [emotion/angr]\n")


def test_the_environment_sets_what_the_command_line_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("source: org/a\ntarget: org/b\nseed: 1\nsweep: {refine.pairs: [5, 6]}\n")
    monkeypatch.setenv("CONTRANS_SET__seed", "2")
    monkeypatch.setenv("CONTRANS_SET__VALIDATE__RANDOM_DRAWS", "7")
    monkeypatch.setenv("CONTRANS_SET__refine__pairs", "9")
    spec = load_spec(path)
    assert (spec.seed, spec.validate_.random_draws, spec.refine.pairs) == (2, 7, 9)
    assert load_spec(path, ["seed=3"]).seed == 3
    monkeypatch.setenv("CONTRANS_SET__sweep__refine__pairs", "[7, 8]")
    monkeypatch.delenv("CONTRANS_SET__refine__pairs")
    assert [point.spec.refine.pairs for point in load_sweep(path).points] == [7, 8]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "CONTRANS_SET__validate__random_drows",
            "5",
            "no key validate.random_drows; did you mean validate.random_draws?",
        ),
        ("CONTRANS_SET__seed", "x", "seed must be a whole number, not 'x'."),
        ("CONTRANS_SET__seed", "[1", "the value is not valid YAML"),
        ("CONTRANS_SET__", "1", "a setting is key=value"),
    ],
)
def test_a_wrong_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("source: org/a\ntarget: org/b\n")
    monkeypatch.setenv(name, value)
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert str(raised.value).startswith(f"{name}={value}: ")
    assert sentence in str(raised.value)

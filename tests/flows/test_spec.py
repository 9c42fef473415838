"""Reading specs: defaults, settings, and each mistake as one sentence with its place."""

import typing
from pathlib import Path

import pytest
import yaml

from contrans.concepts.estimators import ESTIMATORS
from contrans.errors import SpecError
from contrans.maps.estimators import MAP_ESTIMATORS
from contrans.maps.estimators import MOMENT_ESTIMATORS as OF_LIBRARY
from contrans.states.precision import PRECISIONS
from contrans.validation.arms import ARMS
from flows.spec import Compute, MapSettings, PipelineSpec, Refine, Sweep, load_spec, load_sweep, shipped_specs
from flows.spec.model import MOMENT_ESTIMATORS, Arm
from flows.spec.presets import PRESETS

MODELS = "source: org/a\ntarget: org/b\n"


def read(tmp_path: Path, text: str, *settings: str) -> PipelineSpec:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(path, settings)


def test_quickstart_spells_every_setting_out() -> None:
    spec = load_spec("quickstart")
    assert "quickstart" in shipped_specs()
    raw = yaml.safe_load(shipped_specs()["quickstart"].read_text())
    assert raw == spec.canonical()


def test_a_preset_stands_where_a_spec_says_nothing(tmp_path: Path) -> None:
    paper = read(tmp_path, f"{MODELS}preset: paper\nmap: {{held_out: 0.1}}\n")
    assert (paper.map.estimator, paper.map.rescale, paper.map.held_out) == ("paper", "none", 0.1)
    assert (paper.blocks.source, paper.blocks.target, paper.corpus.candidates) == (0.75, 0.75, [["truncated"]])
    strict = read(tmp_path, f"{MODELS}preset: strict\nvalidate: {{kl_budget: 0.3}}\n")
    assert (strict.validate_.select, strict.validate_.kl_budget, strict.validate_.random_draws) == ("kl", 0.3, 149)
    assert set(strict.validate_.arms) == set(ARMS)
    assert (strict.validate_.effect, paper.validate_.effect) == ("selectivity", "logit_accuracy")
    assert strict.blocks.source == "auto"
    for name in PRESETS:
        assert read(tmp_path, MODELS, f"preset={name}").preset == name
    assert PipelineSpec.model_validate(strict.canonical()) == strict


def test_choices_are_those_of_the_library() -> None:
    def choices(part: type, key: str) -> set[str]:
        return set(typing.get_args(part.model_fields[key].annotation))  # type: ignore[attr-defined]

    assert set(typing.get_args(Arm)) == set(ARMS)
    assert choices(MapSettings, "estimator") == {*MAP_ESTIMATORS, "auto"}
    assert set(MOMENT_ESTIMATORS) == set(OF_LIBRARY)
    assert choices(Refine, "estimator") == set(ESTIMATORS)
    assert choices(Compute, "precision") == set(PRECISIONS)


def test_canonical_reads_back_and_hash_tells_specs_apart(tmp_path: Path) -> None:
    spec = read(tmp_path, MODELS)
    assert spec.name == "my"
    assert PipelineSpec.model_validate(spec.canonical()) == spec
    assert spec.hash == read(tmp_path, "target: org/b\nsource: org/a\nseed: 0\n").hash
    assert spec.hash != read(tmp_path, MODELS, "seed=1").hash


def test_a_map_from_all_tokens_needs_one_of_everything(tmp_path: Path) -> None:
    text = (
        f"{MODELS}blocks: {{source: 3, target: [0.5]}}\ncorpus: {{mixes: [[wrapped]], tokens: all, per_document: 2}}\n"
    )
    spec = read(tmp_path, text, "map.estimator=ridge", "compute.device_map=balanced")
    assert (spec.corpus.tokens, spec.corpus.per_document) == ("all", 2)
    assert spec.compute.device_map == "balanced"
    assert PipelineSpec.model_validate(spec.canonical()) == spec
    last = read(tmp_path, text, "map.estimator=ridge", "corpus.tokens=last", "corpus.per_document=null")
    assert (
        spec.corpus.texts
        == last.corpus.texts
        == {k: v for k, v in last.corpus.canonical().items() if k not in ("tokens", "per_document")}
    )


def test_settings_are_read_as_yaml(tmp_path: Path) -> None:
    text = f"{MODELS}validate: {{random_draws: 3}}\n"
    spec = read(
        tmp_path,
        text,
        "validate.random_draws=5",
        "validate.doses=[0.1, 1]",
        "blocks.source=7",
        "validate.test_per_label=null",
        "name=other",
    )
    assert spec.validate_.random_draws == 5
    assert spec.validate_.doses == [0.1, 1.0]
    assert (spec.blocks.source, spec.name) == (7, "other")
    assert spec.validate_.test_per_label is None


def test_paths_that_begin_with_a_dot_lie_beside_the_spec(tmp_path: Path) -> None:
    text = "source: ./a\ntarget: ../b\nconcepts: [./c.yaml, emotion/anger]\ncorpus: {name: ./d.txt}\n"
    spec = read(tmp_path, text)
    assert Path(spec.source) == (tmp_path / "a").resolve()
    assert Path(spec.target) == (tmp_path / ".." / "b").resolve()
    assert spec.concepts == [str((tmp_path / "c.yaml").resolve()), "emotion/anger"]
    assert Path(spec.corpus.name) == (tmp_path / "d.txt").resolve()


MISTAKES = [
    ("foo: 1", 3, "there is no key foo; the keys there are name, preset, source"),
    ("validate:\n  random_drows: 5", 4, "no key validate.random_drows; did you mean validate.random_draws?"),
    ("random_draws: 5", 3, "there is no key random_draws; did you mean validate.random_draws?"),
    ("conpute: {}", 3, "did you mean compute?"),
    ("seed: x", 3, "seed must be a whole number, not 'x'."),
    ("seed: true", 3, "seed must be a whole number, not true."),
    ("seed: -1", 3, "seed must be at least 0, not -1."),
    ("corpus: {wrapped: 1.5}", 3, "corpus.wrapped must be a whole number, not 1.5."),
    ("corpus: {wrapped: '16'}", 3, "corpus.wrapped must be a whole number, not '16'."),
    (
        "corpus: {wrapped: 0, spread: 0, truncated: 0, mixes: []}",
        3,
        "corpus has no rows; set wrapped, spread, truncated or plain above 0.",
    ),
    ("map: {estimator: rigde}", 3, "map.estimator cannot be 'rigde'; did you mean ridge?"),
    ("map: {held_out: 0}", 3, "map.held_out must be above 0, not 0."),
    ("map: {held_out: 0.9}", 3, "map.held_out must be at most 0.5, not 0.9."),
    ("map:", 3, "map must be a mapping of keys to values, not empty."),
    ("validate:\n  arms:\n    - unsteered\n    - sorcery", 6, "validate.arms[1] cannot be 'sorcery'; use"),
    ("validate:\n  arms: [unsteered, own]", 4, "validate.arms must contain transplanted"),
    ("validate:\n  doses: []", 4, "validate.doses must not be empty"),
    ("validate:\n  doses:\n    - 0.1\n    - 0", 6, "validate.doses[1] must be a number above 0, not 0."),
    ("validate: {doses: [0.1, 0.1]}", 3, "validate.doses names 0.1 twice; keep it once."),
    ("validate: {doses: [.nan]}", 3, "validate.doses[0] must be a number above 0, not nan."),
    ("validate: {random_draws: 0}", 3, "validate.random_draws must be at least 1, not 0."),
    ("validate: {protocol: mood}", 3, "validate.protocol cannot be 'mood'; use emotion, truthfulqa or toxicity."),
    ("blocks: {source: deep}", 3, "blocks.source must be a block number such as 14 or a relative depth"),
    ("blocks: {source: 1.5}", 3, "blocks.source must lie between 0.0 and 1.0"),
    ("blocks: {source: -1}", 3, "blocks.source must not be negative; blocks count from 0."),
    ("blocks: {control_draws: 1}", 3, "blocks has one random draw, which does not say how far they spread; set"),
    ("compute: {device: gpu}", 3, "compute.device cannot be 'gpu'; use auto, cpu, mps, cuda or cuda:N."),
    ("compute: {device_map: even}", 3, "compute.device_map cannot be 'even'; use auto, balanced or sequential."),
    ("corpus: {tokens: first}", 3, "corpus.tokens cannot be 'first'; use last or all."),
    (
        "corpus: {per_document: 3}",
        3,
        "corpus has a per_document, but a row has one last token; set tokens: all, or leave it out.",
    ),
    (
        "corpus: {tokens: all, mixes: []}\nblocks: {source: 3, target: 0.5}",
        None,
        "set map.estimator to one of ridge, lstsq, pcr, procrustes, reduced_rank and map.lambda_select to r2, or set",
    ),
    (
        "corpus: {tokens: all}\nblocks: {source: 3}",
        None,
        "leaves a choice in blocks.target and corpus.mixes; name one block or mix there, or set corpus.tokens: last.",
    ),
    (
        "corpus: {tokens: all, mixes: []}\nblocks: {source: [0.5, 0.6], target: [4]}",
        None,
        "leaves a choice in blocks.source; name one block or mix there",
    ),
    ("concepts: anger", 3, "concepts must be a list, not 'anger'."),
    ("name: a b", 3, "name cannot be 'a b'; use letters, digits"),
    ("seed: 1\nseed: 2", 4, "the key seed stands there twice; keep one."),
    ("seed: [1", None, "this is not valid YAML"),
    ("sead: 1\nmap: 3", 3, "there is no key sead; did you mean seed? (1 more mistake after this one.)"),
]


@pytest.mark.parametrize(("text", "line", "sentence"), MISTAKES)
def test_a_mistake_names_line_key_and_fix(tmp_path: Path, text: str, line: int | None, sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        read(tmp_path, MODELS + text)
    said = str(raised.value)
    assert said.startswith(str(tmp_path / "my.yaml"))
    assert sentence in said
    if line is not None:
        assert f", line {line}: " in said
    assert "\n" not in said
    assert "pydantic" not in said


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("validate.random_drows=5", "did you mean validate.random_draws?"),
        ("doses=[0.1]", "did you mean validate.doses?"),
        ("seed.x=3", "seed must be a whole number, not a mapping."),
        ("seed", "a setting is key=value"),
        ("=3", "a setting is key=value"),
        ("seed=[1", "not valid YAML"),
        ("validate=3", "validate must be a mapping of keys to values, not 3."),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        read(tmp_path, MODELS, setting)
    assert str(raised.value).startswith(f"--set {setting}: ")
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; it needs at least"),
        ("- a", "must be a mapping"),
        ("target: org/b", "the key source is missing; add `source: "),
        ("source: org/a\ntarget:", "target must be text, not empty."),
        ("\0", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean quickstart"):
        load_spec("quikstart")
    with pytest.raises(SpecError, match="is a folder"):
        load_spec(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(SpecError, match="not UTF-8"):
        load_spec(tmp_path / "x.yaml")


def sweep_of(tmp_path: Path, text: str, *settings: str) -> Sweep:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_sweep(path, settings)


def test_a_sweep_has_a_pipeline_for_each_value(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, f"{MODELS}refine: {{estimator: pca}}\nsweep: {{refine.pairs: [5, 10, null]}}\n")
    assert (sweep.name, sweep.keys) == ("my", ("refine.pairs",))
    assert [point.values for point in sweep.points] == [{"refine.pairs": n} for n in (5, 10, None)]
    assert [point.spec.refine.pairs for point in sweep.points] == [5, 10, None]
    assert {point.spec.refine.estimator for point in sweep.points} == {"pca"}
    assert [point.spec.name for point in sweep.points] == ["my.pairs-5", "my.pairs-10", "my.pairs-null"]
    assert [point.label for point in sweep.points] == ["refine.pairs=5", "refine.pairs=10", "refine.pairs=null"]
    assert "sweep" not in sweep.points[0].spec.canonical()


def test_a_sweep_over_models_needs_none_beside_it_and_two_keys_make_a_grid(tmp_path: Path) -> None:
    text = "target: org/b\nsweep:\n  source: [org/a@one, ./here]\n  preset: [paper, strict]\n"
    sweep = sweep_of(tmp_path, text)
    here = str((tmp_path / "here").resolve())
    assert [(p.spec.source, p.spec.validate_.select) for p in sweep.points] == [
        ("org/a@one", "effect"),
        ("org/a@one", "kl"),
        (here, "effect"),
        (here, "kl"),
    ]
    assert [p.spec.name for p in sweep.points][::3] == ["my.source-a-one.preset-paper", "my.source-here.preset-strict"]
    assert sweep.axes["source"] == ["org/a@one", here]
    assert "select" not in sweep.spec["validate"]
    assert sweep.spec["seed"] == 0


def test_names_of_points_stay_short_and_safe(tmp_path: Path) -> None:
    text = f"name: {'n' * 95}\n{MODELS}sweep: {{concepts: [[emotion/anger], [./a b.yaml, civility]]}}\n"
    assert {len(point.spec.name) for point in sweep_of(tmp_path, text).points} == {100}
    sweep = sweep_of(tmp_path, text, "name=x")
    assert [point.spec.name for point in sweep.points] == ["x.concepts-anger", "x.concepts-a-b.yaml-civility"]
    assert sweep.points[1].spec.concepts == [str((tmp_path / "a b.yaml").resolve()), "civility"]


def test_settings_change_a_sweep(tmp_path: Path) -> None:
    text = f"{MODELS}sweep: {{refine.pairs: [5, 10], seed: [0, 1]}}\n"
    assert sweep_of(tmp_path, text, "sweep.refine.pairs=[7]").axes == {"refine.pairs": [7], "seed": [0, 1]}
    assert sweep_of(tmp_path, text, "sweep={seed: [4, 5]}").axes == {"seed": [4, 5]}
    one = sweep_of(tmp_path, text, "refine.pairs=8")
    assert (one.axes, {p.spec.refine.pairs for p in one.points}) == ({"seed": [0, 1]}, {8})
    assert sweep_of(tmp_path, text, "refine={pairs: 9}").keys == ("seed",)
    assert load_spec(tmp_path / "my.yaml", ["sweep=null"]).refine.pairs is None
    assert load_spec(tmp_path / "my.yaml", ["refine.pairs=8", "seed=3"]).seed == 3
    assert sweep_of(tmp_path, MODELS, "sweep.seed=[1, 2]").points[1].spec.seed == 2
    with pytest.raises(
        SpecError, match=r"sweeps over refine\.pairs and seed; read it with load_sweep, or set sweep=nul"
    ):
        load_spec(tmp_path / "my.yaml", ["sweep={refine.pairs: [5], seed: [1]}"])


SWEEP_MISTAKES = [
    ("sweep: [5]", 3, "sweep must be a mapping of keys to lists of values, not a list."),
    ("sweep:\n  refine.pears: [5]", 4, "there is no key refine.pears; did you mean refine.pairs?"),
    ("sweep:\n  pairs: [5]", 4, "there is no key pairs; did you mean refine.pairs?"),
    ("sweep:\n  refine: [5]", 4, "refine has keys of its own; sweep over one of them, such as refine.estimator."),
    ("sweep:\n  refine:\n    pairs: [5]", 4, "refine has keys of its own"),
    ("sweep:\n  name: [a, b]", 4, "name cannot be swept; every point is called after its values."),
    ("sweep:\n  sweep: [a, b]", 4, "sweep cannot be swept; name the keys of the spec that change."),
    ("sweep:\n  seed: 5", 4, "sweep.seed must be a list of values, not 5."),
    ("sweep:\n  seed: []", 4, "sweep.seed must not be empty"),
    ("sweep:\n  seed: [1, 2, 1]", 4, "sweep.seed names 1 twice; keep it once."),
    ("sweep:\n  refine.pairs: [null, null]", 4, "sweep.refine.pairs names empty twice; keep it once."),
    ("sweep:\n  seed:\n    - 1\n    - x", 6, "seed must be a whole number, not 'x'."),
    ("sweep:\n  refine.pairs:\n    - 5\n    - 1", 6, "refine.pairs must be at least 2, not 1."),
    ("sweep:\n  corpus.wrapped: [0]\n  corpus.spread: [0]\ncorpus: {truncated: 0, mixes: []}", 5, "corpus has no rows"),
    ("sweep: {seed: [1], refine.pairs: [5], map.held_out: [0.1]}", 3, "sweep has 3 keys; take at most 2"),
    ("swep: {seed: [1]}", 3, "there is no key swep; did you mean sweep?"),
    ("sweep: {seed: [1]}\nmap: {estimator: rigde}", 4, "map.estimator cannot be 'rigde'; did you mean ridge?"),
    ("sweep: {seed: [1]}\nname: a b", 4, "name cannot be 'a b."),
]


@pytest.mark.parametrize(("text", "line", "sentence"), SWEEP_MISTAKES)
def test_a_mistake_in_a_sweep_names_line_key_and_fix(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        sweep_of(tmp_path, MODELS + text)
    assert str(raised.value).startswith(f"{tmp_path / 'my.yaml'}, line {line}: ")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("sweep.refine.pears=[5]", "did you mean refine.pairs?"),
        ("sweep.seed=[a]", "seed must be a whole number, not 'a'."),
        ("sweep=5", "sweep must be a mapping"),
    ],
)
def test_a_wrong_sweep_on_the_command_line_is_named(tmp_path: Path, setting: str, sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        sweep_of(tmp_path, MODELS, setting)
    assert str(raised.value).startswith(f"--set {setting}: ")
    assert sentence in str(raised.value)


def test_shipped_specs_are_short_commented_and_whole() -> None:
    for name, path in shipped_specs().items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 40 or name == "quickstart", name
        assert text.startswith("# "), name
        sweep = load_sweep(name)
        assert sweep.name == name
        assert sweep.points[0].spec.preset == yaml.safe_load(text)["preset"]

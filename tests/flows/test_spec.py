"""Reading specs: defaults, settings, and each mistake as one sentence with its place."""

import typing
from pathlib import Path

import pytest
import yaml

from contrans.concepts.estimators import ESTIMATORS
from contrans.errors import SpecError
from contrans.maps.estimators import MAP_ESTIMATORS
from contrans.states.precision import PRECISIONS
from contrans.validation.arms import ARMS
from flows.spec import Compute, MapSettings, PipelineSpec, Refine, load_spec, shipped_specs
from flows.spec.model import Arm
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
    assert (strict.validate_.select, strict.validate_.kl_budget, strict.validate_.random_draws) == ("kl", 0.3, 99)
    assert set(strict.validate_.arms) == set(ARMS)
    assert strict.blocks.source == "auto"
    for name in PRESETS:
        assert read(tmp_path, MODELS, f"preset={name}").preset == name
    assert PipelineSpec.model_validate(strict.canonical()) == strict


def test_choices_are_those_of_the_library() -> None:
    def choices(part: type, key: str) -> set[str]:
        return set(typing.get_args(part.model_fields[key].annotation))  # type: ignore[attr-defined]

    assert set(typing.get_args(Arm)) == set(ARMS)
    assert choices(MapSettings, "estimator") == set(MAP_ESTIMATORS)
    assert choices(Refine, "estimator") == set(ESTIMATORS)
    assert choices(Compute, "precision") == set(PRECISIONS)


def test_canonical_reads_back_and_hash_tells_specs_apart(tmp_path: Path) -> None:
    spec = read(tmp_path, MODELS)
    assert spec.name == "my"
    assert PipelineSpec.model_validate(spec.canonical()) == spec
    assert spec.hash == read(tmp_path, "target: org/b\nsource: org/a\nseed: 0\n").hash
    assert spec.hash != read(tmp_path, MODELS, "seed=1").hash


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
    ("compute: {device: gpu}", 3, "compute.device cannot be 'gpu'; use auto, cpu, mps, cuda or cuda:N."),
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

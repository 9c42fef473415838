"""The texts of a spec are read once for all that name the same ones, and again when a file has changed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from contrans.errors import SpecError
from contrans.validation.arms import Directions
from contrans.validation.comparison import validate
from contrans.validation.fluency import FluencyMeter
from flows import texts
from flows.judging import items, protocol
from flows.spec import PipelineSpec, load_spec
from flows.steps import build_steps
from flows.study import Study, study
from flows.texts import read_texts
from tests.tiny import tiny


@dataclass(frozen=True)
class Facts:
    name: str
    fingerprint: str
    n_blocks: int = 4
    family: str = "llama"


@pytest.fixture
def folder(spec_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(spec_path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[PipelineSpec]:
    """The specs whose texts were read from their files."""
    found: list[PipelineSpec] = []
    whole = texts._read
    monkeypatch.setattr(texts, "_read", lambda spec: found.append(spec) or whole(spec))
    monkeypatch.setattr(texts, "_KNOWN", {})
    return found


def of(spec: PipelineSpec, target: str = "t") -> Study:
    return study(spec, Facts("source", "s"), Facts("target", target))


def test_cells_with_the_same_texts_read_them_once(folder: Path, reads: list[PipelineSpec]) -> None:
    spec = load_spec(folder / "tiny.yaml")
    for number in range(20):
        build_steps(load_spec(folder / "tiny.yaml", [f"seed={number}"]), Facts("s", "s"), Facts("t", str(number)))
    assert len(reads) == 1
    one, other = of(spec), of(spec, "other")
    assert one.texts is other.texts
    assert one.refine_prompts() == other.refine_prompts()
    assert one.refined_from(one.contrasts[0]) is other.refined_from(other.contrasts[0])


@pytest.mark.parametrize(
    "setting", ["corpus.wrapped=30", "validate.generic_texts=5", "concepts=[civility]", "validate.protocol=emotion"]
)
def test_other_texts_are_others(folder: Path, reads: list[PipelineSpec], setting: str) -> None:
    read_texts(load_spec(folder / "tiny.yaml"))
    read_texts(load_spec(folder / "tiny.yaml", [setting]))
    assert len(reads) == (1 if "protocol" in setting else 2)


def test_what_hangs_on_the_number_of_pairs_is_kept_apart(folder: Path, reads: list[PipelineSpec]) -> None:
    few, all_of_them = (of(load_spec(folder / "tiny.yaml", [f"refine.pairs={n}"])) for n in (3, "null"))
    assert len(reads) == 1
    assert len(few.refine_prompts()) < len(all_of_them.refine_prompts())
    assert len(few.refined_from(few.contrasts[0]).positives) == 3
    assert len(few.refine_answers()) == len(few.refine_prompts())


@pytest.mark.parametrize("file", ["passages.txt", "moods/calm.yaml", "moods/new.yaml"])
def test_a_changed_file_is_read_again(folder: Path, reads: list[PipelineSpec], file: str) -> None:
    spec = load_spec(folder / "tiny.yaml")
    before = read_texts(spec)
    path = folder / file
    source = path if path.exists() else folder / "moods" / "calm.yaml"
    path.write_text(source.read_text().replace("lake", "long lake").replace("number", "the number") + "\n")
    if file == "moods/new.yaml":
        path.write_text(path.read_text().replace("moods/calm", "moods/new").replace("label: calm", "label: new"))
    after = read_texts(spec)
    assert len(reads) == 2
    assert after is not before


def test_few_are_kept(folder: Path, reads: list[PipelineSpec]) -> None:
    specs = [load_spec(folder / "tiny.yaml", [f"corpus.wrapped={20 + n}"]) for n in range(texts._MOST + 1)]
    for spec in (*specs, specs[-1], specs[0]):
        read_texts(spec)
    assert len(texts._KNOWN) == texts._MOST
    assert reads == [*specs, specs[0]]


@pytest.fixture
def of_two(folder: Path) -> Path:
    """A spec of a family that has two sets, and one more set about the first one's label."""
    (folder / "moods" / "doubt.yaml").unlink()
    calm = (folder / "moods" / "calm.yaml").read_text()
    (folder / "still.yaml").write_text(
        calm.replace("calm", "still").replace("label: still", "label: calm").replace("lake", "pond")
    )
    spec = yaml.safe_load((folder / "tiny.yaml").read_text())
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(spec | {"concepts": ["./moods/hurry.yaml", "./moods/calm.yaml"]}))
    return path


def test_a_family_of_two_is_scored_like_any_other(of_two: Path) -> None:
    asked = of(load_spec(of_two))
    assert [c.concept for c in asked.contrasts] == ["hurry", "calm"]
    assert [(c.concept, c.label) for c in asked.family] == [("calm", "calm"), ("hurry", "hurry")]
    model = tiny("llama", max_position_embeddings=2048)
    scored = protocol(asked, model, "test", 2, "float32")
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))
    by = {"hurry": shift, "calm": -shift}
    meter = FluencyMeter(model, 2, asked.generic.texts)
    arms = ["unsteered", "transplanted", "wrong_concept"]
    doses = dict.fromkeys(arms[1:], 0.5)
    rows, _ = validate(scored, Directions({"transplanted": by}, 2.0, 0), meter, arms=arms, doses=doses, random_draws=2)
    assert {row.concept for row in rows} == {"all", "hurry", "calm"}
    # with two concepts the wrong one is the other
    effect = {(r.arm, r.concept): r.value for r in rows if r.metric == "logit_accuracy"}
    assert 0 <= effect["wrong_concept", "hurry"] <= 1


def test_one_concept_of_two_is_scored_against_its_opposite(of_two: Path) -> None:
    spec = yaml.safe_load(of_two.read_text())
    of_two.write_text(yaml.safe_dump(spec | {"concepts": ["./moods/hurry.yaml"]}))
    asked = of(load_spec(of_two))
    assert [(c.concept, c.label) for c in asked.family] == [("hurry", "hurry"), ("opposite of hurry", "calm")]


def test_a_concept_that_the_registry_could_not_name_is_refused_before_any_work(of_two: Path) -> None:
    calm = of_two.parent / "moods" / "calm.yaml"
    calm.write_text(calm.read_text().replace("concept: calm", "concept: calm sea"))
    with pytest.raises(SpecError, match=r"'calm sea' is not a valid concept: .* Mend `concept:` in .*calm"):
        of(load_spec(of_two))


def test_two_sets_about_one_label_are_refused(of_two: Path) -> None:
    spec = yaml.safe_load(of_two.read_text())
    shutil.move(of_two.parent / "still.yaml", of_two.parent / "moods" / "still.yaml")
    of_two.write_text(yaml.safe_dump(spec | {"concepts": ["./moods/calm.yaml", "./moods/still.yaml"]}))
    with pytest.raises(SpecError, match=r"same pair of labels, calm and hurry.*name one of them"):
        of(load_spec(of_two))


def test_a_pair_takes_three_times_as_many_dev_texts(of_two: Path, spec_path: Path) -> None:
    settings = ["validate.dev_per_label=1", "validate.test_per_label=1"]
    n_texts = {
        (path.stem, split): len(items(of(load_spec(path, settings)), split).texts)
        for path in (of_two, spec_path)
        for split in ("dev", "test")
    }
    assert n_texts == {("two", "dev"): 6, ("two", "test"): 2, ("tiny", "dev"): 3, ("tiny", "test"): 3}

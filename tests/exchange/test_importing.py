"""From another tool's directions to a version of the registry that is mapped, judged and published like ours."""

import json
from pathlib import Path

import pytest
import torch

from contrans.concepts import ConceptVector, contrast_set, refine
from contrans.concepts.contrast import family_of
from contrans.errors import ArtifactError, BlockError, RegistryError, SpecError, TextError
from contrans.exchange import FORMATS, Foreign, Shift, concept_vector_of, write_content
from contrans.maps import corpus, fit_map
from contrans.transplants import transplant
from contrans.validation.arms import Directions
from contrans.validation.comparison import validate
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.fluency import FluencyMeter
from registry import Registry, Result
from registry.hub.bundle import bundle
from registry.imported import import_vector
from tests.exchange.made import directions, gguf_file
from tests.texts import write_family
from tests.tiny import tiny

TEXTS = ["the cat sat there with their mother", "one stone alone", "they think of the weather", "lemons come from Rome"]


@pytest.fixture
def registry(tmp_path):
    with Registry.open(tmp_path / "registry.db") as opened:
        yield opened


def exported(model, folder: Path, name: str = "repeng") -> Path:
    made = Shift("anger", model.record, directions(1, 2, width=model.hidden_size), 0.3)
    return write_content(folder / f"anger{FORMATS[name].suffix}", FORMATS[name].write(made))


def test_scales_are_those_of_refining():
    model, anger = tiny("llama"), contrast_set("emotion/anger")
    ours = refine(model, anger, blocks=[1, 2])
    found = Foreign(dict(ours.directions), "llama", {"method": "mean"})
    made = concept_vector_of(found, model, concept="anger", measured_on=anger, origin={"format": "repeng"})
    assert made.model == ours.model
    assert made.template == ours.template
    for block in (1, 2):
        assert torch.equal(made.directions[block], ours.directions[block])
        assert made.spread[block] == pytest.approx(ours.spread[block], rel=1e-6)
        assert made.residual_norm[block] == pytest.approx(ours.residual_norm[block], rel=1e-6)
        assert made.diagnostics[block]["auc"] > 0.5
    assert made.provenance["imported"] == {"format": "repeng", "says": {"method": "mean"}}
    assert made.best_block() in (1, 2)


def test_plain_texts_do_and_the_wire_format_holds_it():
    model = tiny("gpt2")
    found = Foreign(directions(1, width=model.hidden_size))
    made = concept_vector_of(found, model, concept="calm", measured_on=TEXTS)
    again = ConceptVector.from_files(made.to_files())
    assert again.provenance == made.provenance
    assert made.provenance["scales_measured_on"] == {"n_texts": 4}
    length = made.provenance["length_in_residual_norms"]["1"]
    assert length == pytest.approx(float(found.directions[1].norm()) / made.residual_norm[1])
    # a dose of that length is the file's own shift
    torch.testing.assert_close(transplant(model, made, dose=length).shifts[1], found.directions[1])
    with pytest.raises(TextError, match="1 texts are too few"):
        concept_vector_of(found, model, concept="calm", measured_on=TEXTS[:1])


@pytest.mark.parametrize("name", ["gguf", "repeng", "easysteer", "steering-vectors", "easyedit2", "safetensors"])
def test_registered_with_its_origin(name, registry, tmp_path):
    model = tiny("llama")
    path = exported(model, tmp_path, name)
    done = import_vector(registry, path, format=name, model=model, concept="anger", measured_on=TEXTS)
    assert (done.version.kind, done.version.name) == ("vector", f"anger/tiny-llama-0/{name}")
    origin = done.version.manifest["origin"]
    assert (origin["format"], origin["tool"], origin["file"]) == (name, FORMATS[name].tool, path.name)
    assert len(origin["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(done.as_json())
    loaded = ConceptVector.from_files({n: registry.read(done.version, n) for n in registry.files(done.version)})
    due = directions(1, 2, width=model.hidden_size)
    assert loaded.directions.keys() == due.keys()
    assert all(torch.equal(loaded.directions[b], due[b]) for b in due)
    [(role, parent)] = registry.lineage(done.version, "up", depth=1).parents(done.version)
    assert (role, parent.name) == ("model", "tiny-llama-0")
    # the same file again is the same version, and another is the next one
    again = import_vector(registry, path, format=name, model=model, concept="anger", measured_on=TEXTS)
    assert again.version == done.version
    only = import_vector(registry, path, format=name, model=model, concept="anger", measured_on=TEXTS, blocks=[2])
    assert (only.version.number, only.vector.blocks) == (2, [2])


def test_it_is_mapped_judged_and_published_like_ours(registry, tmp_path):
    """Through a fitted map into another model, scored there by our arms, and packed for the Hub without `force`."""
    source, target = tiny("llama"), tiny("llama", seed=1, max_position_embeddings=2048)
    family = family_of(write_family(tmp_path / "mood")[0])
    concepts = [c.concept for c in family]
    done, files = {}, FORMATS["repeng"]
    for i, concept in enumerate(concepts):
        made = Shift(concept, source.record, directions(2, width=source.hidden_size, seed=i), 0.3)
        path = write_content(tmp_path / f"{i}.gguf", files.write(made))
        done[concept] = import_vector(registry, path, format="repeng", model=source, concept=concept, measured_on=TEXTS)
    across = fit_map(source, target, corpus("passages").take(40), source_blocks=[2], target_blocks=[1])
    mapped = {c: across.map_direction(done[c].vector) for c in concepts}
    own = {c.concept: refine(target, c, blocks=[1]) for c in family}
    arms = {"transplanted": mapped, "own": own}
    shifts = {arm: {c: v.direction(1) for c, v in of.items()} for arm, of in arms.items()}
    scored = [*arms, "random", "wrong_concept", "opposite"]
    rows, summary = validate(
        EmotionProtocol(target, family, block=1, split="test", per_label=2),
        Directions(shifts, own[concepts[0]].residual_norm[1]),
        FluencyMeter(target, 1, TEXTS),
        arms=["unsteered", *scored],
        doses=dict.fromkeys(scored, 0.5),
        random_draws=2,
    )
    assert summary.keys() >= {"unsteered", *scored}

    [concept, *_] = concepts
    assert mapped[concept].provenance["refined"]["imported"]["tool"] == "repeng"
    model = registry.register("model", target.name, manifest=target.record.to_json())
    there = registry.register(
        "transplant",
        f"{concept}/there",
        manifest={"concept": concept, "block": 1, "dose": 0.5},
        files=mapped[concept].to_files(),
        inputs={"vector": done[concept].version, "target": model},
    )
    with pytest.raises(RegistryError, match="has no validation"):
        bundle(registry, there.name)
    registry.register(
        "validation",
        f"{concept}/there/emotion",
        manifest={"protocol": "emotion", "split": "test", "concept": concept},
        inputs={"transplant": there},
        results=[Result(**row.to_json()) for row in rows if row.concept in (concept, "all")],
    )
    packed = bundle(registry, there.name)
    assert packed.manifest.source.registered.ref == done[concept].version.ref
    assert packed.manifest.source.provenance["imported"]["sha256"] == done[concept].origin["sha256"]
    [check] = packed.manifest.validations
    assert {row.arm for row in check.results} >= {"unsteered", *scored}


def test_what_does_not_fit(registry, tmp_path):
    model = tiny("llama")
    path = exported(model, tmp_path)

    def brought(place=path, **changes):
        settings = {"format": "repeng", "model": model, "concept": "anger", "measured_on": TEXTS} | changes
        return import_vector(registry, place, **settings)

    with pytest.raises(SpecError, match="No format to import is called 'lm-eval'"):
        brought(format="lm-eval")
    with pytest.raises(ArtifactError, match=r"anger\.gguf says that it was made for a 'llama' model"):
        brought(model=tiny("gpt2"))
    assert brought(model=tiny("gpt2"), allow_mismatch=True).version.name == "anger/tiny-gpt2-0/repeng"
    with pytest.raises(ArtifactError, match="directions of 32 values, and the hidden states of tiny-llama-0 have 64"):
        brought(model=tiny("llama", hidden_size=64))
    with pytest.raises(BlockError, match="no direction for block 3"):
        brought(blocks=[3])
    with pytest.raises(ArtifactError, match="does not exist"):
        brought("no/such/file.gguf")
    with pytest.raises(RegistryError, match="say which of its files with --file"):
        brought("org/repo")
    with pytest.raises(RegistryError, match="no path in a repository"):
        brought("org/repo", file="../x.gguf")
    with pytest.raises(RegistryError, match="not a valid concept"):
        brought(concept="a b\n")
    bad = tmp_path / "bad.gguf"
    gguf_file(bad, {"direction.1": directions(1, width=32)[1].numpy() * float("nan")}, hint="llama")
    with pytest.raises(ArtifactError, match="not finite"):
        brought(bad)
    plain = exported(model, tmp_path, "safetensors")
    with pytest.raises(ArtifactError, match="made for other weights than those of tiny-llama-1"):
        brought(plain, format="safetensors", model=tiny("llama", seed=1))
    assert [v.name for v in registry.list("vector")] == ["anger/tiny-gpt2-0/repeng"]

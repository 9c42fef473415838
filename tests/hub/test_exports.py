"""`exports/` of a published concept: other tools' formats, the dose folded in, hashed and told on the card."""

import torch

from contrans.exchange import FORMATS, parse_foreign
from contrans.transplants.apply import shift_of
from registry import Registry
from registry.hub.bundle import bundle
from registry.hub.card import render
from registry.hub.manifest import MANIFEST
from tests.hub.concepts import OTHER, SOURCE, TARGET, Made

NAME = f"anger/{SOURCE.name}/{TARGET.name}"
FILES = {
    "control-vector.gguf": "repeng",
    "steering-vectors.safetensors": "steering-vectors",
    "shift.safetensors": "safetensors",
}


def test_the_same_shift_in_every_format(registry: Registry, made: Made) -> None:
    packed = bundle(registry, NAME, targets=["all"])
    for model, record in ((TARGET.name, TARGET), (OTHER.name, OTHER)):
        due = shift_of(made.transplants[model], 0.2, 2)
        folder = f"exports/{model}"
        for name, form in FILES.items():
            found = parse_foreign(packed.files[f"{folder}/{name}"], form, what=name)
            assert found.directions.keys() == {2}
            assert torch.equal(found.directions[2], due)
            assert found.hint == record.family
        parts = {
            name.removeprefix(f"{folder}/easyedit2/"): data
            for name, data in packed.files.items()
            if name.startswith(f"{folder}/easyedit2/")
        }
        assert torch.equal(parse_foreign(parts, "easyedit2", what="x").directions[2], due)
        assert f"{folder}/lm-eval.pt" in packed.files
    assert packed.files.keys() - packed.manifest.files.keys() == {MANIFEST}
    # what is published of a model in a folder of one's own names no folder
    assert not any(b"/home/ann" in data for data in packed.files.values())
    again = bundle(registry, NAME, targets=["all"])
    assert again.files == packed.files


def test_the_card_says_how_each_is_used(registry: Registry, made: Made) -> None:
    packed = bundle(registry, NAME)
    card = render(packed.manifest, "org/concept-anger")
    for path in packed.manifest.files:
        if path.startswith("exports/") and not path.endswith(".yaml"):
            assert f"- `{path}` – " in card
    assert f"--control-vector exports/{TARGET.name}/control-vector.gguf" in card


def test_no_dose_no_exports(registry: Registry, made: Made) -> None:
    known = made.versions[TARGET.name]
    registry.register(
        "transplant",
        "anger/undosed",
        manifest={"concept": "anger", "block": 2},
        files={name: registry.read(known, name) for name in registry.files(known)},
        inputs=dict(registry.lineage(known, "up", depth=1).parents(known)),
    )
    packed = bundle(registry, "anger/undosed", force=True)
    assert not any(path.startswith("exports/") for path in packed.files)
    assert "Without contrans" not in render(packed.manifest, "org/x")


def test_every_format_of_the_folder_is_one_that_is_known() -> None:
    assert set(FILES.values()) <= FORMATS.keys()

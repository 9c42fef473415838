"""`exports/` of a published concept: each transplant in the formats of other tools, its dose folded in."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from contrans.errors import ModelError
from registry.hub.manifest import Manifest, VectorEntry

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector
    from contrans.exchange import Shift

FOLDER = "exports"
_FILES = {
    "control-vector.gguf": "repeng",
    "lm-eval.pt": "lm-eval",
    "steering-vectors.safetensors": "steering-vectors",
    "easyedit2": "easyedit2",
    "shift.safetensors": "safetensors",
}


def exports_of(entry: VectorEntry, vector: "ConceptVector") -> dict[str, bytes]:
    """The files of one transplant, by their paths in the repository.

    Args:
        entry: what is published of it, without places on this disk.
        vector: the transplant.

    Returns:
        Nothing for a transplant without a dose, or with several blocks of which none is named. The file for lm-eval is
        left out where transformers does not say where this kind of model keeps its blocks.
    """
    from contrans.exchange import FORMATS

    shift = _shift(entry, vector)
    found: dict[str, bytes] = {}
    for name, form in _FILES.items() if shift is not None else ():
        assert shift is not None
        try:
            content = FORMATS[form].write(shift)
        except ModelError:
            continue
        parts = {"": content} if isinstance(content, bytes) else {f"/{key}": data for key, data in content.items()}
        found |= {f"{FOLDER}/{entry.model.name}/{name}{key}": data for key, data in parts.items()}
    return found


def lines(manifest: Manifest) -> Iterator[str]:
    """What the card says of the files: a line for each on how its tool uses it."""
    for entry in manifest.transplants:
        folder = f"{FOLDER}/{entry.model.name}"
        at = entry.block if entry.block is not None else next(iter(entry.blocks))
        gguf, layer = f"{folder}/control-vector.gguf", f"{folder}/easyedit2/layer_{at}.pt"
        told = {
            gguf: (
                f"llama.cpp: `llama-cli -m MODEL.gguf --control-vector {gguf}`; repeng: "
                f'`ControlModel(model, [{at}]).set_control(ControlVector.import_gguf("{gguf}"))`; EasySteer: '
                f'`VectorSpec(source="{gguf}", layers=[{at}], apply=ApplySpec(phases=["prompt", "generation"]))`'
            ),
            f"{folder}/lm-eval.pt": (
                "lm-evaluation-harness: `lm_eval --model steered --model_args "
                f"pretrained=MODEL,steer_path={folder}/lm-eval.pt`"
            ),
            f"{folder}/steering-vectors.safetensors": (
                f'steering-vectors: `SteeringVector({{{at}: load_file(PATH)["layer_activations.{at}"]}}).apply(model)`'
            ),
            layer: f"EasyEdit2: CAA with `layers: [{at}]`, `multipliers: [1.0]`, `steer_vector_load_dir` this folder",
            f"{folder}/shift.safetensors": (
                f'anything else: add `load_file(PATH)["block.{at}"]` to the output of block {at}'
            ),
        }
        if at in (0, "0"):
            told[gguf] = told[gguf].partition("; ")[2]  # llama.cpp's control vectors begin at block 1
        yield from (f"- `{path}` – {line}" for path, line in told.items() if path in manifest.files)


def _shift(entry: VectorEntry, vector: "ConceptVector") -> "Shift | None":
    from dataclasses import replace

    from contrans.exchange import exported_shift

    if not entry.dose or (entry.block is None and len(entry.blocks) > 1):
        return None
    shift = exported_shift(vector, dose=entry.dose, block=entry.block, origin=entry.registered.ref)
    return replace(shift, model=entry.model.record())

"""A folder that transformers' own `generate` runs: `custom_generate/generate.py`, which carries the shift in itself.

`model.generate(..., custom_generate=FOLDER, trust_remote_code=True)` loads that one file by itself, from a folder or a
repository of the Hub, so the numbers stand in it, and it needs nothing but torch. This is code, which is why
transformers asks for `trust_remote_code`, and why published repositories of concepts hold none.
"""

import base64
import json

from contrans.exchange.lm_eval import hookpoint_stem
from contrans.exchange.shift import Shift

PROGRAM = "custom_generate/generate.py"

_TEMPLATE = '''"""__DESCRIBED__

`model.generate(..., custom_generate=FOLDER, trust_remote_code=True)` adds a constant to the output of blocks of the
model, at every token, with whatever else `generate` can do: sampling, beams, batches, streamers, chat.
"""

import base64

import torch

FAMILY = __FAMILY__
BLOCKS = __BLOCKS__
WIDTH = __WIDTH__
# per block, counted from 0: float32, little-endian
SHIFTS = {
__SHIFTS__
}


def generate(model, **settings):
    """What `model.generate(**settings)` gives while the shifts are added; the model is left as it was."""
    family, width = model.config.model_type, model.config.get_text_config(decoder=True).hidden_size
    if (family, width) != (FAMILY, WIDTH):
        raise ValueError(
            f"This was made for a {FAMILY} model of width {WIDTH}, and this is a {family} model of width {width}."
        )
    blocks = model.base_model.get_submodule(BLOCKS)
    handles = [blocks[number].register_forward_hook(_adding(text)) for number, text in SHIFTS.items()]
    try:
        return model.generate(**settings)
    finally:
        for handle in handles:
            handle.remove()


def _adding(text):
    shift = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32)

    def hook(_module, _arguments, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        moved = (hidden.float() + shift.to(hidden.device)).to(hidden.dtype)
        return moved if isinstance(output, torch.Tensor) else (moved, *output[1:])

    return hook
'''


def write_custom_generate(shift: Shift) -> dict[str, bytes]:
    """The folder's one file.

    Raises:
        ModelError: where transformers keeps the blocks of this kind of model cannot be told.
    """
    numbers = {b: t.detach().cpu().float().numpy().astype("<f4").tobytes() for b, t in sorted(shift.blocks.items())}
    rows = (f"    {block}: {json.dumps(base64.b64encode(raw).decode())}," for block, raw in numbers.items())
    filled = {
        # a name somebody chose must not end the text that it stands in
        "__DESCRIBED__": shift.described.replace("\\", "/").replace('"', "'"),
        "__FAMILY__": json.dumps(shift.model.family),
        "__BLOCKS__": json.dumps(hookpoint_stem(shift.model.family)),
        "__WIDTH__": str(shift.model.hidden_size),
        "__SHIFTS__": "\n".join(rows),
    }
    text = _TEMPLATE
    for name, value in filled.items():
        text = text.replace(name, value)
    return {PROGRAM: text.encode()}

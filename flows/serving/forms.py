"""The parameters of the flows, checked before a run; a form shows them with what the flows' docstrings say of them."""

from typing import Annotated, Any

from pydantic import Field

from contrans.errors import SpecError
from flows.spec import PipelineSpec
from flows.spec.reading import load_spec

Spec = str | dict[str, Any]
Settings = list[Annotated[str, Field(pattern=r"^[^=\s]+\s*=")]]
Specs = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Transplant = Annotated[str, Field(min_length=1)]
Night = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Repository = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
Days = Annotated[float, Field(gt=0, le=90)]


def read(spec: str | dict[str, Any], settings: list[str]) -> PipelineSpec:
    """The spec that a form asks for.

    Args:
        spec: Name or path of a spec, or the whole of one as plain JSON.
        settings: "key=value" each, over those of a file.

    Raises:
        SpecError: It is not valid.
    """
    if isinstance(spec, str):
        return load_spec(spec, settings)
    if settings:
        raise SpecError("Settings change a spec that is a file; write them into the spec itself, or name its file.")
    from pydantic import ValidationError

    from flows.spec.presets import with_preset
    from flows.spec.sentences import Place, sentence

    try:
        return PipelineSpec.model_validate(with_preset(spec))
    except ValidationError as error:
        raise SpecError(sentence(error, {}, Place("the spec"))) from error

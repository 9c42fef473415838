"""Values that a spec may hold, and what is refused of each."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from contrans.errors import ContransError

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


def _depth_or_block(value: Any) -> Any:
    # A union of types would report the failure of each; one sentence says more.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a block number such as 14 or a relative depth such as 0.9")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise ValueError("must lie between 0.0 and 1.0 as a depth; write a block number without a point")
    if value < 0:
        raise ValueError("must not be negative; blocks count from 0")
    return value


def distinct(values: list[Any]) -> list[Any]:
    """Refuses a list that names something twice."""
    twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
    if twice is not None:
        raise ValueError(f"names {twice} twice; keep it once")
    return values


def _possible_dose(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError("must be a number above 0")
    return value


def _one_or_many(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, list):
        if not value:
            raise ValueError("is an empty list; name blocks or depths, or auto")
        return [_depth_or_block(v) for v in value]
    return _depth_or_block(value)


def token_position(value: str) -> str:
    """Refuses what is no token position."""
    from contrans.concepts.positions import TokenPosition

    try:
        TokenPosition.parse(value)
    except ContransError as error:
        raise ValueError(f"is not understood: {error}") from error
    return value


_ONE_DEPTH = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "maximum": 1}]}
_DEPTHS = {"anyOf": [{"const": "auto"}, *_ONE_DEPTH["anyOf"], {"type": "array", "items": _ONE_DEPTH, "minItems": 1}]}
Depth = Annotated[Any, BeforeValidator(_one_or_many), WithJsonSchema(_DEPTHS)]
Dose = Annotated[float, AfterValidator(_possible_dose), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Doses = Annotated[list[Dose], Field(min_length=1), AfterValidator(distinct)]
Texts = Annotated[list[Text], AfterValidator(distinct)]


class Part(BaseModel):
    """A part of a spec: keys that are not known and values of another type are mistakes."""

    # Strict: YAML has types of its own, and "1600" for 1600 is a mistake that should be seen.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def canonical(self) -> dict[str, Any]:
        """The part as plain JSON with every default filled in."""
        return self.model_dump(mode="json", by_alias=True)

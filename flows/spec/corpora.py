"""Named corpora: settings under `corpora`, taken over by the spec whose `corpus.name` is their name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from contrans.errors import SpecError
from flows.spec.file import CORPORA
from flows.spec.parts import CorpusRows
from flows.spec.presets import with_preset
from flows.spec.sentences import Place, place_of, sentence, shown

SHIPPED = "passages"
_FILES = (".txt", ".jsonl")


def corpora_of(
    named: Any, preset: Any, places: Mapping[tuple[str, ...], Place], whole: Place
) -> dict[str, dict[str, Any]]:
    """Checks what stands under `corpora`.

    Args:
        named: the value of the key.
        preset: of the spec, whose rows stand where a corpus says nothing.
        places: where each key was written.
        whole: where the spec as a whole is.

    Returns:
        The settings of each corpus, by name.

    Raises:
        SpecError: it is no mapping of mappings, or a corpus has a setting that it cannot have.
    """
    if named is None:
        return {}
    if not isinstance(named, dict):
        where = place_of((CORPORA,), places, whole)
        raise SpecError(f"{where}: {CORPORA} must be a mapping of names to settings of a corpus, not {shown(named)}.")
    for name, settings in named.items():
        at = (CORPORA, str(name))
        if not isinstance(settings, dict):
            where = place_of(at, places, whole)
            raise SpecError(f"{where}: {'.'.join(at)} must be a mapping of keys to values, not {shown(settings)}.")
        try:
            CorpusRows.model_validate(with_preset({"preset": preset or "default", "corpus": settings})["corpus"])
        except ValidationError as error:
            raise SpecError(sentence(error, places, whole, at=at)) from error
    return {str(name): settings for name, settings in named.items()}


def with_corpus(
    values: dict[str, Any],
    corpora: Mapping[str, Mapping[str, Any]],
    places: Mapping[tuple[str, ...], Place],
    whole: Place,
) -> dict[str, Any]:
    """A spec's values with the settings of the corpus that it names; its own settings go over them.

    Raises:
        SpecError: there are named corpora, and the spec names none of them and no other either.
    """
    own = values.get("corpus")
    if not corpora or not isinstance(own, dict):
        return values
    name = own.get("name", SHIPPED)
    if name in corpora:
        return {**values, "corpus": {**corpora[name], **own, "name": corpora[name].get("name", SHIPPED)}}
    if isinstance(name, str) and name != SHIPPED and not name.endswith(_FILES):
        close = get_close_matches(name, corpora, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the corpora are {', '.join((*corpora, SHIPPED))}."
        raise SpecError(f"{place_of(('corpus', 'name'), places, whole)}: there is no corpus {name}; {hint}")
    return values

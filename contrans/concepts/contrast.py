"""Where contrast sets come from: the names they ship under, families, and YAML files of your own."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from contrans.concepts.examples import ContrastSet, Example, build
from contrans.errors import TextError
from contrans.rereading import read_once

__all__ = ["ContrastSet", "Example", "contrast_set", "contrast_set_names", "contrast_sets", "family_of"]


def _data_folder() -> Path:
    return Path(str(files("contrans.data"))) / "concepts"


@cache
def contrast_set_names() -> tuple[str, ...]:
    """Names of the contrast sets that ship with the package."""
    folder = _data_folder()
    return tuple(sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")))


@read_once
def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise TextError(
            f"The contrast set {path} cannot be read ({error.strerror}); check its path and your rights on it."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TextError(f"The contrast set {path} is not valid YAML: {error}.") from error
    if not isinstance(loaded, dict):
        raise TextError(f"The contrast set {path} must be a mapping with `name`, `template` and texts.")
    return loaded


def contrast_set(name: str | Path) -> ContrastSet:
    """A contrast set by the name it ships under, or from a YAML file of the same format.

    Args:
        name: such as "emotion/anger", or a path that ends in .yaml or .yml.

    Raises:
        TextError: no such set, or a file that is malformed, empty or one-sided.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
    elif text in contrast_set_names():
        path = _data_folder() / f"{text}.yaml"
    else:
        close = get_close_matches(text, contrast_set_names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(contrast_set_names())}."
        raise TextError(f"No contrast set is called {text!r}; {hint}")
    raw = _read(path)
    siblings: list[dict[str, Any]] = []
    if raw.get("kind") == "family":
        siblings = [_read(p) for p in sorted(path.parent.glob(f"*{path.suffix}"))]
        siblings = [s for s in siblings if s.get("family") == raw.get("family")]
    return build(raw, where=str(name), siblings=siblings)


def contrast_sets(patterns: Sequence[str]) -> list[ContrastSet]:
    """Contrast sets by names, where "emotion/*" stands for a whole family and "mine/*.yaml" for files; no doubles.

    Raises:
        TextError: a pattern matches nothing.
    """
    names: list[str] = []
    for pattern in patterns:
        if pattern.endswith("/*"):
            found = [n for n in contrast_set_names() if n.startswith(pattern[:-1])]
            if not found:
                raise TextError(f"No contrast set matches {pattern!r}; there are {', '.join(contrast_set_names())}.")
            names += found
        elif "*" in pattern and pattern.endswith((".yaml", ".yml")):
            folder, name = Path(pattern).parent, Path(pattern).name
            matches = sorted(str(path) for path in folder.glob(name))
            if not matches:
                raise TextError(f"No file matches {pattern!r}; check the folder.")
            names += matches
        else:
            names.append(pattern)
    return [contrast_set(name) for name in dict.fromkeys(names)]


def family_of(name: str | Path) -> list[ContrastSet]:
    """All contrast sets of the family that a set belongs to, itself included, in the order of their names.

    Raises:
        TextError: no such set, or it belongs to no family.
    """
    text = str(name)
    if "*" in text:
        return contrast_sets([text])
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        own = _read(path).get("family")
        found = [p for p in sorted(path.parent.glob(f"*{path.suffix}")) if own and _read(p).get("family") == own]
        sets = [contrast_set(p) for p in found]
    else:
        own = contrast_set(text)
        siblings = [n for n in contrast_set_names() if n.rpartition("/")[0] == text.rpartition("/")[0]]
        sets = [c for c in map(contrast_set, siblings) if c.labels == own.labels]
    if len(sets) < 2:
        raise TextError(f"The contrast set {text} belongs to no family; put `family:` in it and in its siblings.")
    return sets

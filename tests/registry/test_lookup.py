import pytest

from contrans.errors import RegistryError
from registry import Registry
from tests.registry.conftest import make_chain


@pytest.fixture
def filled(registry: Registry) -> Registry:
    make_chain(registry)
    make_chain(registry, note="again")
    registry.set_alias("transplant:anger/gemma-3@1", "production")
    return registry


REFERENCES = [
    ("anger/gemma-3", None, "transplant:anger/gemma-3@2"),
    ("anger/gemma-3@1", None, "transplant:anger/gemma-3@1"),
    ("anger/gemma-3@production", None, "transplant:anger/gemma-3@1"),
    ("transplant:anger/gemma-3@01", None, "transplant:anger/gemma-3@1"),
    ("anger/gemma-3", "transplant", "transplant:anger/gemma-3@2"),
    ("anger", None, "transplant:anger/gemma-3@2"),
    ("anger@production", None, "transplant:anger/gemma-3@1"),
    ("transplant:anger", "transplant", "transplant:anger/gemma-3@2"),
    ("model:gemma-3", None, "model:gemma-3@1"),
]


def test_references(filled: Registry) -> None:
    for reference, kind, found in REFERENCES:
        assert str(filled.get(reference, kind)) == found


HINTS = [
    ("angr", None, "no version named 'angr'; did you mean .*transplant:anger/gemma-3"),
    ("gema-3", "model", "no model named 'gema-3'; did you mean model:gemma-3"),
    ("Anger", None, "no version named 'Anger'; did you mean"),
    ("zzzzzz", None, "`contrans list` shows"),
    ("", None, "no version named ''"),
    ("@1", None, "no version named ''"),
    ("anger", "vector", "no vector named 'anger'; did you mean vector:anger/smollm2"),
    ("anger/gemma-3@3", None, "has versions 1 to 2, not 3"),
    ("anger/gemma-3@0", None, "has versions 1 to 2, not 0"),
    ("anger/gemma-3@" + "9" * 5000, None, "has versions 1 to 2, not 9"),
    ("gemma-3@2", None, "has only version 1, not 2"),
    ("anger/gemma-3@prod", None, "no alias 'prod'; its aliases are production"),
    ("gemma-3@prod", None, "no alias 'prod'; it has none"),
    ("anger/gemma-3@", None, "no alias ''"),
    ("tranplant:anger", None, "no kind 'tranplant'; the kinds are"),
    ("vector:anger", "map", "is a vector, but a map is wanted"),
    ("x\udc80", None, "broken Unicode"),
]


def test_what_is_not_there_gets_a_hint(filled: Registry) -> None:
    for reference, kind, message in HINTS:
        with pytest.raises(RegistryError, match=message):
            filled.get(reference, kind)


def test_ambiguous_names_list_the_candidates(filled: Registry) -> None:
    filled.register("text_set", "gemma-3", manifest={"hash": "h"})
    with pytest.raises(RegistryError, match="'gemma-3' can mean model:gemma-3, text_set:gemma-3; say which"):
        filled.get("gemma-3")
    filled.register("transplant", "anger/qwen", manifest={"concept": "anger"})
    with pytest.raises(RegistryError, match="can mean transplant:anger/gemma-3, transplant:anger/qwen"):
        filled.get("anger")
    filled.register("model", "anger", manifest={"reference": "a name in full goes before a short form"})
    assert str(filled.get("anger")) == "model:anger@1"


def test_short_form_takes_signs_literally(registry: Registry) -> None:
    registry.register("transplant", "a_c/m", manifest={"concept": "x"})
    registry.register("transplant", "abc/m", manifest={"concept": "x"})
    assert registry.get("a_c").name == "a_c/m"
    for other in ("a%", "A_C", "a"):
        with pytest.raises(RegistryError, match="no version named"):
            registry.get(other)


def test_list_filters(filled: Registry) -> None:
    def names(**filters) -> list[str]:
        return [str(version) for version in filled.list(**filters)]

    assert names()[0] == "validation:anger/gemma-3/emotion@2"
    assert len(names()) == 7 + 3
    assert names(kind="model") == ["model:gemma-3@1", "model:smollm2@1"]
    assert names(name="anger/smollm2") == ["vector:anger/smollm2@2", "vector:anger/smollm2@1"]
    assert names(concept="anger", newest=True) == [
        "validation:anger/gemma-3/emotion@2",
        "transplant:anger/gemma-3@2",
        "vector:anger/smollm2@2",
    ]
    assert names(model="org/SmolLM2", newest=True) == names(model="smollm2", newest=True)
    assert names(model="smollm2", newest=True) == [
        "vector:anger/smollm2@2",
        "map:smollm2/gemma-3@1",
        "model:smollm2@1",
    ]
    assert names(estimator="ridge") == ["map:smollm2/gemma-3@1"]
    assert names(alias="production") == ["transplant:anger/gemma-3@1"]
    assert names(concept="joy") == []
    with pytest.raises(RegistryError, match="no kind 'x'"):
        filled.list("x")
    with pytest.raises(RegistryError, match="limit of -1"):
        filled.list(limit=-1)


def test_list_in_pages(filled: Registry) -> None:
    pages, last = [], None
    while page := filled.list(limit=4, before=last):
        pages.append(page)
        last = page[-1]
    assert [len(page) for page in pages] == [4, 4, 2]
    assert [version for page in pages for version in page] == filled.list()
    assert filled.list(limit=0) == []

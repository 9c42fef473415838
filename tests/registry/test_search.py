import random
from collections.abc import Callable

import pytest

from contrans.errors import RegistryError
from registry import NewVersion, Registry, Result, Version
from registry.words import split_words, words_of
from tests.registry.conftest import make_chain


@pytest.fixture
def filled(registry: Registry) -> Registry:
    make_chain(registry)
    make_chain(registry, note="Ein Überraschungs-ei, e7f1")
    registry.register(
        "validation",
        "anger/gemma-3/toxicity",
        manifest={"protocol": "toxicity"},
        inputs={"transplant": registry.get("anger@2")},
        results=[
            Result("anger", "toxicity", "test", "transplanted", "gain_recovered", 0.2, 0.95, 0.8, 0.99),
            Result("anger", "toxicity", "dev", "transplanted", "kl", 0.2, 0.01),
            Result("anger", "toxicity", "generic", "transplanted", "kl", 0.2, 0.3),
            Result("anger", "toxicity", "test", "own", "gain_recovered", 0.2, 1.0),
        ],
    )
    registry.describe_concept("anger", family="emotion")
    registry.tag("vector:anger/smollm2@1", "paper", "Table_4")
    registry.tag("map:smollm2/gemma-3", "paper")
    return registry


def test_filters(filled: Registry) -> None:
    def found(*text: str, **filters) -> list[str]:
        return [str(version) for version in filled.search(*text, **filters)]

    toxic = ["validation:anger/gemma-3/toxicity@1"]
    both = [*toxic, "transplant:anger/gemma-3@2"]
    assert found(where="gain_recovered > .9") == both
    assert found(where="gain_recovered.low >= .8 and kl < .5") == both
    assert found(where="gain_recovered > .9", kind="transplant") == both[1:]
    assert found(where="gain_recovered > .95") == found(where="kl < .2") == found(where="random/kl < 9") == []
    assert found(where="own/gain_recovered >= 1 or nosuch > 1") == both
    assert len(found(where="logit_accuracy > .9 or gain_recovered > .9")) == 5
    assert found(tags=["paper"]) == ["map:smollm2/gemma-3@1", "vector:anger/smollm2@1"]
    assert found(tags=["paper", "Table_4"]) == ["vector:anger/smollm2@1"]
    assert found(family="emotion") == found(concept="anger")
    assert found(family="llama", newest=True) == found(model="smollm2", newest=True)
    assert found(family="none of these") == []
    assert found("überraschungs") == [
        f"{kind}@2" for kind in ("validation:anger/gemma-3/emotion", "transplant:anger/gemma-3", "vector:anger/smollm2")
    ]
    assert found("ANGER smol") == ["vector:anger/smollm2@2", "vector:anger/smollm2@1"]
    assert found("org gemma") == ["model:gemma-3@1"]
    assert found("pap") == found(tags=["paper"])
    assert found("ollm") == []
    assert found("toxicity", alias="production") == []
    with pytest.raises(RegistryError, match="no word in '%_!'"):
        filled.search("%_!")
    with pytest.raises(RegistryError, match="is not understood"):
        filled.search(where="kl << 1")


def test_pages_by_key(filled: Registry) -> None:
    pages: list[list[Version]] = []
    last: Version | None = None
    while page := filled.search("anger", limit=2, before=last):
        pages.append(page)
        last = page[-1]
    assert [version for page in pages for version in page] == filled.search("anger", limit=None)
    assert filled.search(before="vector:anger/smollm2@1", limit=1) == [filled.get("model:gemma-3")]


def test_words() -> None:
    assert split_words("Mean_difference, mean-DIFFERENCE 0.5 ß") == ["mean", "difference", "0", "5", "ss"]
    manifest = {"a": ["x", {"b": "y z"}], "hash": "ab" * 32, "long": "w" * 65, "n": 3, "none": None}
    assert sorted(words_of("anger/m", manifest)) == ["anger", "m", "x", "y", "z"]
    assert len(words_of("a", {"text": " ".join(map(str, range(1000)))})) == 256


def test_search_agrees_with_brute_force(sqlite_registry: Registry) -> None:
    """Random versions, random filters, against a plain loop over all versions."""
    chance = random.Random(0)
    concepts, words = ("anger", "joy"), ("red", "reddish", "green")
    model = sqlite_registry.register("model", "m", manifest={"reference": "r"})
    new: list[NewVersion] = []
    for i in range(120):
        manifest = {"concept": chance.choice(concepts), "note": chance.choice(words), "i": i}
        inputs = {"model": model} if chance.random() < 0.5 else {}
        new.append(NewVersion(kind="vector", name=chance.choice("ab"), manifest=manifest, inputs=inputs))
    versions = sqlite_registry.register_many(new)
    tagged = {version for version in versions if chance.random() < 0.3}
    for version in tagged:
        sqlite_registry.tag(version, "t")
    newest = {version.name: version for version in versions}
    filters: dict[str, tuple[dict, Callable[[Version], bool]]] = {
        "concept": ({"concept": "joy"}, lambda v: v.manifest["concept"] == "joy"),
        "text": ({"text": "red"}, lambda v: v.manifest["note"].startswith("red")),
        "name": ({"name": "a"}, lambda v: v.name == "a"),
        "tags": ({"tags": ["t"]}, lambda v: v in tagged),
        "newest": ({"newest": True}, lambda v: newest[v.name] == v),
        "model": ({"model": "m"}, lambda v: new[versions.index(v)].inputs != {}),
    }
    for _ in range(40):
        chosen = chance.sample(sorted(filters), chance.randint(1, 3))
        arguments = {key: value for name in chosen for key, value in filters[name][0].items()}
        expected = [v for v in reversed(versions) if all(filters[name][1](v) for name in chosen)]
        assert sqlite_registry.search(kind="vector", limit=None, **arguments) == expected

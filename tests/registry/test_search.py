import random
from collections.abc import Callable
from typing import Any

import pytest

from contrans.errors import RegistryError
from registry import NewVersion, Registry, Result, Version, criteria
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


@pytest.fixture
def random_versions(registry: Registry) -> list[tuple[Version, NewVersion]]:
    """Vectors, transplants and validations that share concepts, models, words and numbers at random, as registered."""
    chance = random.Random(0)
    models = [
        registry.register("model", f"m{i}", manifest={"reference": f"r{i}", "family": "llama" if i else "joyful"})
        for i in range(3)
    ]
    new: list[NewVersion] = []
    for i in range(80):
        concept, note = chance.choice(("anger", "joy", "candour")), chance.choice(("red", "reddish", "green"))
        manifest = {"concept": concept, "note": note, "estimator": chance.choice(("pca", "lda")), "i": i}
        inputs: dict[str, Version | NewVersion] = {"model": chance.choice(models)} if chance.random() < 0.7 else {}
        vector = NewVersion(kind="vector", name=chance.choice("ab"), manifest=manifest, inputs=inputs)
        transplant = NewVersion(
            kind="transplant",
            name=chance.choice("ab"),
            manifest={"concept": concept, "note": note, "i": i},
            inputs={"vector": vector, "target": chance.choice(models)},
        )
        results = [
            Result(
                concept,
                "emotion",
                chance.choice(("test", "dev")),
                chance.choice(("transplanted", "own")),
                chance.choice(("gain", "kl")),
                0.2,
                chance.random(),
            )
            for _ in range(chance.randint(0, 3))
        ]
        validation = NewVersion(
            kind="validation",
            name=chance.choice("ab"),
            manifest={"protocol": "emotion", "note": note, "i": i},
            inputs={"transplant": transplant},
            results=results,
        )
        new += [vector, transplant, *([validation] if chance.random() < 0.8 else [])]
    registry.describe_concept("anger", family="emotion")
    registry.describe_concept("joy", family="emotion")
    registry.describe_concept("candour", family="joyful")
    versions = registry.register_many(new)
    for version in chance.sample(versions, 60):
        registry.tag(version, "t")
    for version in {version.name + version.kind: version for version in chance.sample(versions, 60)}.values():
        registry.set_alias(version, "good")
    return list(zip([registry.get(str(version)) for version in versions], new, strict=True))


def test_search_agrees_with_brute_force(
    registry: Registry, random_versions: list[tuple[Version, NewVersion]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to nine filters at once, against a plain loop over all versions, however many of them are counted."""
    chance = random.Random(1)
    parents = {id(new): version for version, new in random_versions}
    judges: dict[Version, list[NewVersion]] = {}
    for version, new in random_versions:
        if new.kind == "validation":
            judges.setdefault(version, []).append(new)
            judges.setdefault(parents[id(new.inputs["transplant"])], []).append(new)

    def concept(version: Version, new: NewVersion) -> set[str]:
        named = {version.manifest["concept"]} if "concept" in version.manifest else set()
        return named | {result.concept for result in new.results}

    def models(new: NewVersion) -> set[str]:
        return {given.name for given in new.inputs.values() if given.kind == "model"}

    def measured(version: Version, arm: str, metric: str, fits: Callable[[float], bool]) -> bool:
        rows = [result for judge in judges.get(version, []) for result in judge.results]
        return any(
            (r.arm, r.metric, r.split) == (arm, metric, "test") and r.value is not None and fits(r.value) for r in rows
        )

    def gain(version: Version) -> bool:
        return measured(version, "transplanted", "gain", lambda value: value > 0.3)

    def kl(version: Version) -> bool:
        return measured(version, "transplanted", "kl", lambda value: value < 0.7)

    def own(version: Version) -> bool:
        return measured(version, "own", "gain", lambda value: value >= 0.2)

    tagged = {version for version, _ in random_versions if registry.tags(version)}
    last = {(version.kind, version.name): version for version, _ in random_versions}
    middle = random_versions[len(random_versions) // 2][0]
    both = "gain > .3 and kl < .7"
    filters: list[tuple[dict[str, Any], Callable[[Version, NewVersion], bool]]] = [
        ({"concept": "joy"}, lambda v, n: "joy" in concept(v, n)),
        ({"family": "emotion"}, lambda v, n: bool({"anger", "joy"} & concept(v, n))),
        ({"family": "joyful"}, lambda v, n: "candour" in concept(v, n) or "m0" in models(n)),
        ({"text": "red"}, lambda v, n: v.manifest["note"].startswith("red")),
        ({"text": "reddish emotion"}, lambda v, n: v.manifest["note"] == "reddish" and v.kind == "validation"),
        ({"name": "a"}, lambda v, n: v.name == "a"),
        ({"kind": "transplant"}, lambda v, n: v.kind == "transplant"),
        ({"tags": ["t"]}, lambda v, n: v in tagged),
        ({"alias": "good"}, lambda v, n: "good" in v.aliases),
        ({"newest": True}, lambda v, n: last[v.kind, v.name] == v),
        ({"model": "m1"}, lambda v, n: "m1" in models(n)),
        ({"model": "r2"}, lambda v, n: "m2" in models(n)),
        ({"estimator": "pca"}, lambda v, n: v.manifest.get("estimator") == "pca"),
        ({"where": "gain > .3"}, lambda v, n: gain(v)),
        ({"where": both}, lambda v, n: gain(v) and kl(v)),
        ({"where": f"({both}) or own/gain >= .2"}, lambda v, n: (gain(v) and kl(v)) or own(v)),
        ({"where": "kl < .7 and (gain > .3 or own/gain >= .2)"}, lambda v, n: kl(v) and (gain(v) or own(v))),
        ({"before": middle}, lambda v, n: v.id < middle.id),
    ]
    found = 0
    for number in range(len(filters) + 48):
        monkeypatch.setattr(criteria, "COUNTED", (0, 20, 5_000)[number % 3])
        chosen = chance.sample(filters, chance.randint(2, 9)) if number >= len(filters) else [filters[number]]
        # Of two filters of one field the later counts.
        fields = {key: (value, fits) for given, fits in chosen for key, value in given.items()}
        expected = [v for v, n in reversed(random_versions) if all(fits(v, n) for _, fits in fields.values())]
        limit = chance.choice((None, 3))
        arguments = {key: value for key, (value, _) in fields.items()}
        known = [v for v in registry.search(limit=limit, **arguments) if v.kind not in ("model", "text_set")]
        assert known == expected[:limit], arguments
        found += len(known)
    assert found > 200


def test_a_long_gate_is_searched(sqlite_registry: Registry) -> None:
    """As many comparisons as a gate may have characters."""
    validation = make_chain(sqlite_registry)["validation"]
    for word in ("or", "and"):
        where = f" {word} ".join(["k>1"] * 230 + ["logit_accuracy > .1"])
        expected = [validation, sqlite_registry.get("transplant:anger/gemma-3")] if word == "or" else []
        assert sqlite_registry.search(where=where) == expected

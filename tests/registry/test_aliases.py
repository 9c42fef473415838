from pathlib import Path

import pytest

from contrans.errors import RegistryError
from registry import Registry, Result, Version
from tests.registry.conftest import make_chain


def _validate(registry: Registry, transplant: Version, low: float, *, protocol: str = "emotion") -> Version:
    return registry.register(
        "validation",
        f"{transplant.name}/{protocol}",
        manifest={"protocol": protocol},
        inputs={"transplant": transplant, "own": registry.get("vector:anger/smollm2@1")},
        results=[
            Result("anger", protocol, "test", "transplanted", "gain_recovered", 0.2, low + 0.1, low, 1.0),
            Result("all", protocol, "generic", "transplanted", "kl", 0.2, 0.05),
        ],
    )


@pytest.fixture
def transplant(registry: Registry) -> Version:
    registry.protect("production", "gain_recovered.low > .7 and kl < .1")
    return make_chain(registry)["transplant"]


def test_only_what_passes_its_gate_goes_into_production(registry: Registry, transplant: Version) -> None:
    with pytest.raises(
        RegistryError,
        match=r"transplant:anger/gemma-3@1 may not become 'production': gain_recovered.low of anger is not defined, "
        r"kl was not measured in validation:anger/gemma-3/emotion@1; validate a better version, or force it",
    ):
        registry.set_alias(transplant, "production")
    _validate(registry, transplant, 0.62)
    with pytest.raises(RegistryError, match=r"gain_recovered.low of anger is 0.62, not > 0.7 in .*emotion@2"):
        registry.set_alias(transplant, "production")
    assert registry.get("anger").aliases == ()
    assert registry.alias_history(transplant, "production") == []
    _validate(registry, transplant, 0.75)  # the newest of a name counts
    assert registry.set_alias(transplant, "production").aliases == ("production",)
    _validate(registry, transplant, 0.1, protocol="toxicity")
    other = registry.register("transplant", "anger/gemma-3", manifest={"concept": "anger", "note": "new"})
    with pytest.raises(RegistryError, match=r"it has no validation, and the alias asks for gain_recovered\.low > 0\.7"):
        registry.set_alias(other, "production")
    assert registry.get("anger@production") == transplant
    registry.set_alias(other, "candidate")


def test_every_protocol_must_pass(registry: Registry, transplant: Version) -> None:
    _validate(registry, transplant, 0.9)
    _validate(registry, transplant, 0.1, protocol="toxicity")
    with pytest.raises(RegistryError, match=r"gain_recovered.low of anger is 0.1, not > 0.7"):
        registry.set_alias(transplant, "production")


def test_force_is_on_record(registry: Registry, transplant: Version) -> None:
    registry.set_alias(transplant, "production", force=True)
    assert [move.forced for move in registry.alias_history(transplant, "production")] == [True]
    _validate(registry, transplant, 0.9)
    registry.set_alias("map:smollm2/gemma-3", "production", force=True)
    assert [move.forced for move in registry.alias_history("map:smollm2/gemma-3", "production")] == [False]


def test_what_judges_what(registry: Registry, transplant: Version) -> None:
    judge = registry.get("validation:anger/gemma-3/emotion")
    assert registry.validations(transplant) == registry.validations("map:smollm2/gemma-3") == [judge]
    assert registry.validations("vector:anger/smollm2") == registry.validations(judge) == [judge]
    assert registry.validations("model:gemma-3") == []
    control = registry.register("map", "control", manifest={"estimator": "shuffled"})
    registry.register(
        "validation",
        "anger/gemma-3/other",
        manifest={"protocol": "other"},
        inputs={"transplant": transplant, "shuffled_map": control},
    )
    assert registry.validations(control) == []


def test_protections_are_listed_changed_and_lifted(registry: Registry) -> None:
    registry.protect("production", "kl<.1")
    registry.protect("production", "(kl<.2)")
    registry.protect("candidate", "kl < 1 or kl.low < 1")
    assert registry.protections() == {"candidate": "kl < 1 or kl.low < 1", "production": "kl < 0.2"}
    registry.protect("production", None)
    assert list(registry.protections()) == ["candidate"]
    with pytest.raises(RegistryError, match="'production' is not protected"):
        registry.protect("production", None)
    with pytest.raises(RegistryError, match="is not understood"):
        registry.protect("production", "kl")
    with pytest.raises(RegistryError, match="not a valid alias"):
        registry.protect("3", "kl < 1")


def test_tags(registry: Registry, tmp_path: Path) -> None:
    made = make_chain(registry)
    assert registry.tag(made["vector"], "paper", "draft/2") == ("draft/2", "paper")
    assert registry.tag("vector:anger/smollm2", "paper") == ("draft/2", "paper")
    assert registry.untag(made["vector"], "draft/2", "never there") == ("paper",)
    assert registry.tags(made["map"]) == ()
    with pytest.raises(RegistryError, match="not a valid tag"):
        registry.tag(made["vector"], "two words")

import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrans.errors import RegistryError
from contrans.hashing import canonical_json
from registry.names import MAX_MANIFEST, check_alias, check_kind, check_name, plain_json
from registry.records import Result


@pytest.mark.parametrize("name", ["anger", "anger/gemma-3-270m", "a.b_c-1/2/3", "..."])
def test_valid_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", "a b", "..", "a/../b", "./a", "ä", "a@1", "vector:a", "a\n", "x" * 201],
)
def test_other_names_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(RegistryError, match=r"not a valid name.*use letters"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "1", "9lives", "a/b", "a@b", "pröd"])
def test_aliases_cannot_be_taken_for_numbers(alias: str) -> None:
    with pytest.raises(RegistryError, match="not a valid alias"):
        check_alias(alias)


def test_unknown_kind_names_the_kinds() -> None:
    with pytest.raises(RegistryError, match="no kind 'vectr'; the kinds are model, text_set, vector"):
        check_kind("vectr")


def _nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"a": {"b": [1.0, math.nan]}}, r"manifest\.a\.b\[1\] is nan"),
        ({"a": math.inf}, "manifest.a is inf"),
        ({"a": {1: 2}}, "manifest.a has the key 1"),
        ({"a": b"x"}, "manifest.a is a bytes"),
        ({"a": "x\0"}, "NUL"),
        ({"a\ud800": 1}, "broken Unicode"),
        ({"a": 2**63}, "more than 64 bits"),
        ({"a": "x" * MAX_MANIFEST}, "larger than 1 MiB"),
        (_nested(100_000), "nested deeper"),
        ([1], "is a JSON object, not list"),
    ],
)
def test_what_is_not_plain_json_is_refused(manifest: dict, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        plain_json(manifest, "manifest")


def test_plain_json_is_an_own_copy_of_plain_types() -> None:
    colour = enum.IntEnum("colour", "RED")
    inner = [1]
    found = plain_json({"b": inner, "a": (colour.RED, 0.5)}, "manifest")
    inner.append(2)
    assert found == {"a": [1, 0.5], "b": [1]}
    assert list(found) == ["a", "b"]
    assert type(found["a"][0]) is int


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_any_manifest_is_either_kept_exactly_or_refused(manifest: dict) -> None:
    try:
        found = plain_json(manifest, "manifest")
    except RegistryError:
        return
    assert canonical_json(found) == canonical_json(manifest)


def test_results_hold_finite_numbers_only() -> None:
    good = Result("anger", "emotion", "test", "own", "logit_accuracy", 1, -0.0)
    assert isinstance(good.dose, float)
    assert str(good.value) == "0.0"
    for broken in (
        {"value": math.nan},
        {"dose": math.inf},
        {"low": True},
        {"n": 1.5},
        {"n": -1},
        {"arm": ""},
    ):
        values = {"dose": None, "value": 0.5, "arm": "own"} | broken
        with pytest.raises(RegistryError, match=f"`{next(iter(broken))}` of the result"):
            Result(concept="anger", protocol="emotion", split="test", metric="logit_accuracy", **values)

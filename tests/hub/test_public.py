"""What leaves the machine: paths, references, licences and secrets, as tables."""

from typing import Any

import pytest

from contrans.errors import RegistryError
from registry.hub.public import base_model, cleaned, licence_fields, local_names, refuse_secrets


@pytest.mark.parametrize(
    ("reference", "revision", "expected"),
    [
        ("org/model", "c" * 40, "org/model"),
        ("org/model@main", "c" * 40, "org/model"),
        ("org/model", None, None),  # a folder of that name has no revision
        ("./model", "c" * 40, None),
        ("/data/model", None, None),
        ("pypi:gemma-3-270m", "1.0", "google/gemma-3-270m"),
        ("pypi:unknown", "1.0", None),
    ],
)
def test_base_model(reference: str, revision: str | None, expected: str | None) -> None:
    assert base_model(reference, revision) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ann/texts.txt", "texts.txt"),
        ("/home/ann/models/", "models"),
        ("~/texts.txt", "texts.txt"),
        ("C:\\Users\\ann\\texts.txt", "texts.txt"),
        ("./model", "mine"),
        ("Say: {text}\nThe mood is", "Say: {text}\nThe mood is"),
        ("yes/no", "yes/no"),
        ("/", "/"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
    ],
)
def test_places_are_cut(value: Any, expected: Any) -> None:
    names = local_names([{"reference": "./model", "name": "mine", "revision": None}])
    assert cleaned(value, names) == expected


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (b"x hf_" + b"A" * 34, None),
        (b"my-own-token", "my-own-token"),
        (b"postgresql://ann:secret@host/db", None),
        (b"-----BEGIN RSA PRIVATE KEY-----", None),
    ],
)
def test_secrets_are_refused_and_not_shown(data: bytes, token: str | None) -> None:
    with pytest.raises(RegistryError, match="looks like a token, key or password") as caught:
        refuse_secrets({"contrans.json": data}, token)
    assert data.decode() not in str(caught.value)


def test_ordinary_text_is_no_secret() -> None:
    refuse_secrets({"README.md": b"see https://huggingface.co/org/x and a@b.c: token=5"}, "other")


@pytest.mark.parametrize(
    ("licences", "chosen", "expected"),
    [
        (["Apache-2.0", "apache-2.0"], None, "apache-2.0"),
        (["Gemma Terms of Use"], None, "gemma"),
        (["Apache-2.0", "Gemma Terms of Use"], None, "other"),
        (["Apache-2.0", None], None, "other"),
        ([None], "CC-BY-4.0", "cc-by-4.0"),
        ([], None, "other"),
    ],
)
def test_licence(licences: list[str | None], chosen: str | None, expected: str) -> None:
    assert licence_fields(licences, chosen)["license"] == expected

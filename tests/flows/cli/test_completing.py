"""What the shell completes, and that completing changes nothing."""

from pathlib import Path

import pytest

from flows.cli.completing import join_cut_word, model_names, references, spec_names
from tests.flows.cli.conftest import Typed

LARGE = "anger/smollm2-135m-instruct/large"


@pytest.mark.parametrize(
    ("typed_so_far", "found"),
    [
        ("anger/smollm2-135m-instruct/l", [LARGE, f"{LARGE}/emotion"]),
        (f"transplant:{LARGE}", [f"transplant:{LARGE}"]),
        (f"transplant:{LARGE}@", [f"transplant:{LARGE}@{end}" for end in ("production", "2", "1")]),
        (f"{LARGE}@p", [f"{LARGE}@production"]),
        ("ve", ["vector:"]),
        ("vector:ang", ["vector:anger/smollm2-135m-instruct"]),
        ("nosuch:ang", []),
        ("ANGER", []),
        ("%", []),
        (f"{LARGE}/nosuch@", []),
    ],
)
def test_references(held: Path, monkeypatch: pytest.MonkeyPatch, typed_so_far: str, found: list[str]) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(held))
    assert references(typed_so_far) == found


def test_models_and_specs(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(held))
    assert model_names("la") == ["large"]
    assert "pypi:gemma-3-270m" in model_names("pypi:")
    assert spec_names("quick") == ["quickstart"]


@pytest.mark.parametrize("content", [None, b"no database at all"])
def test_without_a_registry_nothing_is_found_or_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "registry.db").write_bytes(content)
    before = sorted(tmp_path.iterdir())
    assert references("a") == []
    assert model_names("pypi:smol") == ["pypi:smollm2-135m-instruct"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "joined", "cut"),
    [
        (["contrans", "show", "anger"], ["contrans", "show", "anger"], ""),
        (["contrans", "show", "anger", "@", "1"], ["contrans", "show", "anger@1"], "anger"),
        (["contrans", "show", "anger", "@"], ["contrans", "show", "anger@"], "anger"),
        (["contrans", "show", "map", ":", "a"], ["contrans", "show", "map:a"], "map:"),
        (["contrans", "show", "map", ":", "a", "@", "p"], ["contrans", "show", "map:a@p"], "map:a"),
        (["contrans", "list", "--source", "pypi", ":"], ["contrans", "list", "--source", "pypi:"], "pypi:"),
        (["contrans", "compare", "a", "@", "1", "b"], ["contrans", "compare", "a", "@", "1", "b"], ""),
        (["contrans"], ["contrans"], ""),
    ],
)
def test_words_that_bash_cut(words: list[str], joined: list[str], cut: str) -> None:
    assert join_cut_word(words) == (joined, cut)


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["contrans", "show", LARGE, "@", "p"], ["@production"]),
        (["contrans", "lineage", "transplant", ":", LARGE], [LARGE]),
        (["contrans", "play", f"{LARGE}"], [LARGE, f"{LARGE}/emotion"]),
        (["contrans", "list", "--target", "pypi", ":", "gem"], ["gemma-3-270m"]),
        (["contrans", "run", "quick"], ["quickstart"]),
        (["contrans", "refine", "quick"], ["quickstart"]),
        (["contrans", "report", LARGE], [LARGE, f"{LARGE}/emotion"]),
        (["contrans", "export", LARGE], [LARGE, f"{LARGE}/emotion"]),
        (["contrans", "publish", LARGE], [LARGE, f"{LARGE}/emotion"]),
        (["contrans", "revalidate", LARGE, "@", "p"], ["@production"]),
        (["contrans", "registry", "alias", LARGE, "@", "p"], ["@production"]),
        (["contrans", "registry", "stale", LARGE, "@", "p"], ["@production"]),
        (["contrans", "pull", "org/repo", "--target", "la"], ["large"]),
        (["contrans", "comp"], ["compare"]),
    ],
)
def test_what_bash_is_told(
    typed: Typed, held: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], answers: list[str]
) -> None:
    monkeypatch.setenv("_CONTRANS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert typed(home=held) == (0, "\n".join(answers) + "\n", "")


def test_the_script_is_shown_and_the_help_is_silent_about_it(typed: Typed) -> None:
    code, out, _ = typed("--show-completion", "bash")
    assert (code, "_CONTRANS_COMPLETE=complete_bash" in out) == (0, True)
    assert "completion" not in typed("--help")[1]

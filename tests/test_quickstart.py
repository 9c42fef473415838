"""The quickstart on the real pair: what the README promises, with fewer rows, draws and test items than it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

SMALL = [
    "corpus.wrapped=800",
    "corpus.truncated=600",
    "blocks.control_draws=5",
    "validate.doses=[0.2, 0.3]",
    "validate.random_draws=5",
    "validate.dev_per_label=6",
    "validate.test_per_label=12",
]
MEMORY = 6 * 1024**2  # KiB


def contrans(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "contrans"), *arguments]
    return subprocess.run(
        command, env={**os.environ, "CONTRANS_HOME": str(home)}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home) -> dict:
    settings = [part for s in SMALL for part in ("--set", s)]
    done = contrans(home, "run", "quickstart", *settings, "--json", str(home / "first.json"))
    assert done.returncode == 0, done.stderr
    return json.loads((home / "first.json").read_text())


def test_the_transplant_works_and_the_controls_do_not(first):
    summary = first["summary"]
    assert summary["transplanted"]["value"] >= 0.85
    assert summary["gain_recovered"]["value"] >= 0.92
    assert summary["gain_recovered"]["low"] > 0.8
    base = summary["unsteered"]["value"]
    for control in ("random", "shuffled_map"):
        assert summary[control]["value"] <= base + 0.08
    assert summary["wrong_concept"]["value"] <= base + 0.08
    assert first["match_rate"] > 0.67
    assert 0 < first["map"]["heldout_r2"] < 1
    assert first["map"]["survival"] > 0.5


def test_peak_memory(first):
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= MEMORY


def test_a_second_run_computes_nothing_and_registers_nothing_new(first, home):
    settings = [part for s in SMALL for part in ("--set", s)]
    done = contrans(home, "run", "quickstart", *settings, "--json", str(home / "second.json"))
    assert done.returncode == 0, done.stderr
    second = json.loads((home / "second.json").read_text())
    assert second["versions"] == first["versions"]
    assert second["validations"] == first["validations"]
    listed = json.loads(contrans(home, "list", "--json").stdout)
    assert len(listed) == len({(v["kind"], v["name"], v["version"]) for v in first["versions"]})


def test_what_was_made_changes_free_text(first, home):
    """The README's example: the registry's transplants change how an unrelated sentence goes on."""
    import contrans as ct
    from contrans.concepts import ConceptVector
    from registry import Registry

    target = ct.load_model("pypi:gemma-3-270m")
    prompt = "When the letter came, she"
    words = {"anger": ("angry", "anger", "furious"), "fear": ("afraid", "fear", "panic"), "sadness": ("sad", "tears")}
    plain = target.complete(prompt, max_new_tokens=20, repetition_penalty=1.2)
    changed = []
    with Registry.open(home / "registry.db") as registry:
        for concept, said in words.items():
            assert not any(word in plain[0] for word in said)
            version = registry.get(concept)
            vector = ConceptVector.from_files({name: registry.read(version, name) for name in registry.files(version)})
            with ct.transplant(target, vector, dose=0.2):
                text = target.complete(prompt, max_new_tokens=20, repetition_penalty=1.2)[0]
            changed.append(any(word in text for word in said))
    assert sum(changed) >= 2
    assert target.complete(prompt, max_new_tokens=20, repetition_penalty=1.2) == plain

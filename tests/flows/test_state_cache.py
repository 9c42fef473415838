"""Captured states are found by their texts: counted tokens, equal results, damage, eviction, processes side by side."""

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from contrans.errors import SpecError
from contrans.states import capture
from contrans.states.encode import encode
from flows.capturing import TextCapture, read_states
from flows.pool import Pool
from flows.spec import PipelineSpec, load_spec
from flows.state_cache import STATES, Reading, limit
from flows.step import Cost, Step, StepContext, spared
from flows.store import Store
from flows.study import SIDES, study
from tests.flows.stepping import run_steps
from tests.flows.tiny_pipeline import LABELS

TEXTS = [f"the train {verb} at {n}" for n in range(6) for verb in ("leaves", "stops")]
SETTINGS = (
    "corpus.wrapped=20",
    "corpus.truncated=15",
    "validate.doses=[0.3]",
    "validate.arms=[unsteered,transplanted,own]",
)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRANS_CACHE", str(cache))
        patch.delenv("CONTRANS_STATES_GB", raising=False)
        yield


@pytest.fixture(scope="module")
def pool(spec_path: Path) -> Pool:
    return Pool(load_spec(spec_path))


def with_family(spec_path: Path, folder: Path, *labels: str) -> PipelineSpec:
    """The tiny pipeline with a family of these concepts alone: others are no negatives of theirs."""
    folder.mkdir(parents=True)
    for label in labels:
        text = (spec_path.parent / "moods" / f"{label if label in LABELS else 'doubt'}.yaml").read_text()
        text = text.replace("the map may be wrong", "the wind may turn") if label not in LABELS else text
        (folder / f"{label}.yaml").write_text(text if label in LABELS else text.replace("doubt", label))
    names = ", ".join(str(folder / f"{label}.yaml") for label in labels)
    return load_spec(spec_path, [*SETTINGS, f"concepts=[{names}]"])


class Captures:
    """Captures texts one way and another into one store."""

    def __init__(self, spec: PipelineSpec, pool: Pool, home: Path) -> None:
        self.spec, self.pool, self.store = spec, pool, Store(home / "steps")
        self.model = pool.get("source")

    def __call__(
        self,
        texts: list[str],
        *,
        blocks: tuple[int, ...] = (1, 2),
        position: str = "last",
        answers: list[str] | None = None,
        key: str = "",
    ) -> tuple[dict[int, torch.Tensor], int, int]:
        """Captures texts and keeps the output: states, tokens through the model, texts that did not need to."""
        step = self.step(texts, blocks, position, answers)
        key = key or f"{random.getrandbits(256):064x}"
        context = StepContext(self.spec, self.store, {}, self.pool)
        files = step.run(context)
        self.store.write(key, files)
        facts = json.loads(files["facts.json"])
        states = {int(b): of_block for b, of_block in load(files[STATES]).items()}
        return states, facts["n_tokens"], facts["n_reused"]

    def step(
        self,
        texts: list[str],
        blocks: tuple[int, ...] = (1, 2),
        position: str = "last",
        answers: list[str] | None = None,
    ) -> TextCapture:
        fingerprint = self.pool.record("source").fingerprint
        return TextCapture(
            "source", fingerprint, texts, answers or [""] * len(texts), position, blocks, 0.5, self.spec.compute, 2
        )

    def tokens(self, texts: list[str]) -> int:
        return encode(self.model, texts).n_tokens

    def check(self, states: dict[int, torch.Tensor], texts: list[str]) -> None:
        """The library's own capture, text by text."""
        for at, text in enumerate(texts):
            alone = capture(self.model, [text], blocks=sorted(states))
            for block, of_block in states.items():
                torch.testing.assert_close(of_block[at], alone[block][0], rtol=1e-4, atol=1e-5)


@pytest.fixture
def captures(spec_path: Path, pool: Pool, tmp_path: Path) -> Captures:
    return Captures(load_spec(spec_path), pool, tmp_path)


def test_one_more_concept_costs_its_own_tokens(spec_path: Path, tmp_path: Path) -> None:
    few = with_family(spec_path, tmp_path / "three" / "moods", *LABELS)
    spec = with_family(spec_path, tmp_path / "four" / "moods", *LABELS, "storm")
    first, more = (run_steps(one, tmp_path / "home", until="map vectors") for one in (few, spec))
    fresh = run_steps(spec, tmp_path / "fresh", until="map vectors")
    captures = [f"capture concepts · {side}" for side in ("source", "target")]
    # the corpus is the same, whatever concepts there are of one template
    assert [name for name in more.computed if name.startswith("capture")] == captures
    before, after = (
        set(study(one, *(ran.pool.record(side) for side in SIDES)).refine_prompts())
        for one, ran in ((few, first), (spec, more))
    )
    assert before < after
    for side, name in zip(SIDES, captures, strict=True):
        facts = json.loads(more.store.read(more.steps[name].key)["facts.json"])
        expected = encode(more.pool.get(side), sorted(after - before)).n_tokens
        assert more.tokens[name] == facts["n_tokens"] == expected > 0
        assert facts["n_reused"] == len(before)
        assert fresh.tokens[name] == encode(more.pool.get(side), sorted(after)).n_tokens
    for name in fresh.computed:
        assert more.steps[name].key == fresh.steps[name].key
        found, expected = (ran.store.read(ran.steps[name].key) for ran in (more, fresh))
        for file in (file for file in found if file.endswith(".safetensors")):
            torch.testing.assert_close(load(found[file]), load(expected[file]), rtol=1e-5, atol=1e-5)


def test_texts_are_captured_once(captures: Captures) -> None:
    states, n_tokens, n_reused = captures([*TEXTS[:4], TEXTS[1], TEXTS[0]])
    assert (n_tokens, n_reused) == (captures.tokens(TEXTS[:4]), 2)
    captures.check(states, [*TEXTS[:4], TEXTS[1], TEXTS[0]])
    # in another order, with one new text in the middle, and a capital makes another text
    mixed = [TEXTS[3], TEXTS[5], TEXTS[0].upper(), TEXTS[0]]
    states, n_tokens, n_reused = captures(mixed)
    assert (n_tokens, n_reused) == (captures.tokens(mixed[1:3]), 2)
    captures.check(states, mixed)


@pytest.mark.parametrize(
    ("first", "then", "reused"),
    [
        ({"blocks": (0, 1, 3)}, {"blocks": (1,)}, True),
        ({"blocks": (0, 1)}, {"blocks": (1, 2)}, False),
        ({}, {"position": "last:2"}, False),
        ({"position": "last:2"}, {"position": "last:2"}, True),
        ({"position": "answer", "answers": ["at 0"]}, {"position": "answer", "answers": ["at 0"]}, True),
        ({"position": "answer", "answers": ["at 0"]}, {"position": "answer", "answers": ["0"]}, False),
        ({"answers": ["at 0"]}, {"answers": ["0"]}, True),
    ],
)
def test_what_is_asked_for_decides(captures: Captures, first: dict, then: dict, reused: bool) -> None:
    captures(TEXTS[:1], **first)
    states, n_tokens, n_reused = captures(TEXTS[:1], **then)
    assert (n_reused, n_tokens == 0) == (int(reused), reused)
    assert set(states) == set(then.get("blocks", (1, 2)))
    fresh = Captures(captures.spec, captures.pool, captures.store.folder / "fresh")
    torch.testing.assert_close(states, fresh(TEXTS[:1], **then)[0])


def test_readings_differ_by_all_that_decides_a_state() -> None:
    base = Reading("m", "last", "float32", "cpu", 2)
    others = [
        Reading("n", "last", "float32", "cpu", 2),
        Reading("m", "last:2", "float32", "cpu", 2),
        Reading("m", "last", "bfloat16", "cpu", 2),
        Reading("m", "last", "float32", "cuda", 2),
        Reading("m", "last", "float32", "cpu", 3),
    ]
    assert len({reading.index for reading in [base, *others]}) == 6


def test_no_model_is_loaded_for_texts_that_are_there(captures: Captures, monkeypatch: pytest.MonkeyPatch) -> None:
    captures(TEXTS)
    assert captures.step(TEXTS).left(captures.store) == Cost("source", 0, 0, 0.5)
    assert captures.step([*TEXTS, "more"]).left(captures.store).texts == 1
    monkeypatch.setattr(Pool, "get", None)
    assert captures(TEXTS[2:])[1:] == (0, len(TEXTS) - 2)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink, lambda path: path.write_bytes(b"{}")])
@pytest.mark.parametrize("what", ["states", "rows"])
def test_damage_is_warned_of_and_captured_again(
    captures: Captures, caplog: pytest.LogCaptureFixture, damage, what: str
) -> None:
    captures(TEXTS[:3])
    path = next(captures.store.folder.glob(f"*/*/{what}*"))
    damage(path)
    with caplog.at_level(logging.WARNING):
        states, n_tokens, _ = captures(TEXTS[:5])
    captures.check(states, TEXTS[:5])
    if what == "rows" and damage is _flip:
        return  # the checksum's last digits: either a list that is no JSON or one that does not fit
    assert n_tokens == captures.tokens(TEXTS[:5])
    if not (what == "rows" and damage is Path.unlink):
        assert "captured again" in caplog.text


def test_a_damaged_input_of_a_step_is_said(captures: Captures) -> None:
    key = "ab" * 32
    captures(TEXTS[:3], key=key)
    step = Step("capture", "capture", key, (), Cost(), lambda _: {})
    context = StepContext(captures.spec, captures.store, {"capture": step}, captures.pool)
    assert read_states(context, "capture", 2).shape == (3, 32)
    _cut(captures.store.path(key) / STATES)
    with pytest.raises(Exception, match=r"cannot be read .*; delete .* and run again"):
        read_states(context, "capture", 2)


def test_with_a_limit_of_0_nothing_is_reused_or_kept(captures: Captures, monkeypatch: pytest.MonkeyPatch) -> None:
    captures(TEXTS[:3])
    monkeypatch.setenv("CONTRANS_STATES_GB", "0")
    assert captures(TEXTS[:3])[1:] == (captures.tokens(TEXTS[:3]), 0)
    assert len(captures.store.files(STATES)) == 1


def test_those_not_used_for_longest_go_first(captures: Captures, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [TEXTS[:3], TEXTS[3:6], TEXTS[6:9]]
    for number, texts in enumerate(groups):
        captures(texts, key=f"{number}" * 64)
        os.utime(captures.store.path(f"{number}" * 64), (number, number))
    captures(groups[0][:1], key="9" * 64)  # a use
    sizes = {path.parent.name[0]: path.stat().st_size for path in captures.store.files(STATES)}
    monkeypatch.setenv("CONTRANS_STATES_GB", str((sizes["0"] + 2 * sizes["9"] + 9) / 1e9))
    captures(["something new"], key="8" * 64)
    assert {path.parent.name[0] for path in captures.store.files(STATES)} == {"0", "8", "9"}
    assert captures(groups[1])[2] == 0


@pytest.mark.parametrize(
    ("said", "expected"), [("", 10_000_000_000), ("0", 0), ("2.5", 2_500_000_000), (" 1 ", 1_000_000_000)]
)
def test_the_limit(monkeypatch: pytest.MonkeyPatch, said: str, expected: int) -> None:
    monkeypatch.setenv("CONTRANS_STATES_GB", said)
    assert limit() == expected


@pytest.mark.parametrize("said", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_none(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("CONTRANS_STATES_GB", said)
    with pytest.raises(SpecError, match=rf"CONTRANS_STATES_GB is the number of gigabytes .* not '{said}'; set it"):
        limit()


def step(name: str, kind: str, *inputs: str) -> Step:
    return Step(name, kind, name.ljust(64, "0"), inputs, Cost(), lambda _: {})


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (set(), set()),
        ({"capture", "refine", "fit"}, set()),
        ({"refine", "fit"}, {"capture"}),
        ({"refine"}, set()),
        ({"fit"}, set()),
        ({"capture", "refine"}, set()),
    ],
)
def test_an_evicted_capture_is_made_again_only_for_a_step_that_reads_it(
    tmp_path: Path, done: set[str], expected: set[str]
) -> None:
    steps = [step("capture", "capture"), step("refine", "refine", "capture"), step("fit", "map", "capture", "refine")]
    store = Store(tmp_path)
    for name in done:
        store.write(name.ljust(64, "0"), {"a": b""})
    assert spared(steps, store) == expected


def test_a_finished_pipeline_does_without_its_captures(spec_path: Path, tmp_path: Path) -> None:
    spec = with_family(spec_path, tmp_path / "moods", *LABELS)
    first = run_steps(spec, tmp_path, until="map vectors")
    assert len(first.store.make_room(STATES, 0)) == 4
    assert run_steps(spec, tmp_path, until="map vectors").computed == []
    key = first.steps["fit maps"].key
    (first.store.path(key)).rename(tmp_path / "gone")
    assert run_steps(spec, tmp_path, until="map vectors").computed == [
        "capture corpus · source",
        "capture corpus · target",
        "fit maps",
    ]


STRESS = """
import random, sys, time
from pathlib import Path
from flows.store import Store
from flows.study import SIDES, study
store, seed = Store(Path(sys.argv[1])), int(sys.argv[2])
random.seed(seed)
end = time.monotonic() + 2
while time.monotonic() < end:
    keys = [f"{random.randrange(12):02d}" * 32 for _ in range(2)]
    with store.holding(keys):
        for key in keys:
            store.write(key, {"states.safetensors": key.encode() * 100})
        store.make_room("states.safetensors", 6400 * 4)
        for key in keys:
            assert store.read(key)["states.safetensors"] == key.encode() * 100
"""


def test_processes_side_by_side_never_take_what_another_holds(tmp_path: Path) -> None:
    """And one that is killed meanwhile holds nothing afterwards."""
    command = [sys.executable, "-c", STRESS, str(tmp_path / "steps")]
    running = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(3)]
    killed = running.pop()
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(1)
    killed.kill()
    killed.communicate()
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    store = Store(tmp_path / "steps")
    store.make_room("states.safetensors", 0)
    assert store.files("states.safetensors") == []
    assert not [path for path in (tmp_path / "steps-in-use").iterdir() if path.suffix == ".keys"]
    assert not list((tmp_path / "steps").glob("*/.gone-*"))

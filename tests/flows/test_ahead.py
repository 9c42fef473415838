"""The first steps of a run in a thread: whoever waits for them to begin is let go on, whatever becomes of them."""

from pathlib import Path

import pytest

from flows.ahead import Ahead
from flows.progress import Silent
from flows.spec import PipelineSpec, load_spec


class Seen(Silent):
    """Notes which steps began and ended."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []

    def begin(self, step: str, tokens: int) -> None:
        self.began.append(step)

    def end(self, step: str, seconds: float, *, computed: bool) -> None:
        self.ended.append(step)


@pytest.fixture
def spec(spec_path: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineSpec:
    monkeypatch.setenv("CONTRANS_CACHE", str(cache))
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    return load_spec(spec_path)


def test_the_step_that_is_under_way_is_done_and_no_other(spec: PipelineSpec) -> None:
    seen = Seen()
    ahead = Ahead(spec, seen)
    ahead.begun()
    assert seen.began
    ahead.finish()
    assert seen.ended == seen.began
    assert len(ahead.seconds) == len(seen.ended)
    then = list(seen.began)
    ahead.finish()
    assert seen.began == then


def test_what_fails_or_is_done_lets_go_too(spec: PipelineSpec, tmp_path: Path) -> None:
    broken = spec.model_copy(update={"source": str(tmp_path / "nowhere")})
    ahead = Ahead(broken, Silent())
    ahead.begun()
    ahead.finish()
    assert ahead.seconds == {}

"""What the command line says while it works, and when the disk is full."""

import errno
import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli import run
from flows.cli.talk import Talk
from tests.flows.test_cli import Typed


@pytest.fixture
def talk() -> Talk:
    """Talk on a terminal of 100 columns."""
    said = Talk()
    said.console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    return said


def shown(talk: Talk) -> list[str]:
    """Descriptions of the bars on the screen."""
    assert talk._progress is not None
    return [task.description for task in talk._progress.tasks]


def test_a_bar_runs_whatever_is_done(talk: Talk) -> None:
    with talk.bars():
        talk.say("fetching a model (98 MB)")
        assert shown(talk) == ["fetching a model (98 MB)"]
        talk.say("converting a model to safetensors, once")
        assert shown(talk) == ["converting a model to safetensors, once"]
        talk.begin("capture corpus", 1000)
        assert shown(talk) == ["capture corpus"]
        talk.say("loading a model")  # for the step that has its bar already
        talk.advance(400)
        assert shown(talk) == ["capture corpus"]
        assert talk._progress is not None
        assert talk._progress.tasks[0].completed == 400
        talk.end("capture corpus", 2.0, computed=True)
        talk.say("loading another model")
        talk.end("refine", 0.0, computed=False)
        assert shown(talk) == []
        talk.say("loading another model")
    assert talk._progress is None


def test_rates_and_remarks_stay_on_the_screen(talk: Talk) -> None:
    with talk.bars():
        talk.say("loading a model")
        talk.begin("capture corpus", 1000)
        talk.advance(1000)
        talk.end("capture corpus", 2.0, computed=True)
    assert isinstance(talk.console.file, io.StringIO)
    written = talk.console.file.getvalue()
    assert "loading a model" in written
    assert "tokens/s" in written


def test_no_bars_where_nobody_watches(talk: Talk) -> None:
    talk.console = Console(file=io.StringIO(), width=100)
    with talk.bars():
        talk.say("loading a model")
        talk.begin("refine", 0)
        talk.end("refine", 0.25, computed=True)
    talk.cached()
    assert isinstance(talk.console.file, io.StringIO)
    assert [line.strip() for line in talk.console.file.getvalue().splitlines()] == [
        "loading a model",
        "✓ refine  0.2 s",
    ]


@pytest.mark.parametrize(
    ("place", "said"), [(None, "The disk is full"), ("/data/figure.png", "The disk of /data/figu")]
)
def test_a_full_disk_is_one_sentence(
    typed: Typed, spec_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, said: str
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", place)

    monkeypatch.setattr(run, "open_registry", full)
    code, out, err = typed("run", spec_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {said}")


def test_other_errors_of_the_system_are_not_hidden(
    typed: Typed, spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run, "open_registry", broken)
    with pytest.raises(OSError, match="Input/output error"):
        typed("run", spec_path)

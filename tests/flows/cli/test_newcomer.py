"""A newcomer's path: the last line that a run prints says how to browse, and what it says works as it is printed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.flows.conftest import Done, Runner

ROOT = Path(__file__).parents[3]


def test_make_quickstart_ends_with_what_the_run_prints() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nquickstart: setup\n")[1].split("\n\n")[0]
    assert recipe == "\t$(BIN)/contrans run quickstart"


def test_the_last_line_of_a_run_is_a_command_that_works_as_printed(
    contrans: Runner, done: Done, tmp_path: Path
) -> None:
    label, _, command = done.process.stderr.rstrip().splitlines()[-1].partition(":")
    assert label == "browse it"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = contrans.environment(done.home, PATH=path)
    browsing = subprocess.Popen(
        command, shell=True, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert browsing.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:\d+/", browsing.stderr.readline())
        assert said is not None
        with urlopen(said.group(), timeout=60) as answer:
            page = answer.read().decode()
    finally:
        os.killpg(browsing.pid, signal.SIGINT)
        browsing.wait(30)
    made = [version for version in done.found["versions"] if version["kind"] == "transplant"]
    assert made
    for version in made:
        assert f'href="/version/transplant/{version["ref"]}"' in page

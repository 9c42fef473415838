"""What `contrans serve` says once everything is there: where it is, and how to browse with links to it."""

import json
import shlex

import pytest

from flows.cli.serve import _show
from flows.serving.machine import Addresses
from registry.browse import Elsewhere


@pytest.mark.parametrize("mlflow", ["http://127.0.0.1:5000", None])
def test_the_addresses_are_those_that_browse_takes(capsys: pytest.CaptureFixture[str], mlflow: str | None) -> None:
    at = Addresses("http://127.0.0.1:4200", "http://127.0.0.1:4200/api", mlflow, ("refresh/nightly",))
    _show(at, as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if " browse " in line)
    words = shlex.split(line.partition(": ")[2])
    assert words[1] == "browse"
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {"--prefect": at.prefect} | ({"--mlflow": mlflow} if mlflow else {})
    found = Elsewhere.find(given.get("--mlflow"), given["--prefect"], environment={"PREFECT_API_URL": at.api})
    assert found == Elsewhere(mlflow or "", at.prefect)
    assert Elsewhere.find(environment={"PREFECT_API_URL": at.api}).prefect == at.prefect  # as that terminal has it
    _show(at, as_json=True)
    assert json.loads(capsys.readouterr().out)["mlflow"] == mlflow

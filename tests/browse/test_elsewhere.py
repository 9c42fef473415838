"""Links to a run's pages in MLflow and Prefect: where they lead, against both libraries, and what is never a link."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from contrans.errors import SpecError
from registry import Registry
from registry.browse import Elsewhere, Reader, create_app, report_html
from registry.browse.elsewhere import pages_of, web_address
from registry.records import Run
from tests.browse.conftest import ADDRESS
from tests.browse.material import HOSTILE
from tests.browse.test_pages import Page

MLFLOW, PREFECT = "http://127.0.0.1:5000", "http://127.0.0.1:4200"
VERSION = "/version/transplant/anger/small/tiny@3"
CLOUD = "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2"
BAD = ["javascript:alert(1)", "JavaScript://host/%0aalert(1)", "data:text/html,x", "//evil.example", "ftp://host", "x"]


def run_of(mlflow: str | None = "m1", prefect: str | None = "p1") -> Run:
    return Run("run", prefect, mlflow, None, "ab", {}, "completed", datetime(2026, 1, 1, tzinfo=UTC), None)


def links(reader: Reader, elsewhere: Elsewhere, address: str = VERSION) -> list[str]:
    with TestClient(create_app(reader, elsewhere=elsewhere), base_url=ADDRESS) as client:
        return [link for link in Page(client.get(address).text).links if not link.startswith(("/", "#"))]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        (" https://mlflow.example/team/ ", "https://mlflow.example/team"),
        ("HTTP://Host:80/", "http://host:80"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        ("https://me:secret@mlflow.example:8443/x?token=1#/y", "https://mlflow.example:8443/x"),
        ('http://host/"><script>', "http://host/%22%3E%3Cscript%3E"),
        ("http://ho st/", ""),
        ('http://host"onclick=/', ""),
        ("http://host:99999/", ""),
        ("http://[half/", ""),
        ("http://", ""),
        ("sqlite:///mlflow.db", ""),
        ("databricks", ""),
        ("", ""),
        *((bad, "") for bad in BAD),
    ],
)
def test_web_address(given: str, address: str) -> None:
    assert web_address(given) == address


@pytest.mark.parametrize("api", ["http://127.0.0.1:4200/api", "https://prefect.example/team/api", CLOUD])
def test_pages_of_an_api_are_where_prefect_says(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.delenv("PREFECT_UI_URL", raising=False)
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, Settings, temporary_settings
    from prefect.utilities.urls import url_for

    assert pages_of(api) == Settings().ui_url
    with temporary_settings({PREFECT_API_URL: api, PREFECT_UI_URL: pages_of(api)}):
        of_prefect = url_for("flow-run", "72f3bae8-516b-4648-9b55-2b75c34cd1fd")
    assert Elsewhere(prefect=pages_of(api)).prefect_run(run_of(prefect="72f3bae8-516b-4648-9b55-2b75c34cd1fd")) == (
        of_prefect
    )


def test_mlflows_pages_know_the_way_from_a_run_alone() -> None:
    import mlflow

    scripts = (Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js").glob("main.*.js")
    assert any('"/runs/:runUuid"' in script.read_text(encoding="utf-8") for script in scripts)
    assert Elsewhere(mlflow=MLFLOW).mlflow_run(run_of("ab12")) == f"{MLFLOW}/#/runs/ab12"


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        ((None, None), {}, Elsewhere()),
        (
            (None, None),
            {"MLFLOW_TRACKING_URI": MLFLOW, "PREFECT_API_URL": f"{PREFECT}/api"},
            Elsewhere(MLFLOW, PREFECT),
        ),
        ((None, None), {"MLFLOW_TRACKING_URI": "sqlite:///x.db", "PREFECT_API_URL": ""}, Elsewhere()),
        (
            (None, None),
            {"PREFECT_UI_URL": "http://ui:1", "PREFECT_API_URL": f"{PREFECT}/api"},
            Elsewhere("", "http://ui:1"),
        ),
        ((None, None), {"PREFECT_UI_URL": "javascript:x", "MLFLOW_TRACKING_URI": "javascript:x"}, Elsewhere()),
        (
            (MLFLOW, "http://b"),
            {"MLFLOW_TRACKING_URI": "http://a", "PREFECT_UI_URL": "http://a"},
            Elsewhere(MLFLOW, "http://b"),
        ),
    ],
)
def test_given_addresses_go_before_those_of_the_environment(
    given: tuple[str | None, str | None], environment: dict[str, str], found: Elsewhere
) -> None:
    assert Elsewhere.find(*given, environment=environment) == found


@pytest.mark.parametrize("bad", [*BAD, "", "sqlite:///mlflow.db"])
def test_given_address_that_is_not_on_the_web_is_refused(bad: str) -> None:
    for mlflow, prefect, option in ((bad, None, "--mlflow"), (None, bad, "--prefect")):
        with pytest.raises(SpecError, match=f"{option} .* is no web address; give one such as http"):
            Elsewhere.find(mlflow, prefect, environment={})


def test_page_links_to_the_run_in_mlflow_and_prefect(reader: Reader) -> None:
    whole = Elsewhere(MLFLOW, PREFECT)
    assert links(reader, whole) == [f"{PREFECT}/runs/flow-run/flow-1", f"{MLFLOW}/#/runs/mlflow-1"]
    assert links(reader, Elsewhere(mlflow=MLFLOW)) == [f"{MLFLOW}/#/runs/mlflow-1"]
    assert links(reader, Elsewhere()) == []
    report = Page(report_html(reader, reader.get("anger@3")))
    assert report.links == []  # addresses of this machine are of no use to whom it is sent


def test_page_says_how_ids_become_links(reader: Reader) -> None:
    for elsewhere, options in (
        (Elsewhere(), "--mlflow URL --prefect URL"),
        (Elsewhere(mlflow=MLFLOW), "--prefect URL"),
        (Elsewhere(MLFLOW, PREFECT), None),
    ):
        with TestClient(create_app(reader, elsewhere=elsewhere), base_url=ADDRESS) as client:
            text = client.get(VERSION).text
        assert ("To make links of these ids" in text) == (options is not None)
        assert "flow-1" in text
        assert "mlflow-1" in text
        if options:
            assert f"<code>contrans browse {options}</code>" in text
    assert Elsewhere().lacking(run_of(None, None)) == ""


def test_hostile_ids_of_runs_stay_ids(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "registry.db") as registry:
        registry.start_run("run-1", spec={}, spec_hash="ab", flow_run_id="javascript:alert(1)")
        registry.register("model", "m", manifest={"reference": "m"}, run_id="run-1")
        registry.finish_run("run-1", "completed", mlflow_run_id=f"../../{HOSTILE}"[:200])
    with Reader.open(tmp_path / "registry.db") as reader:
        prefect, mlflow = links(reader, Elsewhere(MLFLOW, PREFECT), "/version/model/m@1")
        assert prefect == f"{PREFECT}/runs/flow-run/javascript%3Aalert%281%29"
        assert mlflow.startswith(f"{MLFLOW}/#/runs/..%2F..%2F%3Cscript%3E")
        with TestClient(create_app(reader, elsewhere=Elsewhere(MLFLOW, PREFECT)), base_url=ADDRESS) as client:
            assert "<script" not in client.get("/version/model/m@1").text
        assert links(reader, Elsewhere(), "/version/model/m@1") == []

"""A registry in which every text is hostile that the registry takes (names it refuses): shown as text on every page."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from contrans.models import load_model
from registry import Registry
from registry.browse import Elsewhere, Reader, create_app, report_html, report_markdown
from registry.hub.recording import record
from tests.browse.conftest import ADDRESS, Filled
from tests.browse.material import BLOCK, HOSTILE, results_of, vector_of
from tests.browse.test_pages import Page

SHORT = HOSTILE[:60]
PAGES = (
    "/",
    "/?every=1&sort=gain",
    "/versions",
    "/version/transplant/bad@1",
    "/version/validation/bad-judged@1",
    "/version/text_set/scenarios@1",
    "/lineage/transplant/bad@1?steps=4",
    "/lineage/text_set/scenarios@1?steps=4",
    "/compare?v=transplant:bad@1&v=transplant:bad@2",
    "/pairs",
    "/space?model=m",
    "/play?target=m&concept1=transplant:bad@1&prompt=%3Cscript%3E",
    "/report/transplant/bad@1",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, filled: Filled) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("hostile") / "registry.db"
    target = load_model(str(filled.folder / "tiny"))
    with Registry.open(path) as registry:
        registry.start_run("run", spec={"name": HOSTILE}, spec_hash="ab", flow_run_id=HOSTILE, commit=SHORT)
        texts = {"hash": HOSTILE, "n_texts": 2, "split": HOSTILE, "scenario": HOSTILE, "licence": HOSTILE}
        scenarios = registry.register("text_set", "scenarios", manifest=texts)
        model = registry.register("model", "m", manifest=target.record.to_json() | {"family": HOSTILE, "card": HOSTILE})
        own = {"concept": HOSTILE, "estimator": HOSTILE, "block": 1}
        vector = registry.register("vector", "v", manifest=own, inputs={"model": model, "texts": scenarios})
        for i in range(2):
            manifest = {"concept": HOSTILE, "block": BLOCK, "dose": 0.2, "card": HOSTILE, HOSTILE: {HOSTILE: i}}
            files = vector_of(target, HOSTILE, i).to_files()
            inputs = {"vector": vector, "target": model}
            made = registry.register("transplant", "bad", manifest=manifest, files=files, inputs=inputs, run_id="run")
            judged = {"protocol": "emotion", "concept": HOSTILE, "serial": i}
            found = results_of(HOSTILE, 0.5 + i / 10)
            registry.register("validation", "bad-judged", manifest=judged, inputs={"transplant": made}, results=found)
            record(registry, [made], repo=HOSTILE, commit=SHORT, tag=HOSTILE)
        registry.finish_run("run", "completed", mlflow_run_id=HOSTILE)
    with Reader.open(path) as reader:
        yield reader


@pytest.mark.parametrize("address", PAGES)
def test_every_page_shows_it_as_text(hostile: Reader, address: str) -> None:
    elsewhere = Elsewhere("http://127.0.0.1:5000", "http://127.0.0.1:4200")
    with TestClient(create_app(hostile, elsewhere=elsewhere), base_url=ADDRESS) as client:
        answer = client.get(address)
    assert answer.status_code == 200
    page = Page(answer.text)
    assert "<script>alert" not in answer.text
    assert "img" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert all(asset.startswith(("/", "#")) for asset in page.assets)
    assert all(link.startswith(("/", "#", "http://127.0.0.1:")) for link in page.links)
    assert "&#39;49" not in answer.text  # no text is read as a template


def test_lineage_ends_in_the_publication(hostile: Reader) -> None:
    with TestClient(create_app(hostile), base_url=ADDRESS) as client:
        text = client.get("/lineage/transplant/bad@1").text
    assert "publication" in text
    assert "published" in text


def test_reports_show_it_as_text(hostile: Reader) -> None:
    version = hostile.get("transplant:bad@1")
    for report in (report_html(hostile, version), report_markdown(hostile, version)):
        assert "<script>alert" not in report.partition("```python")[0]
        assert "<img" not in report.partition("```python")[0]

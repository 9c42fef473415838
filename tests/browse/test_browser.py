"""The pages in a real browser: Debian's chromium, driven by Playwright, against a server on loopback.

Every test fails on an error in the console and on a request that leaves loopback. Accessibility is checked by
axe-core, which is fetched from npm where it is not at hand. With CONTRANS_BROWSE_REGISTRY naming a registry that the
quickstart made, the last tests walk over that too; and with CONTRANS_SCREENS naming a folder they play with Gemma and
take the pictures of the README.
"""

import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from registry import Registry
from registry.browse import Elsewhere, Reader, create_app
from tests.browse.conftest import Filled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    expect, sync_playwright = sync_api.expect, sync_api.sync_playwright

pytestmark = pytest.mark.browser

AXE = "axe-core@4.14.1"
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
TOKEN = "a-token-of-some-length"
_LARGEST = 200_000  # bytes of a picture


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if _CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield opened
        opened.close()


def _serve(reader: Reader, **settings: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(reader, **settings), port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def address(filled: Filled, browser: "Browser") -> Iterator[str]:
    with Reader.open(filled.path) as reader:
        yield from _serve(reader)


@pytest.fixture
def visit(browser: "Browser", address: str) -> "Iterator[Callable[..., Page]]":
    """Opens a page in a window of its own, and watches it until the end of the test."""
    contexts, wrong = [], []

    def opened(path: str, *, width: int = 1200, scheme: Any = "light", home: str = address, **more: Any) -> "Page":
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(home) else wrong.append(f"left: {asked.url}"))
        page.goto(home + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to fetch axe-core with")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        ["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    packed = next(folder.glob("axe-core-*.tgz"), None)
    if done.returncode or packed is None:
        pytest.skip(f"axe-core cannot be fetched from npm: {done.stderr.strip()[-200:]}")
    with tarfile.open(packed) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def test_search_open_compare_and_walk_the_lineage(visit: "Callable[..., Page]") -> None:
    page = visit("/")
    assert page.locator("table.list tbody tr").count() == 2
    page.get_by_label("Search").fill("joy")
    expect(page.locator("table.list tbody tr")).to_have_count(1)
    assert "text=joy" in page.url  # what was found can be sent on
    page.get_by_role("link", name="joy", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == "joy/small/tiny@3"
    assert page.locator("svg.chart").count() == 2
    assert page.locator("svg.chart").first.bounding_box()["width"] > 300  # type: ignore[index]
    page.get_by_role("link", name="Lineage", exact=True).click()
    page.locator('a.box[href="/lineage/vector/joy/small@1"]').click()
    assert page.get_by_role("heading", level=1).inner_text() == "Lineage of joy/small@1"
    page.locator('a.box[href="/lineage/text_set/emotion/anger/refine@1"]').click()
    assert page.get_by_role("heading", level=1).inner_text() == "Lineage of emotion/anger/refine@1"
    page.goto(page.url.split("/lineage")[0] + "/?every=1")
    page.get_by_label("Compare joy/small/tiny@1").check()
    page.get_by_label("Compare joy/small/tiny@3").check()
    page.get_by_role("button", name="Compare the chosen").click()
    assert page.locator(".verdict.lower").count() > 0  # the later one stands first
    page.go_back()
    assert page.get_by_role("heading", level=1).inner_text() == "Concepts"


def test_play_with_a_dose_and_stop(visit: "Callable[..., Page]") -> None:
    page = visit("/version/transplant/anger/small/tiny@3")
    page.get_by_role("link", name="Try it in the playground").click()
    slider = page.get_by_label("Dose").first
    assert slider.input_value() == "0.2"
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator("output").first.inner_text() == "0.15"
    slider.fill("-0.5")
    page.get_by_label("Prompt").fill("I opened the <b>letter</b>")
    page.get_by_label("Tokens").fill("8")
    page.get_by_role("button", name="Write").click()
    expect(page.locator("#state")).to_have_text("Done.", timeout=90_000)
    assert page.locator("#steered span.kl").count() == 8
    assert page.locator("#unsteered span").count() == 8
    assert "nats per token" in page.locator("#kl").inner_text()
    page.get_by_label("Tokens").fill("200")
    page.get_by_role("button", name="Write").click()
    page.wait_for_selector("#steered span.kl")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("Stopped.")
    assert page.get_by_role("button", name="Write").is_enabled()


def test_phone_width_needs_no_sideways_scrolling(visit: "Callable[..., Page]") -> None:
    for path in ("/", "/version/transplant/anger/small/tiny@3", "/compare?v=anger@1&v=anger@3", "/space", "/play"):
        page = visit(path, width=360)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert page.get_by_role("navigation").is_visible()


def test_keyboard_reaches_the_content_and_every_control(visit: "Callable[..., Page]") -> None:
    page = visit("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    wanted = page.locator("main a, main button, main input, main select").count()
    reached: set[str] = set()
    for _ in range(wanted + 10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => [e.tagName, e.name, e.value, e.textContent].join())(document.activeElement)"))
    for name in ("text", "where", "sort", "every"):
        assert any(f",{name}," in each for each in reached), name
    assert any("Compare the chosen" in each for each in reached)


def test_without_scripts_the_pages_work_too(browser: "Browser", address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Search").fill("joy")
    page.get_by_role("button", name="Search").click()
    assert page.locator("table.list tbody tr").count() == 1
    page.goto(f"{address}/play?target=tiny")
    page.get_by_label("Tokens").fill("3")
    page.set_default_timeout(90_000)
    page.get_by_role("button", name="Write").click()
    assert page.locator("#steered span.kl").count() == 3
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: "Callable[..., Page]", axe: str, scheme: str) -> None:
    for path in (
        "/",
        "/versions",
        "/version/transplant/anger/small/tiny@3",
        "/lineage/transplant/anger/small/tiny@3",
        "/compare?v=anger@1&v=anger@3",
        "/pairs",
        "/space",
        "/play",
    ):
        page = visit(path, scheme=scheme, bypass_csp=True)  # which lets no foreign script in
        _check_accessible(page, axe)


def test_token_opens_the_page_that_was_wanted(browser: "Browser", filled: Filled, axe: str) -> None:
    with Reader.open(filled.path) as reader:
        server = _serve(reader, token=TOKEN)
        context = browser.new_context(viewport={"width": 360, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{next(server)}/versions?kind=map")
        assert page.get_by_role("heading", level=1).inner_text() == "A token is wanted"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        _check_accessible(page, axe)
        page.get_by_label("Token").fill("not-the-right-token")
        page.get_by_role("button", name="Open").click()
        assert page.get_by_role("alert").inner_text() == "That is not the token."
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url("**/versions?kind=map")
        assert page.get_by_role("heading", level=1).inner_text() == "Everything registered"
        context.close()
        next(server, None)


@pytest.fixture
def mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str, str]]:
    """Where MLflow's own pages are served, and the ids of an experiment and of a run in it."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.server import app
    from mlflow.tracking import MlflowClient
    from werkzeug.serving import make_server

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (tmp_path / "artifacts").as_uri())
    client = MlflowClient(tracking_uri=store)
    experiment = client.create_experiment("contrans", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    client.set_terminated(run)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", experiment, run
    server.shutdown()
    thread.join(20)


def test_link_to_mlflow_leads_to_the_run(browser: "Browser", mlflow_run: tuple[str, str, str], tmp_path: Path) -> None:
    mlflow, experiment, run = mlflow_run
    with Registry.open(tmp_path / "registry.db") as registry:
        registry.start_run("run-1", spec={}, spec_hash="ab")
        registry.register("model", "m", manifest={"reference": "m"}, run_id="run-1")
        registry.finish_run("run-1", "completed", mlflow_run_id=run)
    with Reader.open(tmp_path / "registry.db") as reader:
        server = _serve(reader, elsewhere=Elsewhere(mlflow=mlflow))
        page = browser.new_page()
        page.goto(f"{next(server)}/version/model/m@1")
        page.get_by_role("link", name=run).click()
        page.wait_for_url(f"{mlflow}/#/experiments/{experiment}/runs/{run}", timeout=90_000)
        page.close()
        next(server, None)


@pytest.fixture
def real() -> Iterator[tuple[Reader, str]]:
    """A registry of real results, and where it is served."""
    registry = os.environ.get("CONTRANS_BROWSE_REGISTRY")
    if not registry:
        pytest.skip("CONTRANS_BROWSE_REGISTRY is not set")
    with Reader.open(registry) as reader:
        server = _serve(reader)
        yield reader, next(server)
        next(server, None)


def test_walk_over_real_results(visit: "Callable[..., Page]", real: tuple[Reader, str], axe: str) -> None:
    reader, home = real
    found = reader.get("anger", kind="transplant")
    parents = dict(reader.inputs(found))
    page = visit("/", home=home, bypass_csp=True)
    page.get_by_label("Search").fill("anger")
    expect(page.locator("table.list tbody tr")).to_have_count(1)
    _check_accessible(page, axe)
    page.get_by_role("link", name="anger", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == found.ref
    assert page.locator("svg.chart").count() >= 2
    assert "of the gain of the target's own vector" in page.locator(".headline").first.inner_text()
    _check_accessible(page, axe)
    page.get_by_role("link", name="Lineage", exact=True).click()
    for role in ("vector", "model"):
        at = parents[role]
        page.locator(f'a.box[href="/lineage/{at.kind}/{at.ref}"]').click()
        assert page.get_by_role("heading", level=1).inner_text() == f"Lineage of {at.ref}"
        parents = dict(reader.inputs(at))
    first, last = str(found), str(reader.get("fear", kind="transplant"))
    for path in ("/pairs", "/space", f"/compare?v={first}&v={last}", f"/version/transplant/{found.ref}", "/play"):
        page = visit(path, home=home, width=360, scheme="dark", bypass_csp=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        _check_accessible(page, axe)


def test_pictures_of_real_results(visit: "Callable[..., Page]", real: tuple[Reader, str]) -> None:
    folder = os.environ.get("CONTRANS_SCREENS")
    if not folder:
        pytest.skip("CONTRANS_SCREENS is not set")
    reader, home = real
    found = reader.get("anger@1", kind="transplant")  # what the quickstart makes
    page = visit(f"/version/transplant/{found.ref}", home=home)
    _picture(page, Path(folder) / "version.png")
    page = visit(f"/play?target=gemma-3-270m&concept1={found}&dose1=0.14&tokens=30", home=home)
    page.get_by_label("Prompt").fill("When I heard what they had done with my letter, I felt")
    page.get_by_role("button", name="Write").click()
    expect(page.locator("#state")).to_have_text("Done.", timeout=300_000)
    _picture(page, Path(folder) / "playground.png")


def _check_accessible(page: "Page", axe: str) -> None:
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    serious = [
        (violation["id"], violation["nodes"][0]["html"][:200], violation["nodes"][0]["failureSummary"][:300])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == [], (page.url, json.dumps(serious, indent=1))


def _picture(page: "Page", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.screenshot(path=path)
    assert path.stat().st_size <= _LARGEST

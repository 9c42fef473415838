"""Every page: what stands on it, that texts are escaped, that nothing leads elsewhere, that nothing is changed."""

import hashlib
import re
from html.parser import HTMLParser

import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from contrans.errors import RegistryError
from registry import Registry
from registry.browse import Reader, create_app
from registry.browse.reading import ReadOnlyDatabase
from registry.schema import TagRow
from tests.browse.conftest import ADDRESS, Filled
from tests.browse.material import HOSTILE

PAGES = [
    "/",
    "/?sort=gain",
    "/?sort=name&every=1",
    "/versions",
    "/versions?kind=map",
    "/version/transplant/anger/small/tiny@3",
    "/version/transplant/anger/small/tiny@production",
    "/version/validation/anger/small/tiny/emotion@2",
    "/version/validation/odd",
    "/version/vector/anger/small",
    "/version/map/small/tiny",
    "/version/model/tiny",
    "/version/text_set/emotion/anger/refine",
    "/lineage/transplant/anger/small/tiny@3",
    "/lineage/text_set/emotion/anger/refine?steps=4",
    "/compare",
    "/compare?v=anger@1&v=anger@3",
    "/pairs",
    "/space",
    "/space?model=tiny&block=2",
    "/play",
    "/play?target=tiny&concept1=transplant:joy/small/tiny@1",
    "/report/transplant/anger/small/tiny@3",
]


class Page(HTMLParser):
    """Links, assets, tags, identifiers and handlers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "action"):
                self.assets.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


@pytest.mark.parametrize("address", PAGES)
def test_every_page_is_whole_escaped_and_stays_here(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200
    page = Page(answer.text)
    assert {"main", "h1", "title"} <= set(page.tags)
    assert HOSTILE not in answer.text
    assert "<img" not in answer.text
    assert "&#39;49" not in answer.text  # no text of the registry is read as a template
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}
    assert len(page.ids) == len(set(page.ids))
    for link in (*page.links, *page.assets):
        assert link.startswith(("/", "#")), link
        assert not link.startswith("//")
    if "script" in page.tags:
        assert all(asset.startswith("/static/") for asset in page.assets if asset.endswith(".js"))
    for table in re.findall(r"<table.*?</table>", answer.text, re.DOTALL):
        assert "<caption>" in table


def test_what_is_hostile_is_shown_as_text(client: TestClient) -> None:
    text = client.get("/version/transplant/anger/small/tiny@3").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    found = client.get("/", params={"text": HOSTILE, "concept": HOSTILE, "target": '"><script>'}).text
    assert "<script>alert" not in found
    assert "&lt;script&gt;" in found


def test_concepts_are_searched_filtered_and_sorted(client: TestClient) -> None:
    def names(**query: str) -> list[str]:
        text = client.get("/", params=query).text
        return re.findall(r'<th scope="row"><a href="/version/transplant/([^"]+)"', text)

    assert names() == ["joy/small/tiny@3", "anger/small/tiny@3"]
    assert names(sort="name") == ["anger/small/tiny@3", "joy/small/tiny@3"]
    assert names(sort="gain", every="1")[:2] == ["joy/small/tiny@3", "joy/small/tiny@2"]
    assert names(text="ANG") == ["anger/small/tiny@3"]
    assert names(text="paper") == ["anger/small/tiny@3"]
    assert names(concept="joy") == ["joy/small/tiny@3"]
    assert names(family="emotion") == ["anger/small/tiny@3"]
    assert names(alias="production") == ["anger/small/tiny@3"]
    assert names(source="small", target="tiny", estimator="ridge") == names()
    assert names(source="tiny") == []
    assert names(estimator="mean_difference") == names()
    assert names(where="gain_recovered > .8") == ["joy/small/tiny@3"]
    assert names(where="gain_recovered > .65 and kl < .1") == names()
    assert names(where="own/gain_recovered > .1") == []


def test_pages_of_the_list_hold_each_version_once(reader: Reader) -> None:
    from registry.browse.filtering import Filters
    from registry.browse.listing import concepts_page

    for sort in ("new", "name", "gain"):
        seen: list[str] = []
        after = ""
        while True:
            page = concepts_page(reader, Filters(every=True, sort=sort, after=after), size=2)  # type: ignore[arg-type]
            seen += [line.version.ref for line in page.lines]
            after = page.after
            if not after:
                break
        assert len(seen) == len(set(seen)) == 6, sort
    line = concepts_page(reader, Filters(concept="anger")).lines[0]
    assert [round(gain.value, 3) for gain in line.gains] == [0.5, 0.6, 0.7]
    assert (line.source, line.target, line.gain and line.gain.number) == ("small", "tiny", 3)


def test_live_search_answers_with_what_was_found_alone(client: TestClient) -> None:
    part = client.get("/?text=joy", headers={"HX-Request": "true"}).text
    assert part.strip().startswith('<div id="found">')
    assert "<html" not in part
    assert "joy/small/tiny@3" in part


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/?where=gain_recovered", 400, "gain_recovered"),
        ("/?text=%20-%20", 400, "no word"),
        ("/?sort=size", 400, "no order"),
        ("/?after=%00", 400, "first page"),
        ("/?sort=name&after=WyJuZXciLDEsMSwxXQ", 400, "another order"),
        ("/versions?kind=ghost", 400, "no kind"),
        ("/version/transplant/none@1", 404, "no transplant named"),
        ("/version/ghost/anger", 404, "no kind"),
        ("/lineage/transplant/anger/small/tiny@99", 404, "versions 1 to 3"),
        ("/compare?v=anger@1", 400, "compare two to 6"),
        ("/compare?v=anger@1&v=ghost", 400, "no version named"),
        ("/space?model=ghost", 400, "no vectors of a model"),
        ("/space?model=tiny&block=9", 400, "block 9"),
        ("/nothing", 404, "no such page"),
        ("/static/nothing.css", 404, "no such page"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(client: TestClient, address: str, status: int, words: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert words in answer.text.lower()
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/static//etc/passwd",
        "/version/transplant/../../../etc/passwd",
        "/version/transplant/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/report/transplant/..%2f..%2fregistry.db",
        "/version/transplant/anger%00",
    ],
)
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "Starlette(" not in answer.text


def test_version_page_says_what_it_is_and_what_was_found(client: TestClient) -> None:
    text = client.get("/version/transplant/anger/small/tiny@3").text
    assert "The concept “anger”, refined from anger/small@1 and carried by a ridge map into block 2 of tiny" in text
    assert "It recovers 0.70 [0.65, 0.75] of the gain" in text
    assert "The source hardly holds anger" in text  # a warning in words, from what the vector's header says
    assert text.count('<svg class="chart"') == 3  # two of the protocol, one of the odd validation
    assert "logit accuracy of anger against dose" in text
    for words in ("run-1", "flow-1", "mlflow-1", "production", "paper", "contrans.transplant(target, vector"):
        assert words in text
    assert "Samples side by side" in text
    assert 'href="/compare?v=transplant%3Aanger%2Fsmall%2Ftiny%402&amp;v=transplant%3Aanger%2Fsmall%2Ftiny%403"' in text


def test_lines_of_python_run_as_they_stand(
    filled: Filled, reader: Reader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry.browse.pages import version_page

    monkeypatch.setenv("CONTRANS_HOME", str(filled.folder))
    lines = version_page(reader, filled.made["anger"]).python
    assert lines is not None
    assert len([line for line in lines.splitlines() if not line.startswith("import")]) == 5
    exec(lines, {})
    assert capsys.readouterr().out.startswith("[")


def test_lineage_walks_from_texts_to_validation(client: TestClient) -> None:
    text = client.get("/lineage/transplant/anger/small/tiny@3").text
    links = Page(text).links
    for link in (
        "/lineage/text_set/emotion/anger/refine@1",
        "/lineage/vector/anger/small@1",
        "/lineage/map/small/tiny@3",
        "/lineage/validation/anger/small/tiny/emotion@3",
    ):
        assert link in links
    assert 'aria-current="true"' in text


def test_comparison_tells_apart_only_what_differs(client: TestClient) -> None:
    text = client.get("/compare?v=anger@1&v=anger@3").text
    assert re.search(r'0\.70 \[0\.65, 0\.75\] <span class="verdict higher">higher', text)
    assert re.search(r'0\.12 \[0\.08, 0\.17\] <span class="verdict no-difference">no difference', text)
    assert "block 2" in text
    assert "serial" in text


def test_pairs_lead_to_their_evidence(client: TestClient) -> None:
    text = client.get("/pairs").text
    assert "0.80" in text  # of .7 and .9
    assert "2 concepts" in text
    link = next(link for link in Page(text).links if "source=small" in link)
    assert client.get(link).text.count("<tr>\n<td><input") == 2


def test_report_is_one_file(client: TestClient) -> None:
    answer = client.get("/report/transplant/anger/small/tiny@3")
    assert answer.headers["content-disposition"] == 'attachment; filename="anger-small-tiny-3.html"'
    page = Page(answer.text)
    assert page.links == page.assets == []
    assert "script" not in page.tags
    assert "<style>" in answer.text
    assert answer.text.count("<svg") == 3


def test_nothing_is_changed_by_a_walk_over_every_link(client: TestClient, filled: Filled) -> None:
    before = _state(filled)
    waiting, seen = list(PAGES), set()
    while waiting:
        address = waiting.pop()
        if address in seen or address.startswith("#"):
            continue
        seen.add(address)
        for method in (client.get, client.head):
            answer = method(address)
            assert answer.status_code == 200, address
        if answer.request.method == "HEAD" and len(seen) < 150:
            waiting += [link for link in Page(client.get(address).text).links if link not in seen]
    assert len(seen) > 40
    assert _state(filled) == before


def test_only_reading_routes_exist_and_the_playground(reader: Reader) -> None:
    app = create_app(reader)
    methods = {
        (route.path, method)  # type: ignore[attr-defined]
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
        if method not in ("GET", "HEAD")
    }
    assert methods == {("/play", "POST")}
    with TestClient(app, base_url=ADDRESS) as opened:
        for path in ("/", "/versions", "/version/transplant/anger/small/tiny@3", "/static/style.css"):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                assert opened.request(method, path).status_code == 405


def test_database_cannot_be_written_even_by_those_who_try(filled: Filled, reader: Reader) -> None:
    assert not isinstance(reader, Registry)
    database = ReadOnlyDatabase(filled.path)
    with pytest.raises(RegistryError, match="for reading only"), database.writing():
        raise AssertionError
    with pytest.raises(RegistryError, match="for reading only"), database.migrating():
        raise AssertionError
    statement = insert(TagRow).values(version_id=1, tag="mine")
    with pytest.raises(RegistryError, match="read-only"), reader.session() as session:
        session.execute(statement)


def _state(filled: Filled) -> dict[str, str]:
    files = [filled.path, *(path for path in (filled.folder / "blobs").rglob("*") if path.is_file())]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

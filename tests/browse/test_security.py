"""Who gets in, what every answer carries, and what is refused."""

import pytest
from starlette.testclient import TestClient

from contrans.errors import RegistryError, SpecError
from registry import Registry
from registry.browse import Reader, create_app
from registry.browse.security import COOKIE, HEADERS, check_exposure, is_loopback
from registry.browse.serving import serve
from tests.browse.conftest import ADDRESS
from tests.browse.material import HOSTILE
from tests.browse.test_pages import Page

TOKEN = "a-token-of-some-length"


@pytest.fixture
def guarded(reader: Reader) -> TestClient:
    return TestClient(create_app(reader, token=TOKEN, local=False), base_url=ADDRESS, follow_redirects=False)


@pytest.mark.parametrize("address", ["/", "/nothing", "/version/transplant/none", "/static/style.css", "/play"])
def test_every_answer_carries_the_headers(client: TestClient, address: str) -> None:
    answer = client.get(address)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_report_may_hold_styles_and_nothing_else(client: TestClient) -> None:
    policy = client.get("/report/transplant/anger/small/tiny@3").headers["Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def test_token_is_wanted_and_becomes_a_cookie(guarded: TestClient) -> None:
    for address in ("/", "/version/transplant/anger/small/tiny@3", "/?token=wrong", "/play", "/nothing"):
        answer = guarded.get(address)
        assert answer.status_code == 401, address
        assert "anger" not in answer.text
        assert "token" in answer.text
    assert guarded.post("/play", data={"token": TOKEN}).status_code == 401
    answer = guarded.get(f"/versions?kind=map&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/versions?kind=map")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.get("/versions?kind=map").status_code == 200
    guarded.cookies.clear()
    assert guarded.get("/", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401  # the token is not its cookie
    assert guarded.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert guarded.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).headers["cache-control"] == "no-store"


def test_page_that_asks_for_the_token_says_what_to_do_and_nothing_else(guarded: TestClient, reader: Reader) -> None:
    answer = guarded.get("/versions", params={"kind": "map", HOSTILE: HOSTILE})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    page = Page(answer.text)
    assert {"main", "h1", "form"} <= set(page.tags)
    assert (page.links, page.tags.count("script")) == (["#main", "/"], 0)
    assert reader.shown not in answer.text
    assert HOSTILE not in answer.text
    assert '<input type="hidden" name="kind" value="map">' in answer.text
    for words in ("A token is wanted", "?token=", "Authorization: Bearer TOKEN"):
        assert words in answer.text
    assert "That is not the token." not in answer.text
    wrong = guarded.get("/versions?kind=map&token=wrong")
    assert "That is not the token." in wrong.text
    assert "wrong" not in wrong.text
    assert guarded.get("/static/style.css").status_code == 200  # which the page is drawn with


def test_redirect_after_the_token_stays_here(guarded: TestClient) -> None:
    for path in ("//evil.example/", "/\\evil.example/"):
        guarded.cookies.clear()
        answer = guarded.get(f"{ADDRESS}{path}?token={TOKEN}")
        assert answer.status_code == 303
        assert answer.headers["location"] in ("/evil.example/", "/%5Cevil.example/")  # a path of this very host


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8760", "127.0.0.1.evil.example", "", "10.0.0.1"])
def test_other_names_of_this_machine_are_not_served(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8760", "localhost:1", "localhost", "[::1]:8760", "127.9.9.9"])
def test_names_of_loopback_are_served(client: TestClient, host: str) -> None:
    assert client.get("/versions", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_other_sites_cannot_make_it_write(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/play", data={"prompt": "x"}, headers=headers).status_code == 403


def test_host_other_than_loopback_demands_a_token(reader: Reader) -> None:
    with pytest.raises(SpecError, match=r"Other machines reach 0\.0\.0\.0"):
        serve(reader, host="0.0.0.0", port=0)
    with pytest.raises(SpecError, match="at least 16"):
        serve(reader, host="0.0.0.0", port=0, token="short")
    check_exposure("0.0.0.0", TOKEN)
    check_exposure("::1", None)
    with pytest.raises(SpecError, match=r"Port 1 of 256\.0\.0\.1"):
        serve(reader, host="256.0.0.1", port=1, token=TOKEN)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_registry_that_is_missing_old_or_no_registry_is_refused(tmp_path) -> None:
    with pytest.raises(RegistryError, match="There is no registry at"):
        Reader.open(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("hello, this is no database at all")
    with pytest.raises(RegistryError, match="is not a database"):
        Reader.open(tmp_path / "text.db")
    from registry.migrate import downgrade

    registry = Registry.open(tmp_path / "old.db")
    downgrade(registry._database, "0001")
    registry.close()
    with pytest.raises(RegistryError, match="contrans registry upgrade"):
        Reader.open(tmp_path / "old.db")


def test_path_with_signs_of_an_address_is_opened(tmp_path) -> None:
    folder = tmp_path / "a b%20?x#y"
    folder.mkdir()
    Registry.open(folder / "registry.db").close()
    with Reader.open(folder / "registry.db") as reader:
        assert reader.list() == []
        answer = TestClient(create_app(reader), base_url=ADDRESS).get("/")
        assert "contrans run quickstart" in answer.text

"""What each address answers: the query is read, the registry asked, a template filled in."""

from collections.abc import Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from contrans.errors import RegistryError
from contrans.validation.wording import shown
from registry.browse import graph, links, pages, spaces
from registry.browse.charts import heat
from registry.browse.comparing import compare_versions
from registry.browse.elsewhere import NOWHERE, Elsewhere
from registry.browse.facts import parse
from registry.browse.filtering import Filters
from registry.browse.listing import choices, concepts_page
from registry.browse.reading import Reader
from registry.names import KINDS
from registry.records import Version

FOLDER = Path(__file__).parent
_PAGES = (
    ("/", "Concepts"),
    ("/versions", "Everything"),
    ("/compare", "Compare"),
    ("/pairs", "Pairs"),
    ("/space", "Concept space"),
    ("/play", "Playground"),
)
_MAX_TEXT = 2000  # characters of a field


class Pages:
    """Renders templates and answers requests on one registry.

    Args:
        registry: What is shown.
        elsewhere: Where MLflow and Prefect show its runs.
    """

    def __init__(self, registry: Reader, elsewhere: Elsewhere = NOWHERE) -> None:
        self.registry = registry
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "pages": _PAGES,
            "place": registry.shown,
            "shown": shown,
            "heat": heat,
            "spark": pages.spark,
            "elsewhere": elsewhere,
            "linked": True,
            **{name: getattr(links, name) for name in ("version_url", "lineage_url", "report_url")},
        }

    def render(self, template: str, **values: Any) -> str:
        """A template as HTML, all values escaped."""
        return self._templates.get_template(template).render(**values)

    def html(self, template: str, *, status: int = 200, here: str = "", **values: Any) -> HTMLResponse:
        """A template as an answer."""
        return HTMLResponse(self.render(template, here=here, **values), status)

    def message(self, title: str, sentence: str, status: int) -> HTMLResponse:
        """A page that says what went wrong."""
        return self.html("message.html", title=title, sentence=sentence, status=status)

    def ask_for_token(self, query: Sequence[tuple[str, str]], wrong: bool) -> HTMLResponse:
        """The page that those see who have not shown the token; it says nothing of the registry."""
        return self.html("token.html", title="A token is wanted", query=query, wrong=wrong, status=401)

    def report(self, version: Version) -> str:
        """The page of a version as one self-contained file."""
        style = Markup((FOLDER / "static" / "style.css").read_text(encoding="utf-8"))
        page = pages.version_page(self.registry, version)
        made_with = version_of("contrans")
        return self.render("report.html", page=page, style=style, made_with=made_with, linked=False).lstrip()

    def concepts(self, request: Request) -> Response:
        """The list, whole or, for htmx, only what was found."""
        given = {name: _text(request, name) for name in Filters.__dataclass_fields__}
        filters, lines, after, problem = Filters(), (), "", ""
        try:
            asked: dict[str, Any] = {**given, "every": bool(given["every"]), "sort": given["sort"] or "new"}
            filters = Filters(**asked)
            page = concepts_page(self.registry, filters)
            lines, after = page.lines, page.after
        except RegistryError as error:
            problem = str(error)
        kept = {name: value for name, value in given.items() if name != "after"}
        values: dict[str, Any] = {
            "filters": filters,
            "lines": lines,
            "problem": problem,
            "next": links.query_url("/", **kept, after=after) if after else "",
        }
        status = 400 if problem else 200
        if request.headers.get("hx-request") == "true":
            # htmx swaps in only what succeeded, and the sentence is to be read
            return self.html("_found.html", **values)
        return self.html(
            "concepts.html", status=status, here="/", title="Concepts", choices=choices(self.registry), **values
        )

    def versions(self, request: Request) -> Response:
        """Everything registered, page by page."""
        text, kind, before = (_text(request, name) for name in ("text", "kind", "before"))
        found, problem = [], ""
        try:
            found = self.registry.search(text or None, kind=kind or None, before=before or None, limit=51)
        except RegistryError as error:
            problem = str(error)
        following = ""
        if len(found) > 50:
            following = links.query_url("/versions", text=text, kind=kind, before=str(found[49]))
        return self.html(
            "versions.html",
            status=400 if problem else 200,
            here="/versions",
            title="Everything",
            versions=found[:50],
            kinds=KINDS,
            text=text,
            kind=kind,
            problem=problem,
            next=following,
        )

    def version(self, request: Request) -> Response:
        """One version."""
        found = self._wanted(request)
        return self.html("version.html", title=found.ref, page=pages.version_page(self.registry, found))

    def one_file(self, request: Request) -> Response:
        """One version as a file to keep."""
        found = self._wanted(request)
        name = f"{found.name.replace('/', '-')}-{found.number}.html"
        # Of its own it may hold styles; nothing else, and never a script.
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        }
        return HTMLResponse(self.report(found), headers=headers)

    def lineage(self, request: Request) -> Response:
        """The lineage around one version."""
        found = self._wanted(request)
        steps = _number(request, "steps") or 2
        around = graph.around(self.registry, found, steps)
        edges = [(edge.child, edge.parent, edge.role) for edge in around.edges]
        return self.html(
            "lineage.html",
            title=f"Lineage of {found.ref}",
            version=found,
            graph=around,
            drawing=graph.draw(around),
            edges=edges,
            steps=max(1, min(steps, graph.MAX_STEPS)),
            most=graph.MAX_STEPS,
        )

    def compare(self, request: Request) -> Response:
        """Versions side by side."""
        references = [v.strip()[:_MAX_TEXT] for v in request.query_params.getlist("v") if v.strip()]
        compared, problem = None, ""
        if references:
            try:
                compared = compare_versions(self.registry, references)
            except RegistryError as error:
                problem = str(error)
        return self.html(
            "compare.html",
            status=400 if problem else 200,
            here="/compare",
            title="Compare",
            compared=compared,
            references=[*references[:6], "", ""][: max(2, min(len(references) + 1, 6))],
            problem=problem,
        )

    def pairs(self, request: Request) -> Response:
        """Source × target."""
        found = spaces.pairs(self.registry)
        return self.html(
            "pairs.html",
            here="/pairs",
            title="Pairs",
            sources=sorted({pair.source for pair in found}),
            targets=sorted({pair.target for pair in found}),
            cells={(pair.source, pair.target): pair for pair in found},
        )

    def space(self, request: Request) -> Response:
        """The vectors of one model."""
        models = spaces.models_with_vectors(self.registry)
        named = _text(request, "model")
        model, space, problem = named, None, ""
        for candidate in [named] if named else models:
            try:
                space, model = spaces.space_of(self.registry, candidate, _number(request, "block")), candidate
                break
            except RegistryError as error:
                problem = str(error)
        problem = "" if space or not named else problem
        return self.html(
            "space.html",
            status=400 if problem else 200,
            here="/space",
            title="Concept space",
            models=models,
            model=model,
            space=space,
            problem=problem,
        )

    def _wanted(self, request: Request) -> Version:
        try:
            return self.registry.get(parse(request.path_params["kind"], request.path_params["ref"]))
        except RegistryError as error:
            raise HTTPException(404, str(error)) from error


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "").strip()[:_MAX_TEXT]


def _number(request: Request, name: str) -> int | None:
    text = _text(request, name)
    return int(text[:6]) if text.isascii() and text.isdigit() else None

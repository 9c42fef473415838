"""The registry in a browser: pages to look at what was registered, and a playground to try it.

Built on Starlette (what FastAPI, which is installed anyway, is built on), Jinja2 and htmx, with charts drawn as SVG on
the server. Streamlit was tried too, for a much smaller page (a list, a table of numbers and one chart), with the real
pair's registry on two busy cores:

| | these pages | streamlit 1.67 |
|---|---|---|
| a version by its address, seen in a browser | 1.3 to 2.3 s | 4.6 to 7.5 s |
| requests of that page | 3, 0.02 MB | 134, 5.3 MB |
| requests that leave the machine | none | telemetry, unless it is switched off |
| memory of the server | 94 MB | 184 MB |
| without scripts, and when printed or sent | the same page | nothing |

What decided is below the table, though: a page here is a plain document with an address, so that it can be sent, read
aloud, walked by keyboard, tested without a browser, and kept as one file by the same templates; a policy without inline
scripts holds for all of it; and pages of a long list are read from the database by key, not held in a session.

| module | what it answers |
|---|---|
| `reading` | how is a registry opened so that nothing can change it? |
| `filtering`, `listing` | which transplants fit, in which order, a page at a time? |
| `facts`, `evidence`, `pages` | what does the page of a version say? |
| `graph`, `comparing`, `differences`, `vectors`, `spaces` | lineage, comparison, cosines, overviews |
| `charts` | how is it drawn? |
| `worker`, `playground`, `play_page` | who writes, who waits, what is streamed |
| `security`, `app`, `views`, `serving`, `reports`, `printing` | who may look, at which address, as which file |
| `links`, `elsewhere` | what are the addresses of pages here, and of a run's in MLflow and Prefect? |
"""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from registry.browse.app import create_app
    from registry.browse.elsewhere import Elsewhere
    from registry.browse.printing import report_pdf
    from registry.browse.reading import Reader
    from registry.browse.reports import report_html, report_markdown
    from registry.browse.serving import serve

__all__ = ["Elsewhere", "Reader", "create_app", "report_html", "report_markdown", "report_pdf", "serve"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Elsewhere": "elsewhere",
        "Reader": "reading",
        "create_app": "app",
        "report_html": "reports",
        "report_markdown": "reports",
        "report_pdf": "printing",
        "serve": "serving",
    },
)

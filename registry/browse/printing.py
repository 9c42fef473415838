"""The page of a version as PDF, printed by Chromium where it is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from contrans.errors import ContransError
from registry.browse.reading import Reader
from registry.browse.reports import report_html
from registry.records import Version

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 180
_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--no-pdf-header-footer",
)


def report_pdf(registry: Reader, version: Version) -> bytes:
    """A report as PDF, on A4.

    Args:
        registry: Where the version is.
        version: The version.

    Raises:
        ContransError: If there is no Chromium, or it prints nothing.
        RegistryError: If a file of the version is missing from the store or damaged.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise ContransError(
            "A PDF is printed by Chromium, and none is installed; install one (apt-get install chromium), or take "
            "--format html and print it from any browser."
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_text(report_html(registry, version), encoding="utf-8")
        # A profile of its own, since a browser that runs already would take the page over; as root it has no sandbox.
        options = [*_OPTIONS, f"--user-data-dir={folder}/profile", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        command = [program, *options, f"--print-to-pdf={printed}", page.as_uri()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ContransError(f"{program} printed nothing in {_SECONDS} seconds; try --format html.") from error
        if not printed.exists():
            last = (done.stderr.strip().splitlines() or ["without a word"])[-1][:200]
            raise ContransError(f"{program} printed nothing ({last}); try --format html and print it from a browser.")
        return printed.read_bytes()

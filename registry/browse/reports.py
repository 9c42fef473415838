"""The page of a version as one file: HTML with everything inside it, or markdown."""

from contrans.validation.grids import markdown_text
from registry.browse.pages import version_page
from registry.browse.reading import Reader
from registry.browse.views import Pages
from registry.records import Version


def report_html(registry: Reader, version: Version) -> str:
    """A report with its figures and its stylesheet inside; it needs no network and runs no script.

    Args:
        registry: Where the version is.
        version: The version.

    Raises:
        RegistryError: If a file of it is missing from the store or damaged.
    """
    return Pages(registry).report(version)


def report_markdown(registry: Reader, version: Version) -> str:
    """A report whose figures are left out; their numbers stand in its tables.

    Args:
        registry: Where the version is.
        version: The version.

    Returns:
        Markdown that ends in a line break.

    Raises:
        RegistryError: If a file of it is missing from the store or damaged.
    """
    page = version_page(registry, version)
    parts = [f"# {markdown_text(page.version.ref)}", markdown_text(page.sentence)]
    for panel in page.panels:
        parts.append(f"## {markdown_text(panel.protocol)} ({markdown_text(panel.validation.ref)})")
        if panel.headline:
            parts.append(markdown_text(panel.headline))
        said = [f"- **{f.severity.capitalize()}.** {markdown_text(f.sentence)}" for f in panel.findings]
        parts.append("\n".join(said) or "None of the known failure signatures shows in these numbers.")
        parts += [grid.markdown() for grid in panel.grids]
        parts += [
            f"- **{markdown_text(arm)}**: {markdown_text(sample.prompt)} → {markdown_text(text) or '(nothing)'}"
            for sample in panel.samples
            for arm, text, _ in sample.texts
        ]
    if page.python:
        parts += ["## Use it", f"```python\n{page.python}\n```"]
    if page.inputs:
        parts.append("## Made from")
        parts.append("\n".join(f"- {markdown_text(role)}: {markdown_text(str(v))}" for role, v in page.inputs))
    if page.settings:
        parts.append("## Settings")
        parts.append("\n".join(f"- {markdown_text(k)}: {markdown_text(v)}" for k, v in page.settings.items()))
    parts.append(f"Digest `{page.version.digest}`, registered {page.version.created:%Y-%m-%d %H:%M} UTC.")
    return "\n\n".join(parts) + "\n"

"""`contrans plan`."""

from collections.abc import Sequence

from rich.table import Table

from flows.cli.talk import Talk, data_console, print_json
from flows.spec import load_spec


def plan_command(spec: str, settings: Sequence[str], *, as_json: bool, quiet: bool) -> None:
    """Shows what a run would do.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        as_json: Whether to print `flows.planning.Plan.as_json` instead of a table.
        quiet: Whether to say nothing beside it.
    """
    checked = load_spec(spec, settings)
    talk = Talk(quiet=quiet)
    with talk.working("planning"):
        from flows.planning import plan

        planned = plan(checked)
    if as_json:
        print_json(planned.as_json())
        return
    table = Table(title=f"{checked.name}: {checked.source} → {checked.target}", title_justify="left")
    for name in ("step", "done", "texts", "tokens", "time", "memory"):
        table.add_column(name, justify="left" if name in ("step", "done") else "right")
    for step in planned.steps:
        counts = (f"{step.texts:,}" if step.texts else "", f"{step.tokens:,}" if step.tokens else "")
        costs = ("", "") if step.cached else (duration(step.seconds), f"{step.memory / 1e9:.1f} GB")
        table.add_row(step.name, "yes" if step.cached else "no", *counts, *costs)
    table.add_section()
    todo = [step for step in planned.steps if not step.cached]
    total = (f"{sum(s.texts for s in todo):,}", f"{sum(s.tokens for s in todo):,}")
    costs = (duration(planned.seconds), f"{planned.memory / 1e9:.1f} GB")
    table.add_row("to do", f"{len(todo)} of {len(planned.steps)}", *total, *costs, style="bold")
    data_console().print(table)
    for reference, size in planned.fetch.items():
        amount = "of unknown size" if size is None else f"of {size / 1e6:,.0f} MB"
        talk.console.print(f"{reference} must be fetched first, a download {amount}, and is converted once")
    talk.console.print(f"next      [bold]contrans run {spec}[/bold]")


def duration(seconds: float) -> str:
    """A time as people say it: "12 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole or not seconds else "<1 s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""A table of strings, as every result is shown: on a terminal and in markdown."""

import re
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Grid:
    """A table of strings; the first column is to the left, the others to the right unless they hold running text.

    Attributes:
        title: above the table.
        columns: their heads.
        rows: as many cells each.
        bold: indices of rows to stress.
        prose: whether the cells are running text: all columns are to the left, with a line between rows.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[int] = frozenset()
    prose: bool = False

    def rich(self) -> Table:
        """For a terminal; brackets in the cells are text, never markup."""
        table = Table(title=Text(self.title), title_justify="left", show_lines=self.prose)
        for i, column in enumerate(self.columns):
            table.add_column(Text(column), justify="right" if self._to_the_right(i) else "left", overflow="fold")
        for i, row in enumerate(self.rows):
            table.add_row(*map(Text, row), style="bold" if i in self.bold else "")
        return table

    def panels(self, width: int) -> list["Grid"]:
        """The grid cut between columns so that each part fits into a width, with the first column in all of them.

        Args:
            width: characters; a part has at least one column besides the first, even where it does not fit.
        """
        # a column has a border and a space on either side
        widths = [3 + max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        parts: list[list[int]] = [[0]]
        for i in range(1, len(widths)):
            if len(parts[-1]) > 1 and 1 + sum(widths[k] for k in (*parts[-1], i)) > width:
                parts.append([0])
            parts[-1].append(i)
        return [
            replace(
                self,
                title=self.title if part is parts[0] else "(continued)",
                columns=tuple(self.columns[i] for i in part),
                rows=tuple(tuple(row[i] for i in part) for row in self.rows),
            )
            for part in parts
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for panel in self.panels(options.max_width):
            yield panel.rich()

    def markdown(self) -> str:
        """For a card: the title and the table."""
        return f"{markdown_text(self.title)}:\n\n{self.markdown_table()}"

    def markdown_table(self) -> str:
        """A GitHub table without its title; what stands in the cells is text, never markup."""
        rule = ["---:" if self._to_the_right(i) else "---" for i in range(len(self.columns))]
        lines = [[markdown_text(column) for column in self.columns], rule]
        for i, row in enumerate(self.rows):
            cells = [markdown_text(cell) for cell in row]
            lines.append([f"**{cells[0]}**", *cells[1:]] if i in self.bold else cells)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _to_the_right(self, column: int) -> bool:
        return column > 0 and not self.prose


def markdown_text(text: str) -> str:
    """Text for markdown: what would be emphasis, code, a tag, a link or the end of a cell stands there as it is."""
    escaped = re.sub(r"[\\|*_`~]|\](?=[(\[:])", r"\\\g<0>", text.strip())
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", escaped)
    return "<br>".join(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", escaped).splitlines())

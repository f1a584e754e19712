"""Tables for terminal and page: rich renders them here, the report's template renders them to HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Formula:
    """The formula of a number: its name, its arithmetic (left = right), and the meaning of the factors."""

    title: str
    arithmetic: str
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """The text of a cell, the number that it is sorted by, and the formula of that number.

    `role` is "", "good", "bad" or "missing".
    """

    text: str
    value: float | None = None
    formula: Formula | None = None
    role: str = ""


#: stands for a number that was not computed
MISSING = Cell("–", role="missing")


@dataclass
class Table:
    """Rows of cells under columns. `total` is a last row that is not sorted."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    total: list[Cell] | None = None

    def is_text(self, column: int) -> bool:
        """Whether a column holds text (left-aligned) or numbers (right-aligned)."""
        cells = [row[column] for row in self.rows]
        return column == 0 or all(cell.value is None and cell is not MISSING for cell in cells)


def without_missing(table: Table) -> Table:
    """The table without the columns that have no value."""
    kept = [i for i in range(len(table.columns)) if any(row[i] is not MISSING for row in table.rows)]
    total = [table.total[i] for i in kept] if table.total else None
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.title, [table.columns[i] for i in kept], rows, table.notes, total)


def to_rich(table: Table) -> RichTable:
    """The table for a terminal. Text is printed without markup."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    def text(words: str) -> Text:
        return Text(words, overflow="fold")

    caption = text("\n".join(table.notes)) if table.notes else None
    result = RichTable(
        title=text(table.title), title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=0,
        show_edge=False, pad_edge=False, caption=caption, caption_justify="left",
    )  # fmt: skip
    for i, column in enumerate(table.columns):
        is_text = table.is_text(i)
        # numbers are not wrapped; headings are, between words
        widest = max([len(row[i].text) for row in table.rows] + [len(word) for word in column.split()])
        heading = column if is_text else "\n".join(wrap(column, widest))
        result.add_column(text(heading), justify="left" if is_text else "right", no_wrap=not is_text)

    def add(row: Sequence[Cell]) -> None:
        result.add_row(*(text(cell.text) for cell in row))

    for row in table.rows:
        add(row)
    if table.total:
        result.add_section()
        add(table.total)
    return result

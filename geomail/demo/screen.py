"""What the demo shows: a picture that moves on a terminal, plain lines elsewhere.

Everything is written for 60 columns and up: facts break between each other, never in themselves.
Off a terminal (a pipe, a file, CI) there is a line a second and no colour.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 100
_WIDEST = 110


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the mails are at one moment; `rate` is in mails a second."""

    rate: float
    in_flight: int
    delivered: int
    waiting: int
    dead: int
    total: int


class Screen:
    """Standard output, as the demo uses it."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(
                errors="replace"
            )  # a terminal without UTF-8 is no reason to fail
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = _PLAIN_WIDTH
        self._console.width = min(self._console.width, _WIDEST)

    def _print(self, what: RenderableType) -> None:
        """Print; off a terminal without the blanks that fill up a line."""
        if self._console.is_terminal:
            self._console.print(what)
            return
        with self._console.capture() as caught:
            self._console.print(what)
        lines = [line.rstrip() for line in caught.get().split("\n")]
        self._console.file.write("\n".join(lines))
        self._console.file.flush()

    def title(self, text: str) -> None:
        """Say what this is."""
        self._print(Text(text, style="bold"))
        self._print("")

    def step(self, name: str, text: str) -> None:
        """Tell one thing that is ready now."""
        row = _facts([(name, Text(text))])
        self._print(row)

    def progress(self) -> "Progress":
        """Return what shows the moments of a run."""
        return Progress(self._console)

    def table(self, rows: Iterable[tuple[str, str, str]], *, title: str = "") -> None:
        """Show names, values, and what is to be known about each."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(min_width=14)
        grid.add_column(justify="right", style="bold", no_wrap=True)
        grid.add_column(style="dim", ratio=1)
        for row in rows:
            grid.add_row(*map(Text, row))
        if title:
            self._print(Text(title, style="bold"))
        self._print(Padding(grid, (0, 0, 1, 2)))

    def mail(self, title: str, content: str) -> None:
        """Show a mail as it came."""
        panel = Panel(
            Text(content), title=title, title_align="left", box=self._frame(), border_style="dim"
        )
        self._print(panel)

    def verdict(self, text: str, *, is_good: bool) -> None:
        """Say the last word."""
        self._print(Text(text, style="bold green" if is_good else "bold red"))

    def _frame(self) -> box.Box:
        return box.ROUNDED if self._console.is_terminal else box.HORIZONTALS


class Progress:
    """The moments of a run, one after another; used as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._said_at = self._began_at = time.monotonic()

    def show(self, moment: Moment) -> None:
        """Show one moment; off a terminal at most once a second."""
        if self._console.is_terminal:
            self._live.update(_picture(moment, self._console.width), refresh=True)
            return
        now = time.monotonic()
        if now - self._said_at >= 1:
            self._said_at = now
            facts = ", ".join(" ".join(fact) for fact in _words(moment))
            self._console.print(Text(f"{now - self._began_at:4.0f} s  {facts}"), soft_wrap=True)
            self._console.file.flush()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._console.print()
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._console.print()


def _words(moment: Moment) -> list[tuple[str, str]]:
    return [
        (f"{moment.rate:,.0f}", "mails/s"),
        (f"{moment.in_flight:,}", "in flight"),
        (f"{moment.delivered:,}", "delivered"),
        (f"{moment.waiting:,}", "waiting"),
        (f"{moment.dead:,}", "dead"),
    ]


def _picture(moment: Moment, width: int) -> Padding:
    done = moment.delivered + moment.dead
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", min_width=5)
    percent = 100 * done // max(1, moment.total)
    bar.add_row(ProgressBar(moment.total, done), Text(f"{percent} %", style="bold"))
    return Padding(Group(bar, *_packed(_words(moment), width - 2)), (0, 0, 0, 2))


def _packed(words: Iterable[tuple[str, str]], width: int) -> list[Text]:
    """Put facts into lines of at most `width`, each whole."""
    lines = [Text()]
    for value, name in words:
        gap = "   " if lines[-1] else ""
        if len(lines[-1]) + len(gap) + len(value) + 1 + len(name) > width:
            lines.append(Text())
            gap = ""
        lines[-1].append(gap + value, style="bold").append(f" {name}", style="dim")
    return lines


def _facts(pairs: Iterable[tuple[str, Text]]) -> Padding:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", min_width=8, no_wrap=True)
    grid.add_column(ratio=1)
    for name, text in pairs:
        grid.add_row(name, text)
    return Padding(grid, (0, 0, 0, 2))

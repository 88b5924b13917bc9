"""How commands speak: tables or JSON on stdout, progress and errors on stderr, exit codes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tensorlang.errors import TensorlangError

JOB_FAILED = 1
WRONG_USAGE = 2
WIDE = 160  # columns of a table that goes to a file or a pipe


@dataclass
class Reporter:
    """Where one command's words go.

    Attributes:
        json: report as one JSON object on stdout and nothing else there.
        seconds: wall time of each step taken so far, in seconds, by name.
    """

    json: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    out: Console = field(default_factory=lambda: Console(highlight=False, width=None if sys.stdout.isatty() else WIDE))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """A named, timed piece of work; `what` is shown with a spinner and a clock while it lasts, on a terminal."""
        start = time.perf_counter()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as progress:
            progress.add_task(what, total=None)
            yield
        self.seconds[name] = round(time.perf_counter() - start, 6)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the user's input did wrong into one message and exit code 1; faults of our own pass through.

        With `--json`, stdout gets `{"error": {"type": ..., "message": ...}}`, so that a script always reads one object.
        """
        try:
            yield
        except (TensorlangError, OSError) as error:
            if self.json:
                self.emit({"error": {"type": type(error).__name__, "message": str(error)}})
            self.err.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            self.err.print(str(error), markup=False)
            raise typer.Exit(JOB_FAILED) from None

    def emit(self, data: Mapping[str, Any]) -> None:
        """Write `data` as JSON to stdout: one object, keys in the order given."""
        typer.echo(json.dumps(data, indent=2, default=_plain, allow_nan=False))

    def note(self, text: str) -> None:
        """One line for people, on stderr."""
        self.err.print(text, markup=False)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()
    ) -> None:
        """A table on stdout; the columns named in `right` are numbers."""
        aligned = set(right)
        table = Table(
            title=title,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
            show_header=any(columns),
        )
        for column in columns:
            table.add_column(column, justify="right" if column in aligned else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.out.print(table)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("[", r"\[")  # rich would read "[3, 224]" as markup


def _plain(value: Any) -> Any:
    """JSON form of what reports carry: paths, NumPy scalars, tuples."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def finite(value: float) -> float | None:
    """`value` for a JSON report, which has no NaN or infinity: those become None."""
    return value if value == value and abs(value) != float("inf") else None

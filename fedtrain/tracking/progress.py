"""How far a run is: a bar on a terminal, an occasional line elsewhere.

Everything goes to standard error, so that standard output stays what the command
promised, such as one JSON document.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import ServerState
from fedtrain.tracking.statement import require_statement

# Of each line the first that a round has: a bar must fit on a terminal of 80 columns.
SHOWN_METRICS = (
    ("loss", "test_loss"),
    ("test_accuracy", "accuracy", "test_roc_auc"),
)


@contextmanager
def progress(
    num_rounds: int,
    *,
    first_round: int = 0,
    privacy_statement: str | None = None,
    console: Console | None = None,
    line_every: int | None = None,
) -> Iterator[OnRound]:
    """Shows round, loss, accuracy and the epsilon spent.

    Args:
      num_rounds: Rounds of the whole run.
      first_round: Rounds that were done before, when a run is resumed.
      privacy_statement: What an epsilon means here; printed once, above the figures.
      console: Where to write; by default standard error.
      line_every: Without a terminal, one line after this many rounds; by default about
        ten lines in a run. The last round always has its line.

    Yields:
      A callback for ``train(on_round=...)``. It raises ConfigError for a report with an
      epsilon where no statement was given.
    """
    console = console or Console(stderr=True)
    if privacy_statement:
        console.print(Text(privacy_statement, style="dim"), soft_wrap=True)
    if not console.is_terminal:
        every = line_every or max(num_rounds // 10, 1)
        yield partial(_print_line, console, num_rounds, every, privacy_statement)
        return
    with _bar(console) as bar:
        task = bar.add_task("", total=num_rounds, completed=first_round)
        yield partial(_advance, bar, task, privacy_statement)


def describe(report: RoundReport) -> str:
    """The figures of a round in a few words, such as ``loss 0.412  epsilon 3.10``."""
    shown = [
        next((name for name in names if name in report.metrics), None)
        for names in SHOWN_METRICS
    ]
    parts = [
        f"{name.replace('_', ' ')} {report.metrics[name]:.4g}"
        for name in shown
        if name is not None
    ]
    if report.spent_epsilon is not None:
        parts.append(f"epsilon {report.spent_epsilon:.3g}")
    if report.lost_clients:
        parts.append(f"lost clients {len(report.lost_clients)}")
    return "  ".join(parts)


def _print_line(
    console: Console,
    num_rounds: int,
    every: int,
    privacy_statement: str | None,
    report: RoundReport,
    state: ServerState,
) -> None:
    del state
    require_statement(report.spent_epsilon, privacy_statement)
    done = report.round_number + 1
    if done % every == 0 or done == num_rounds:
        line = f"round {done}/{num_rounds}  {describe(report)}"
        console.print(Text(line), soft_wrap=True)


def _advance(
    bar: Progress,
    task: TaskID,
    privacy_statement: str | None,
    report: RoundReport,
    state: ServerState,
) -> None:
    del state
    require_statement(report.spent_epsilon, privacy_statement)
    figures = describe(report)
    bar.update(task, completed=report.round_number + 1, description=figures)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=12),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
    )

import io

import pytest
from rich.console import Console

from fedtrain.core.errors import ConfigError
from fedtrain.rounds.report import RoundReport
from fedtrain.tracking.progress import progress

STATEMENT = "epsilon at delta 1e-4, unit example, add/remove one, trust local, PLD"


def report(number, epsilon=None):
    metrics = {"loss": 0.5, "accuracy": 0.25}
    return RoundReport(round_number=number, metrics=metrics, spent_epsilon=epsilon)


def run(console, *, num_rounds=20, epsilon=None, statement=None):
    show = progress(num_rounds, privacy_statement=statement, console=console)
    with show as on_round:
        for number in range(num_rounds):
            on_round(report(number, epsilon), None)
    return console.file.getvalue()


def test_without_a_terminal_a_line_every_few_rounds():
    output = run(Console(file=io.StringIO(), width=40), num_rounds=25)
    lines = output.splitlines()
    assert len(lines) == 13
    assert lines[-1] == "round 25/25  loss 0.5  accuracy 0.25"


def test_a_terminal_shows_a_bar_with_the_figures():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    output = run(console, epsilon=3.14159, statement=STATEMENT)
    assert "round 20/20" in output
    assert "epsilon 3.14" in output


def test_standard_output_stays_clean(capsys):
    with progress(1) as on_round:
        on_round(report(0), None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "round 1/1" in captured.err


def test_the_statement_is_printed_once_before_any_epsilon():
    output = run(
        Console(file=io.StringIO()), num_rounds=2, epsilon=1.0, statement=STATEMENT
    )
    assert output.count(STATEMENT) == 1
    assert output.index(STATEMENT) < output.index("epsilon 1")


def test_an_epsilon_without_statement_is_refused():
    with pytest.raises(ConfigError, match="privacy_statement"):
        run(Console(file=io.StringIO()), epsilon=1.0)

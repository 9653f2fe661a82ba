from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def tff_runtime() -> Iterator[object]:
    """One TFF runtime, and so one worker process, for a whole test file."""
    pytest.importorskip("tensorflow_federated")
    from fedtrain.runtimes.tff import TffRuntime  # noqa: PLC0415 - Python 3.11 only

    with TffRuntime() as runtime:
        yield runtime


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With ``-v``, the table of measured differences that the documentation quotes."""
    if terminalreporter.config.get_verbosity() < 1:
        return
    terminalreporter.section("largest differences")
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "largest_difference":
                test = report.nodeid.rsplit("::")[-1]
                terminalreporter.write_line(f"{value:8.1e}  {test}")

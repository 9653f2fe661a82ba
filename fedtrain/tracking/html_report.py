"""One HTML file that shows a run: no script, nothing loaded from anywhere."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.core.pages import page_environment
from fedtrain.tracking import plots
from fedtrain.tracking.statement import require_statement

_CURVES = {
    "accuracy": "Accuracy",
    "loss": "Loss",
    "roc_auc": "Area under the ROC curve",
}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A figure at the top of the report.

    Attributes:
      label: What it is, such as ``"Test accuracy"``.
      value: The figure as text, such as ``"87.2 %"``.
      note: A few words below it.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One way of training, in the table that compares them.

    Attributes:
      name: Such as ``"Federated, with privacy"``.
      value: The metric, a share from 0 to 1.
      low: The worst of several, such as of clients that train alone; or None.
      high: The best of several, or None.
      epsilon: What it spent; None without privacy.
      note: A few words on it.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    epsilon: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """How many rows of each label each client holds.

    Attributes:
      clients: The clients' names.
      labels: The labels' names.
      counts: ``counts[i][j]`` rows of label ``j`` at client ``i``.
    """

    clients: Sequence[str]
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        """The table has a row for each client and a column for each label."""
        widths = {len(row) for row in self.counts}
        if len(self.counts) != len(self.clients) or widths - {len(self.labels)}:
            raise ConfigError(
                f"counts must have {len(self.clients)} rows (clients) of "
                f"{len(self.labels)} numbers (labels), got {len(self.counts)} rows of "
                f"{sorted(widths)}."
            )


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the report shows, as plain values. What is None is left out.

    Attributes:
      title: The run's name.
      history: One mapping for each round, as ``RoundReport.as_dict`` makes it.
      headlines: Figures for the top of the page.
      comparison: The run beside other ways to train; only on public data.
      comparison_metric: What ``comparison`` compares.
      label_counts: Labels by client; only on public data.
      client_accuracy: Accuracy by client; only on public data.
      client_metric: What ``client_accuracy`` really holds, if not accuracy.
      privacy_statement: The guarantee in words; required where an epsilon is shown.
      privacy_badge: ``"Simulated"``, ``"NOT A RELEASE"``, ...
      privacy_report: The whole privacy report, as in its JSON file.
      target_epsilon: The budget, drawn as a line.
      facts: Settings and versions, by name.
      command: What was typed to get this run.
      notes: Remarks, such as why a section is missing.
    """

    title: str
    history: Sequence[Mapping[str, Any]]
    headlines: Sequence[Headline] = ()
    comparison: Sequence[ComparisonRow] | None = None
    comparison_metric: str = "test accuracy"
    label_counts: LabelCounts | None = None
    client_accuracy: Mapping[str, float] | None = None
    client_metric: str = "accuracy"
    privacy_statement: str | None = None
    privacy_badge: str = ""
    privacy_report: Mapping[str, Any] | None = None
    target_epsilon: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Every epsilon has its statement."""
        require_statement(self.target_epsilon, self.privacy_statement)
        for row in self.comparison or ():
            require_statement(row.epsilon, self.privacy_statement)
        for record in self.history:
            require_statement(record.get("spent_epsilon"), self.privacy_statement)


def write_html_report(path: str | Path, data: ReportData) -> Path:
    """Writes the report to ``path``; the file is there in full or not at all."""
    path = Path(path)
    write_atomically(path, render_html_report(data))
    return path


def render_html_report(data: ReportData) -> str:
    """The report as one HTML document; all that comes from the run is escaped."""
    environment = page_environment("fedtrain.tracking", ".")
    environment.filters["as_json"] = lambda value: json.dumps(
        value, indent=2, default=str, ensure_ascii=False
    )
    return environment.get_template("report.html.jinja").render(
        data=data,
        curves=_curves(data),
        budget=_budget(data),
        labels_plot=_labels_plot(data.label_counts),
        spread_plot=plots.client_spread(data.client_accuracy or {}),
    )


def _curves(data: ReportData) -> list[tuple[str, str]]:
    """Title and SVG of each curve for which there are figures."""
    curves = [
        (
            title,
            plots.curves(
                name,
                _values(data, name),
                _values(data, f"test_{name}"),
                share=name == "accuracy",
            ),
        )
        for name, title in _CURVES.items()
    ]
    return [(title, svg) for title, svg in curves if svg]


def _budget(data: ReportData) -> str:
    spent = {
        int(record["round_number"]) + 1: float(record["spent_epsilon"])
        for record in data.history
        if record.get("spent_epsilon") is not None
    }
    return plots.budget(spent, data.target_epsilon)


def _labels_plot(table: LabelCounts | None) -> str:
    if table is None:
        return ""
    return plots.label_table(table.clients, table.labels, table.counts)


def _values(data: ReportData, metric: str) -> dict[int, float]:
    """The metric by number of rounds done; rounds without it are left out."""
    values = {}
    for record in data.history:
        value = record.get("metrics", {}).get(metric)
        if value is not None:
            values[int(record["round_number"]) + 1] = float(value)
    return values

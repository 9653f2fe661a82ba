"""The HTML page of a run, from its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedtrain.project.build import Project
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.summary import PRIVATE_DATA
from fedtrain.tracking.html_report import (
    ComparisonRow,
    Headline,
    LabelCounts,
    ReportData,
    write_html_report,
)
from fedtrain.tracking.jsonl import read_metrics

_MOST_CLIENTS = 200


def write_report_page(
    project: Project, folder: RunFolder, summary: Mapping[str, Any]
) -> None:
    """Writes ``report.html``."""
    info = folder.read_json(folder.info)
    privacy = summary["privacy"]
    clients = summary["clients"]
    data = ReportData(
        title=project.config.name,
        history=read_metrics(folder.metrics),
        headlines=headlines(summary),
        comparison=_comparison(summary),
        comparison_metric=f"test {summary['metric']}",
        label_counts=label_counts(project),
        client_accuracy=clients["values"] if clients else None,
        privacy_statement=summary["privacy_statement"],
        privacy_badge=privacy["badge"] if privacy else "NO PRIVACY",
        privacy_report=privacy,
        target_epsilon=privacy["target_epsilon"] if privacy else None,
        facts=_facts(info),
        command=info.get("command"),
        notes=[PRIVATE_DATA] if project.is_protected else [],
    )
    write_html_report(folder.html_report, data)


def label_counts(project: Project) -> LabelCounts | None:
    """Labels by client; on public data with not too many clients only."""
    train = project.split.train
    labels = np.asarray(train.examples.labels)
    small = train.num_clients <= _MOST_CLIENTS and labels.ndim == 1
    if project.is_protected or not small:
        return None
    classes = project.split.num_classes
    names = project.split.label_names or tuple(map(str, range(classes)))
    counts = [
        np.bincount(train.client(i).labels.astype(np.int64), minlength=classes).tolist()
        for i in range(train.num_clients)
    ]
    ids = [train.client_id(i) for i in range(train.num_clients)]
    return LabelCounts(clients=ids, labels=names, counts=counts)


def headlines(summary: Mapping[str, Any]) -> Sequence[Headline]:
    """The few figures at the top of the page."""
    shown = [Headline(label="Rounds", value=str(summary["rounds"]))]
    if summary["test"]:
        metric = summary["metric"]
        value = f"{100 * summary['test'][metric]:.1f} %"
        shown.insert(0, Headline(label=f"Test {metric}", value=value))
    if summary["privacy"]:
        privacy = summary["privacy"]
        shown.append(
            Headline(
                label="Epsilon",
                value=f"{float(privacy['epsilon']):.2f}",  # JSON: "Infinity"
                note=f"delta {privacy['delta']:g}, unit {privacy['unit']}",
            )
        )
    return shown


def _comparison(summary: Mapping[str, Any]) -> list[ComparisonRow] | None:
    if summary["comparison"] is None:
        return None
    return [
        ComparisonRow(**{k: row.get(k) for k in ("name", "value", "low", "high")})
        for row in summary["comparison"]
    ]


def _facts(info: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    for section in ("data", "model", "runtime", "versions"):
        for key, value in info.get(section, {}).items():
            facts[f"{section} {key.replace('_', ' ')}"] = str(value)
    return facts | {"seed": str(info.get("seed"))}

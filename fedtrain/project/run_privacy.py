"""The privacy of one run: where its ledger lies, and what its figures mean."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtrain.core.files import write_atomically
from fedtrain.core.mechanism import Mechanism
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.tabular import schema_of
from fedtrain.privacy.ledger import Ledger, ledger_path
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.report import (
    NO_DIAGNOSTICS,
    DataScope,
    privacy_report,
    to_json,
)
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.project.build import Project
from fedtrain.project.ledger_identity import ledger_identity
from fedtrain.project.paid_evaluation import num_paid_evaluations
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.withheld import withheld_fields
from fedtrain.tracking.jsonl import RoundRecord, read_metrics


def run_privacy_of(
    project: Project, ledger: Ledger, run_id: str, *, noise_key: str = ""
) -> RunPrivacy | None:
    """What charges ``ledger`` for the run ``run_id``; None without ``[privacy]``.

    Args:
      project: What is run.
      ledger: Where charges go.
      run_id: The run's name in it.
      noise_key: Fingerprint of the key that is drawn from here; empty where none is.
    """
    if project.plan is None:
        return None
    return RunPrivacy(
        plan=project.plan,
        mechanisms=project.round_.mechanisms,
        sampler=project.sampler,
        ledger=ledger,
        run_id=run_id,
        is_private=project.is_protected,
        noise_key=noise_key,
    )


def meaning(plan: PrivacyPlan, mechanisms: Sequence[Mechanism] = ()) -> str:
    """What every epsilon of a run means, before any is spent.

    Args:
      plan: The promise.
      mechanisms: Of the round; without them the noise is a simulation's.
    """
    released = mechanisms and all(one.is_released for one in mechanisms)
    noise = "noise for release" if released else "simulated noise"
    claimed = "claimed" if plan.amplifies else "not claimed"
    return (
        f"Each epsilon: unit {plan.unit}, {plan.neighboring_relation}, delta "
        f"{plan.delta:g}, trust {plan.trust}, accountant PLD, amplification by "
        f"sampling {claimed}, {noise}."
    )


def write_privacy_report(
    project: Project, folder: RunFolder, privacy: RunPrivacy
) -> dict[str, Any]:
    """Writes ``privacy_report.json``; returns it as plain values."""
    history = read_metrics(folder.metrics)
    report = privacy_report(
        privacy,
        rounds_done=project.config.all_rounds,
        data=_scope(project, folder),
        lost_clients=_lost_clients(project, history),
        exported=_exported(project, folder),
    )
    text = to_json(report)
    write_atomically(folder.privacy_report, text)
    values: dict[str, Any] = json.loads(text)
    return values


def _exported(project: Project, folder: RunFolder) -> list[Path]:
    compressed = [folder.compressed_weights] if project.constraint else []
    others = [folder.best_weights, folder.last_weights]
    return [folder.weights, *compressed, *(path for path in others if path.is_file())]


def _lost_clients(project: Project, history: list[RoundRecord]) -> int | None:
    config = project.config
    # The top of served regions is not told whom they lost: its rounds name regions.
    is_of_regions = config.service is not None and config.rounds.num_regions is not None
    if is_of_regions or "lost_clients" in withheld_fields(project):
        return None
    return sum(len(record["lost_clients"]) for record in history)


def _scope(project: Project, folder: RunFolder) -> DataScope:
    evaluation = "not looked at: test scores would be a release"
    if project.shows_test:
        evaluation = "test rows declared public; outside the guarantee"
    query = project.held_out and project.held_out.evaluation.query
    if query is not None:
        most = num_paid_evaluations(project.config)
        evaluation += (
            "; rows that clients keep back: noised counts of right and wrong answers, "
            f"noise multiplier {query.noise_multiplier:g}, {most} times at most, "
            "charged to the ledger"
        )
    return DataScope(
        training=_training(project),
        evaluation=evaluation,
        normaliser=_normaliser(project.split.train),
        tuning="settings are taken from the project file; how they were chosen is "
        "outside the guarantee",
        diagnostics=folder.read_json(folder.info).get("diagnostics", NO_DIAGNOSTICS),
    )


def _training(project: Project) -> str:
    train = project.split.train
    rows = f", {train.examples.num_examples} rows"
    if project.is_protected:
        rows = " (who they are and how many is public)"
    return (
        f"{train.name}: {train.num_clients} clients{rows}, declared {train.sensitivity}"
    )


def _normaliser(train: FederatedDataset) -> str:
    """Where the scales of the features come from, as far as the data set knows."""
    if schema_of(train) is None:
        return "unknown: the rows came without a schema; prepared before the run"
    if train.sensitivity == "public":
        return "the schema's: declared, or taken from the rows, which are public"
    return "declared in the schema; none is taken from the private rows"


def ledger_of(project: Project, folder: RunFolder) -> Path:
    """The ledger's file: of the data set where it is private, else of the run."""
    return ledger_path(
        dataset_name=ledger_identity(project),
        is_private=project.is_protected,
        run_dir=folder.path,
    )

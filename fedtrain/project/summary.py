"""The closing summary of a run, as plain values, and as text for a person."""

from collections.abc import Mapping
from typing import Any

from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.project.closing import Told, comparison, main_metric
from fedtrain.project.compressed_run import FinalWeights, compressed_summary
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.secure_session import session_of, words_of
from fedtrain.rounds.evaluation import spread
from fedtrain.rounds.runtime import AdaptiveRuntime
from fedtrain.tracking.jsonl import read_metrics

NO_PRIVACY = (
    "No privacy: nothing was clipped and no noise was added ([privacy] is absent)."
)
PRIVATE_DATA = (
    "The data are private: no test scores, baselines or per-client figures are shown, "
    "because each would be a release that nothing paid for. --diagnostics writes them "
    "to a folder of their own, NOT PRIVATE."
)


def summarised(
    project: Project,
    folder: RunFolder,
    final: FinalWeights,
    *,
    privacy: Mapping[str, Any] | None,
    told: Told,
) -> dict[str, Any]:
    """What the run reached; on public data also beside other ways to train.

    Args:
      project: The run.
      folder: Its folder.
      final: Its weights.
      privacy: The privacy report; None without privacy.
      told: Hears what is being computed.
    """
    history = read_metrics(folder.metrics)
    summary: dict[str, Any] = {
        "name": project.config.name,
        "run": str(folder.path),
        "rounds": project.config.rounds.num_rounds,
        "empty_clients": _empty_clients(project),
        "execution": execution_of(project),
        "seconds_in_rounds": round(sum(r["seconds"] for r in history), 2),
        "privacy": dict(privacy) if privacy else None,
        "privacy_statement": privacy["statement"] if privacy else NO_PRIVACY,
        "secure_aggregation": _sessions(project),
        "test": None,
        "metric": None,
        "comparison": None,
        "clients": None,
        "compressed": compressed_summary(project, final.compressed),
    }
    weights = final.trained
    if project.shows_test and project.split.test.num_examples:
        scores = project.evaluator.evaluate(weights, project.split.test)
        summary |= {"test": scores, "metric": main_metric(scores)}
    if project.compares:
        summary["comparison"] = comparison(project, summary["test"], told=told)
    if not project.is_protected:
        summary["clients"] = _by_client(project, weights)
    return summary


def execution_of(project: Project) -> dict[str, Any] | None:
    """How the rounds were run; None where the runtime has nothing to choose."""
    if not isinstance(project.runtime, AdaptiveRuntime):
        return None
    return dict(project.runtime.execution(project.round_))


def _sessions(project: Project) -> str | None:
    """The sessions of a round in words; None without secure aggregation."""
    session = session_of(project.config, project.split.train.num_clients)
    return None if session is None else words_of(session)


def _empty_clients(project: Project) -> int | None:
    """Clients without rows; None where that count is private."""
    if project.is_protected:
        return None
    return int((project.split.train.num_examples() == 0).sum())


def _by_client(project: Project, weights: ModelWeights) -> dict[str, Any] | None:
    """The main score of each client on its own test rows, and its spread."""
    clients = project.split.test_clients
    if clients is None or not project.shows_test:
        return None
    scores = project.evaluator.evaluate_clients(weights, clients)
    metric = main_metric(next(iter(scores.values()), {"accuracy": 0.0}))
    return {
        "metric": metric,
        "spread": spread(scores, metric),
        "values": {name: s[metric] for name, s in scores.items() if metric in s},
    }

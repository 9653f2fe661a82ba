"""Exact figures about private rows, for whoever holds them: outside the guarantee.

On private data they are written on request only, to a folder of their own, and never to
the summary, the page, the metrics or the privacy report.
"""

from collections.abc import Mapping
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.data.dataset import FederatedDataset
from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.project.closing import Told, comparison, main_metric
from fedtrain.project.run_folder import RunFolder
from fedtrain.rounds.evaluation import spread

COMPUTED = (
    "Exact diagnostics were computed from the private data on this machine. They are "
    "outside the guarantee: whatever leaves this machine from them is a release that "
    "nothing paid for."
)
_README = """\
NOT PRIVATE. Exact figures computed from private data, outside the privacy guarantee of
this run. For whoever holds the data; nothing in this folder should leave the machine.

clients.json     the final weights' scores on each client's own rows
comparison.json  the run beside the same rounds without privacy, and each client alone;
                 not there without test rows or with evaluation.baselines = false
"""


def check_diagnostics(project: Project) -> None:
    """Raises ConfigError for public data, whose summary shows it all."""
    if project.split.train.sensitivity == "public":
        raise ConfigError(
            "--diagnostics is for private data, but these are declared public: the "
            "comparison and each client's scores are in the summary anyway. Leave it "
            "out."
        )


def announce_diagnostics(folder: RunFolder) -> None:
    """Records that exact figures are computed; before they are, and for good."""
    info = folder.read_json(folder.info)
    folder.write_json(folder.info, info | {"diagnostics": COMPUTED})
    folder.diagnostics.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder.diagnostics / "README.txt", _README)


def write_diagnostics(
    project: Project, folder: RunFolder, weights: ModelWeights, *, told: Told
) -> None:
    """Writes the exact figures of a run on private data, in ``folder.diagnostics``.

    Args:
      project: The run.
      folder: Its folder, where ``announce_diagnostics`` was called.
      weights: Its final weights.
      told: Hears what is being computed.
    """
    told("diagnostics, NOT PRIVATE: scores by client")
    clients = _clients(project, weights)
    folder.write_json(folder.diagnostics / "clients.json", clients)
    split = project.split
    if split.test.num_examples and project.config.evaluation.baselines is not False:
        scores = project.evaluator.evaluate(weights, split.test)
        compared = {
            "metric": main_metric(scores),
            "test": scores,
            "comparison": comparison(project, scores, told=told),
        }
        folder.write_json(folder.diagnostics / "comparison.json", compared)


def _clients(project: Project, weights: ModelWeights) -> dict[str, Any]:
    split = project.split
    return {
        "training_rows": _by_client(project, weights, split.train),
        "test_rows": _by_client(project, weights, split.test_clients),
    }


def _by_client(
    project: Project, weights: ModelWeights, dataset: FederatedDataset | None
) -> Mapping[str, Any] | None:
    if dataset is None:
        return None
    scores = project.evaluator.evaluate_clients(weights, dataset)
    metric = main_metric(next(iter(scores.values()), {"accuracy": 0.0}))
    return {"metric": metric, "spread": spread(scores, metric), "scores": scores}

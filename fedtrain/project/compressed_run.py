"""What a run with ``[compression]`` leaves behind, and how good and small it is."""

from typing import Any, NamedTuple

from fedtrain.compression.constraint import one_shot
from fedtrain.compression.size import sparsity, weights_gzip_bytes
from fedtrain.core import nests
from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.project.reached import Reached
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.weights_file import load_arrays, save_weights, weights_like


class FinalWeights(NamedTuple):
    """The weights of a run that has ended.

    Attributes:
      trained: After the rounds of ``[rounds]``.
      compressed: After fine-tuning, under the constraint; None without one.
    """

    trained: ModelWeights
    compressed: ModelWeights | None


def save_final_weights(
    project: Project, folder: RunFolder, reached: Reached
) -> FinalWeights:
    """Writes what is not there yet: the trained weights were saved before fine-tuning.

    With ``[stop]`` the best weights and the last ones, too, each in a file of its own.

    Args:
      project: As it was built, before it is cut to the rounds that were run.
      folder: Of the run.
      reached: Its end.
    """
    trained = reached.weights(project.config)
    if reached.best is not None:
        save_weights(folder.best_weights, reached.best.weights)
        save_weights(folder.last_weights, reached.state.weights)
    if reached.rounds_done > project.config.rounds.num_rounds:
        trained = weights_like(load_arrays(folder.weights), trained)
    else:
        save_weights(folder.weights, trained)
    if project.constraint is None:
        return FinalWeights(trained, None)
    compressed = one_shot(reached.state.weights, project.constraint)
    save_weights(folder.compressed_weights, compressed)
    return FinalWeights(trained, compressed)


def compressed_summary(
    project: Project, compressed: ModelWeights | None
) -> dict[str, Any] | None:
    """What the compressed weights are; None without ``[compression]``.

    ``gzip_share`` is their size after gzip, in their shortest exact form, over that of
    the same number of float32 weights as they are.
    """
    section, constraint = project.config.compression, project.constraint
    if compressed is None or section is None or constraint is None:
        return None
    test = None
    if project.shows_test and project.split.test.num_examples:
        test = project.evaluator.evaluate(compressed, project.split.test)
    zipped = weights_gzip_bytes(compressed)
    return {
        "constraint": constraint.name,
        "fine_tuning_rounds": section.fine_tuning_rounds,
        "sparsity": sparsity(compressed.trainable),
        "gzip_bytes": zipped,
        "gzip_share": zipped / (4 * nests.num_weights(compressed)),
        "test": test,
    }

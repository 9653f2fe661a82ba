"""Does what a model gives fit the labels? Asked once, before anything is trained."""

from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.data.examples import Examples, map_arrays
from fedtrain.models import losses
from fedtrain.models.model import Model, ModelWeights, output_values

_PROBE_ROWS = 4
_KINDS: dict[Any, str] = {
    losses.sparse_cross_entropy: "sparse",
    losses.masked_token_cross_entropy: "sparse",
    losses.binary_cross_entropy: "binary",
}


def check_output(model: Model, weights: ModelWeights, examples: Examples) -> None:
    """Runs a few rows through ``model`` and compares outputs, loss and all labels.

    Args:
      model: What will be trained.
      weights: Its initial weights.
      examples: Every row whose label should be checked, such as those of all clients.

    Raises:
      ConfigError: The rows do not fit the model, its outputs do not fit the labels, a
        label is out of range, or the loss is not finite.
    """
    if examples.num_examples == 0:
        return
    probe = examples.slice(0, _PROBE_ROWS)
    outputs = _outputs(model, weights, probe)
    check = _CHECKS.get(loss_kind(model))
    if check is not None:
        check(model.name, output_values(outputs), examples.labels)
    _check_loss(model, probe, outputs)


def loss_kind(model: Model) -> str:
    """What labels the loss wants: sparse, binary, categorical or other."""
    return _KINDS.get(model.loss) or str(getattr(model.loss, "kind", "other"))


def _outputs(model: Model, weights: ModelWeights, probe: Examples) -> Any:
    features = map_arrays(tf.convert_to_tensor, probe.features)
    try:
        result = model.forward(
            weights, features, training=False, seed=tf.zeros([2], tf.int32)
        )
    except FedtrainError:
        raise
    except Exception as error:
        shapes = map_arrays(lambda array: f"{array.dtype}{array.shape}", probe.features)
        raise ConfigError(
            f"{model.name} cannot be applied to features of type and shape {shapes}: "
            f"{_last_line(error)}"
        ) from error
    return result.outputs


def _check_sparse(name: str, outputs: Any, labels: Any) -> None:
    num_classes = outputs.shape[-1]
    if num_classes == 1:
        raise ConfigError(
            f"{name} gives one number for each row, but the loss needs one for each "
            "class; end in Dense(number of classes), or use BinaryCrossentropy."
        )
    _check_labels(name, labels, 0, num_classes - 1)
    wanted = outputs.shape[1:-1]
    if _size(labels.shape[1:]) != _size(wanted):
        raise ConfigError(
            f"labels have shape {list(labels.shape[1:])} a row, but {name} gives "
            f"outputs of shape {list(outputs.shape[1:])}; class numbers need "
            f"{list(wanted)}, one-hot labels need CategoricalCrossentropy."
        )


def _check_binary(name: str, outputs: Any, labels: Any) -> None:
    if _size(outputs.shape[1:]) != _size(labels.shape[1:]):
        raise ConfigError(
            f"{name} gives {_size(outputs.shape[1:])} numbers a row, but a label "
            f"has {_size(labels.shape[1:])}; end in Dense(1), or use "
            "SparseCategoricalCrossentropy for several classes."
        )
    _check_labels(name, labels, 0, 1)


def _check_categorical(name: str, outputs: Any, labels: Any) -> None:
    if list(outputs.shape[1:]) != list(labels.shape[1:]):
        raise ConfigError(
            f"labels have shape {list(labels.shape[1:])} a row, but {name} gives "
            f"{list(outputs.shape[1:])}; class numbers need "
            "SparseCategoricalCrossentropy."
        )


def _check_labels(name: str, labels: Any, lowest: int, highest: int) -> None:
    labels = np.asarray(labels)
    bad = ~((labels >= lowest) & (labels <= highest))
    if labels.dtype.kind == "f" and highest > 1:
        bad |= labels != np.round(labels)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        value = labels[bad].flat[0]
        raise ConfigError(
            f"labels contains {value} at row {row}, but {name} allows "
            f"{lowest} to {highest}; give it as many outputs as there are classes, and "
            "number the classes from 0."
        )


def _check_loss(model: Model, probe: Examples, outputs: Any) -> None:
    try:
        totals = model.loss(tf.convert_to_tensor(probe.labels), outputs).total
    except FedtrainError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the loss of {model.name} cannot compare labels of type and shape "
            f"{probe.labels.dtype}{probe.labels.shape} with its outputs: "
            f"{_last_line(error)}"
        ) from error
    if totals.shape != [probe.num_examples]:
        raise ConfigError(
            f"the loss of {model.name} gives values of shape {list(totals.shape)} for "
            f"{probe.num_examples} rows; it must give one for each row."
        )
    if not np.all(np.isfinite(totals)):
        raise ConfigError(
            f"the loss of {model.name} is not finite on the first rows: "
            f"{np.asarray(totals).tolist()}; look for NaN or huge values in the "
            "features, and scale them."
        )


def _size(shape: Any) -> int:
    return int(np.prod([int(size) for size in shape], dtype=np.int64))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


_CHECKS = {
    "sparse": _check_sparse,
    "binary": _check_binary,
    "categorical": _check_categorical,
}

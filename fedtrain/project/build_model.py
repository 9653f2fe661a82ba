"""The model, from a project file: ready-made, or a function in the user's own file."""

import importlib.util
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import map_arrays
from fedtrain.data.sets.split import DataSplit
from fedtrain.models.check_output import check_output
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model
from fedtrain.models.model import Model, output_values
from fedtrain.project.config import ModelSection, ProjectConfig


def model_of(
    config: ProjectConfig, split: DataSplit, *, folder: Path, given: Any = None
) -> Model:
    """The model, checked against the first rows of the data.

    Args:
      config: Its ``[model]``; its seed draws a Keras model's first weights.
      split: What it will be trained on.
      folder: Where relative paths start.
      given: A Keras model or a ``Model`` that replaces the section.
    """
    if given is None:
        given = user_model(config, folder)
    model = _dense(config.model, split) if given is None else _adapted(given)
    _check_fits(model, split)
    return model


def user_model(config: ProjectConfig, folder: Path) -> Any:
    """What the user's own file gives, with fresh weights; None for a ready-made model.

    Keras draws first weights from a seed of the process, so that is set here.
    """
    section = config.model
    if section.path is None:
        return None
    path = folder / section.path
    keras.utils.set_random_seed(config.seed % 2**32)
    if path.suffix == ".keras":
        return _saved_keras(path)
    function = _function_in(path, section.function)
    try:
        return function()
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"{path}, function {section.function!r} (model.function) failed: {error!r}."
        ) from error


def _saved_keras(path: Path) -> Any:
    # Compiled apart from loading, or Keras would warn of an optimizer never used.
    try:
        model = keras.models.load_model(path, compile=False)
        compiled = _compile_config(path)
        if compiled:
            model.compile_from_config(compiled)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"model.path = {str(path)!r} is not a Keras model that can be loaded: "
            f"{error}. Save one with model.save('model.keras'), or give a Python file "
            "and model.function."
        ) from error
    return model


def _compile_config(path: Path) -> Any:
    """Loss and metrics: from the file beside it, else from within Keras's archive."""
    beside = path.with_suffix(".compile.json")
    if beside.is_file():
        return json.loads(beside.read_text("utf-8"))
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json")).get("compile_config")


def _dense(section: ModelSection, split: DataSplit) -> Model:
    shape = split.feature_shape
    is_class = split.task == "classification" and split.num_classes > 1
    if not is_class or isinstance(shape, dict):
        raise ConfigError(
            'model.name = "dense_classifier" takes one vector of numbers and gives '
            f"one label a row; {split.name} differs. Give [model] path and function."
        )
    dense = dense_classifier(
        math.prod(shape),
        split.num_classes,
        hidden=section.hidden,
        weight_penalty=section.weight_penalty,
    )
    return dense if len(shape) == 1 else _flattened(dense, math.prod(shape))


def _flattened(model: Model, num_features: int) -> Model:
    def forward(weights: Any, features: Any, **options: Any) -> Any:
        flat = tf.reshape(features, [-1, num_features])
        return model.forward(weights, flat, **options)

    return model._replace(forward=forward)


def _adapted(given: Any) -> Model:
    return given if isinstance(given, Model) else keras_model(given)


def _function_in(path: Path, name: str) -> Callable[[], Any]:
    if not path.is_file():
        raise ConfigError(f"model.path = {str(path)!r} is not a file.")
    spec = importlib.util.spec_from_file_location("fedtrain_project_model", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"model.path = {str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(f"{path} cannot be imported: {error!r}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [key for key, value in vars(module).items() if callable(value)]
        raise ConfigError(
            f"{path} has no function {name!r} (model.function); it has: "
            f"{', '.join(sorted(found)) or 'none'}."
        )
    return function


def _check_fits(model: Model, split: DataSplit) -> None:
    """The outputs are of as many classes as there are, and the loss takes them."""
    weights = model.init(seeds.root(0))
    outputs = _outputs(model, weights, split)
    shape = tuple(output_values(outputs).shape)
    classes = split.num_classes
    if split.task == "next_token":
        fits = len(shape) == 3 and shape[-1] >= classes
    else:
        one_logit = math.prod(shape[1:]) == 1 and classes <= 2
        fits = one_logit or (len(shape) == 2 and shape[-1] >= classes)
    if not fits:
        raise ConfigError(
            f"{model.name} gives outputs of shape {shape[1:]} a row, but {split.name} "
            f"has {classes} labels (0 to {classes - 1}). Give the last layer {classes} "
            "units (logits, no softmax)."
        )
    check_output(model, weights, split.train.examples)


def _outputs(model: Model, weights: Any, split: DataSplit) -> Any:
    row = map_arrays(
        lambda array: np.zeros([1, *array.shape[1:]], array.dtype),
        split.train.examples.features,
    )
    seed = seeds.root(0)
    forward = tf.function(
        lambda weights, features: (
            model.forward(weights, features, training=False, seed=seed).outputs
        )
    )
    given = (weights, map_arrays(tf.constant, row))
    try:
        # Traced and called apart: calls that trace are counted, and warned of.
        return forward.get_concrete_function(*given)(*given)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ConfigError(
            f"{model.name} cannot take the rows of {split.name}, whose features have "
            f"shape {split.feature_shape}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """The line that says what is wrong, among those that say where."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras 3 writes it in bold
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    named = (i for i, line in enumerate(lines) if re.match(r"\w+Error: ", line))
    first = next(named, 0)
    says_where = "Exception encountered when calling" in lines[first]
    return lines[min(first + says_where, len(lines) - 1)]

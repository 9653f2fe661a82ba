"""A SavedModel for TensorFlow Serving, with warm-up requests, written whole or not."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.graphs import operation_names
from fedtrain.data.examples import Array, map_arrays
from fedtrain.export.needs import needed
from fedtrain.export.serving_files import write_serving_files
from fedtrain.export.source import ServedModel, Source

FEATURES, RAW = "serving_default", "raw_examples"
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
_WARMUP_ROWS = (1, 32)
_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def write_server(source: Source, folder: Path, *, version: int) -> Path:
    """Writes ``folder/NAME/VERSION`` and the server's configuration beside it.

    The caller writes aside and renames, so that no server sees a part of it.

    Returns:
      The SavedModel's folder. ``serving_default`` takes the model's features;
      ``raw_examples``, where there is a schema, the columns of a table as they are.

    Raises:
      ConfigError: If the model calls Python.
    """
    saved = folder / source.name / str(version)
    served = ServedModel(source)
    signatures = {FEATURES: served.features.get_concrete_function()}
    if served.raw is not None:
        signatures[RAW] = served.raw.get_concrete_function()
    _refuse_python(source, served)
    tf.saved_model.save(served, str(saved), signatures=signatures)
    _write_warmup(source, saved)
    write_serving_files(folder, name=source.name, version=version)
    return saved


def _refuse_python(source: Source, served: ServedModel) -> None:
    """A graph that calls back into this process runs in no other."""
    graph = served.features.get_concrete_function().graph
    python = sorted(operation_names(graph) & _PYTHON)
    if python:
        raise ConfigError(
            f"{source.name} calls Python ({', '.join(python)}), which no target can "
            "take along. Write that part of the model with TensorFlow operations."
        )


def _write_warmup(source: Source, saved: Path) -> None:
    """Requests of zeros: a server compiles before the first caller waits."""
    path = saved / WARMUP
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for num_rows in _WARMUP_ROWS:
            inputs = _zeros(source.evaluation.features, num_rows)
            writer.write(_request(source.name, inputs).SerializeToString())


def _request(name: str, inputs: dict[str, Array]) -> Any:
    reason = "Writing warm-up requests"
    logs = needed("tensorflow_serving.apis.prediction_log_pb2", reason=reason)
    predict = needed("tensorflow_serving.apis.predict_pb2", reason=reason)
    request = predict.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = FEATURES
    for key, array in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
    return logs.PredictionLog(predict_log=logs.PredictLog(request=request))


def _zeros(features: Any, num_rows: int) -> dict[str, Array]:
    zeros = map_arrays(
        lambda array: np.zeros([num_rows, *array.shape[1:]], array.dtype), features
    )
    return zeros if isinstance(zeros, dict) else {"features": zeros}

"""One variant in its own runtime: its outputs, its speed and its memory.

``python -m fedtrain.export.measure SPEC.json`` runs in a fresh process, with one
thread, and imports nothing but the variant's own runtime.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.data.examples import Array

Inputs = Mapping[str, Array]
Predict = Callable[[Inputs], Array]
INPUTS, OUTPUTS, FIGURES = "inputs.npz", "outputs.npy", "figures.json"
REPEATS = {1: 300, 32: 100}
_WARMUPS = 20
_CHUNK = 256


def main(spec_path: str) -> None:
    """Reads a specification, measures, and writes outputs and figures beside it."""
    spec = json.loads(Path(spec_path).read_text("utf-8"))
    signature_of = _LOADERS[spec["runtime"]](spec["path"])
    for folder, signature in spec["signatures"].items():
        predict = signature_of(signature, spec["output"])
        _measure(predict, Path(folder))


def _measure(predict: Predict, folder: Path) -> None:
    with np.load(folder / INPUTS, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    figures: dict[str, Any] = {
        f"latency_{size}": latency(predict, _first(inputs, size), REPEATS[size])
        for size in REPEATS
    }
    figures["peak_memory_bytes"] = peak_memory_bytes()
    num_rows = len(next(iter(inputs.values())))
    parts = [
        predict({name: array[i : i + _CHUNK] for name, array in inputs.items()})
        for i in range(0, num_rows, _CHUNK)
    ]
    np.save(folder / OUTPUTS, np.concatenate(parts))
    (folder / FIGURES).write_text(json.dumps(figures), "utf-8")


def latency(predict: Predict, inputs: Inputs, repeats: int) -> dict[str, float]:
    """Seconds of one call: the median and the 99th percentile."""
    for _ in range(_WARMUPS):
        predict(inputs)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        predict(inputs)
        seconds.append(time.perf_counter() - start)
    return percentiles(seconds)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    return {
        "p50_s": float(np.percentile(seconds, 50)),
        "p99_s": float(np.percentile(seconds, 99)),
    }


def peak_memory_bytes() -> int | None:
    """Most memory that this process ever held; None where the system does not say.

    Not ``ru_maxrss``: on Linux that starts with what the parent process held.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _saved_model(path: str) -> Callable[[str, str], Predict]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(path)

    def signature_of(signature: str, output: str) -> Predict:
        function = loaded.signatures[signature]
        return lambda inputs: np.asarray(
            function(**{name: tf.constant(v) for name, v in inputs.items()})[output]
        )

    return signature_of


def _tflite(path: str) -> Callable[[str, str], Predict]:
    runtime = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(model_path=path, num_threads=1)

    def signature_of(signature: str, output: str) -> Predict:
        del signature  # a TFLite file has one
        runner = interpreter.get_signature_runner()
        return lambda inputs: np.array(runner(**inputs)[output])

    return signature_of


def _onnx(path: str) -> Callable[[str, str], Predict]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )

    def signature_of(signature: str, output: str) -> Predict:
        del signature  # an ONNX file has one
        return lambda inputs: np.asarray(session.run([output], dict(inputs))[0])

    return signature_of


_LOADERS: dict[str, Callable[[str], Callable[[str, str], Predict]]] = {
    "saved_model": _saved_model,
    "tflite": _tflite,
    "onnx": _onnx,
}


def _first(inputs: Inputs, num_rows: int) -> Inputs:
    """The first rows, repeated where there are fewer."""
    return {
        name: np.resize(array, (num_rows, *array.shape[1:]))
        for name, array in inputs.items()
    }


if __name__ == "__main__":
    main(sys.argv[1])

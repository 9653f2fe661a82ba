"""Every variant against the source model, on the same rows, in a fresh process."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array
from fedtrain.data.schema import Schema
from fedtrain.data.schema_encoding import encoded
from fedtrain.export import measure, record, scores
from fedtrain.export.column_slices import column_slices
from fedtrain.export.node import run_in_node
from fedtrain.export.raw_examples import input_names, raw_inputs
from fedtrain.export.server import FEATURES, RAW
from fedtrain.export.source import OUTPUTS, Source
from fedtrain.export.synthetic import synthetic_table
from fedtrain.rounds.evaluation import Evaluator

# A SavedModel holds the same float32 operations; more than rounding is a wrong model.
# Of the largest output where that is above 1, as float32 has seven digits.
MAX_SERVER_DIFFERENCE = 1e-4
# Of the largest output: many times what rounding to 8 bits does.
_MAX_ROUNDED_DIFFERENCE = 0.05
_TIMEOUT_S = 3600  # far more than needed, as machines may be busy


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A variant that was written, before it is known how good it is.

    Attributes:
      target: ``"server"``, ``"edge"`` or ``"web"``.
      name: Of the variant.
      runtime: ``"saved_model"``, ``"tflite"`` or ``"tfjs"``.
      path: File or folder, whole.
      calibration: What its ranges were measured on; None where there are none.
    """

    target: str
    name: str
    runtime: str
    path: Path
    calibration: str | None = None


class Verifier:
    """Measures candidates against one source; computes the source's outputs once."""

    def __init__(
        self, source: Source, bounds: record.Bounds, slice_columns: Sequence[str] = ()
    ) -> None:
        self._source = source
        self._parts = _parts(source, slice_columns)
        self._bounds = bounds
        self._reference = source.reference()
        self.source_scores = self._scores(self._reference)

    def measured(self, candidate: Candidate, *, folder: Path) -> record.Variant:
        """The figures of ``candidate``; ``path`` is given relative to ``folder``.

        Raises:
          ConfigError: If it does not run, or its outputs have another shape.
        """
        asked = {
            FEATURES: feature_inputs(self._source.evaluation.features),
            **self._raw_rows(candidate),
        }
        measured = run_fresh(candidate, asked)
        outputs, figures = measured[FEATURES]
        _check_shape(candidate, outputs, self._reference)
        found = self._scores(outputs)
        drops = scores.drops(self.source_scores, found)
        slices = self._slices(outputs)
        size_bytes, gzip_bytes = sizes(candidate.path)
        difference = float(np.max(np.abs(outputs - self._reference)))
        variant = record.Variant(
            target=candidate.target,
            name=candidate.name,
            runtime=candidate.runtime,
            path=str(candidate.path.relative_to(folder)),
            recommended=False,
            refusal=self._refusal(candidate, drops, slices, difference),
            calibration=candidate.calibration,
            size_bytes=size_bytes,
            gzip_bytes=gzip_bytes,
            scores=found,
            drop_points=drops,
            worst_slice=max(slices, key=lambda s: s.drop_points, default=None),
            max_output_difference=difference,
            agreement=self._agreement(outputs),
            raw=self._raw_check(*measured[RAW]) if RAW in measured else None,
            **figures,
        )
        if RAW not in measured:
            return variant
        return _checked_raw(variant, max_difference(candidate, measured[RAW][0]))

    def _scores(self, outputs: Array) -> dict[str, float]:
        source = self._source
        if source.is_judged_privately:
            return {}  # they come from ``paid_scores``
        return scores.scores(source.evaluation.labels, outputs, **source.kind())

    def _agreement(self, outputs: Array) -> float:
        source = self._source
        labels = None if source.is_judged_privately else source.evaluation.labels
        return scores.agreement(labels, self._reference, outputs, **source.kind())

    def _slices(self, outputs: Array) -> list[record.SliceDrop]:
        source = self._source
        labels, own = source.evaluation.labels, self._reference
        found = [
            (part, scores.slice_drop(labels, own, outputs, part.rows, **source.kind()))
            for part in self._parts
        ]
        return [
            record.SliceDrop(
                kind=part.kind,
                name=part.name,
                num_rows=len(part.rows),
                drop_points=drop,
            )
            for part, drop in found
            if drop is not None
        ]

    def _refusal(
        self,
        candidate: Candidate,
        drops: Mapping[str, float],
        slices: list[record.SliceDrop],
        difference: float,
    ) -> str | None:
        bounds = self._bounds
        if not np.isfinite(difference):
            return "some of its outputs are not finite"
        if difference > max_difference(candidate, self._reference):
            return f"its outputs differ by {difference:.2g} from the trained model's"
        beyond = beyond_bounds(drops, bounds)
        if beyond is not None:
            return beyond
        for part in slices:
            large = part.num_rows >= bounds.min_slice_rows
            if large and part.drop_points > bounds.max_slice_drop:
                return (
                    f"{part.kind} {part.name} drops {part.drop_points:.2f} points, "
                    f"more than max_slice_drop {bounds.max_slice_drop:g}"
                )
        return None

    def _raw_rows(self, candidate: Candidate) -> dict[str, dict[str, Array]]:
        schema = self._source.schema
        if schema is None or candidate.runtime != "saved_model":
            return {}
        return {RAW: raw_inputs(schema, synthetic_table(schema))}

    def _raw_check(self, outputs: Array, figures: Mapping[str, Any]) -> record.RawCheck:
        """Raw columns through the served graph beside the run's own encoding."""
        schema = cast(Schema, self._source.schema)
        table = synthetic_table(schema)
        plain = schema.model_copy(
            update={"client": None, "entity": None, "weight": None}
        )
        rows = encoded(plain, table)
        expected = Evaluator(self._source.model).predict(self._source.weights, rows)
        names = input_names(schema)
        return record.RawCheck(
            columns={given: column for column, given in names.items()},
            max_output_difference=float(np.max(np.abs(outputs - expected))),
            latency_1=figures["latency_1"],
            latency_32=figures["latency_32"],
        )


def max_difference(candidate: Candidate, outputs: Array) -> float:
    """How far ``outputs`` may differ from the trained model's, whatever the scores say.

    Only servers compute the same sums, so only they are bounded.
    """
    if candidate.target != "server":
        return float("inf")
    largest = float(np.max(np.abs(outputs)))
    if candidate.name == "float32":
        return MAX_SERVER_DIFFERENCE * max(1.0, largest)
    return _MAX_ROUNDED_DIFFERENCE * largest


def beyond_bounds(drops: Mapping[str, float], bounds: record.Bounds) -> str | None:
    """Which of ``drops`` is more than a variant may lose; None where none is."""
    for name, drop in drops.items():
        if name in scores.ERRORS and not drop <= bounds.max_error_increase:
            return (
                f"{name} rises by {drop:.2f} %, more than max_error_increase "
                f"{bounds.max_error_increase:g}"
            )
        if name not in scores.ERRORS and not drop <= bounds.max_accuracy_drop:
            return (
                f"{name} drops {drop:.2f} points, more than max_accuracy_drop "
                f"{bounds.max_accuracy_drop:g}"
            )
    return None


def feature_inputs(features: Any) -> dict[str, Array]:
    """Features by the names of the inputs of ``serving_default``."""
    return features if isinstance(features, dict) else {"features": features}


def run_fresh(
    candidate: Candidate, inputs: Mapping[str, Mapping[str, Array]]
) -> dict[str, tuple[Array, dict[str, Any]]]:
    """Outputs and figures of ``candidate``, loaded in a process of its own.

    Args:
      candidate: What is loaded.
      inputs: Rows for each signature that is called, input by input.

    Raises:
      ConfigError: With the last words of the process, if its runtime fails.
    """
    if candidate.runtime == "tfjs":
        return {name: _in_node(candidate, rows) for name, rows in inputs.items()}
    with tempfile.TemporaryDirectory(prefix="fedtrain-verify-") as folder:
        folders = {signature: Path(folder) / signature for signature in inputs}
        for signature, rows in inputs.items():
            folders[signature].mkdir()
            np.savez(folders[signature] / measure.INPUTS, **rows)
        spec = {
            "runtime": candidate.runtime,
            "path": str(candidate.path),
            "output": OUTPUTS,
            "signatures": {str(path): name for name, path in folders.items()},
        }
        spec_path = Path(folder) / "spec.json"
        spec_path.write_text(json.dumps(spec), "utf-8")
        _run(candidate, spec_path)
        return {name: _result(path) for name, path in folders.items()}


def _in_node(
    candidate: Candidate, rows: Mapping[str, Array]
) -> tuple[Array, dict[str, Any]]:
    outputs, figures = run_in_node(
        candidate.path, rows, output=OUTPUTS, repeats=measure.REPEATS
    )
    timed = figures.pop("seconds").items()
    latencies = {f"latency_{size}": measure.percentiles(s) for size, s in timed}
    return outputs, {**latencies, **figures}


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file or folder, as they are and after gzip."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    contents = [file.read_bytes() for file in files if file.is_file()]
    packed = gzip.compress(b"".join(contents), mtime=0)
    return sum(map(len, contents)), len(packed)


def _check_shape(candidate: Candidate, outputs: Array, reference: Array) -> None:
    if outputs.shape != reference.shape:
        raise ConfigError(
            f"The {candidate.target} variant {candidate.name} gives outputs of shape "
            f"{outputs.shape} where the trained model gives {reference.shape}."
        )


def _result(folder: Path) -> tuple[Array, dict[str, Any]]:
    figures = json.loads((folder / measure.FIGURES).read_text("utf-8"))
    return np.load(folder / measure.OUTPUTS, allow_pickle=False), figures


def _run(candidate: Candidate, spec_path: Path) -> None:
    command = [sys.executable, "-m", "fedtrain.export.measure", str(spec_path)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"The {candidate.target} variant {candidate.name} was not measured within "
            f"{_TIMEOUT_S} s; leave it out, or judge by fewer rows."
        ) from error
    if done.returncode:
        raise ConfigError(
            f"The {candidate.target} variant {candidate.name} does not run in its own "
            f"runtime: {(done.stderr.strip() or 'no reason given')[-600:]}"
        )


def _checked_raw(variant: record.Variant, bound: float) -> record.Variant:
    raw = variant.raw
    if raw is None:
        return variant
    difference = raw.max_output_difference
    if np.isfinite(difference) and difference <= bound:
        return variant
    refusal = (
        f"raw columns give outputs that differ by {difference:.2g} from "
        "the run's own encoding: a model served so would see other features"
    )
    return variant.model_copy(update={"refusal": variant.refusal or refusal})


def _parts(source: Source, columns: Sequence[str]) -> list[scores.Slice]:
    """Slices that are looked at; none of private rows."""
    if source.is_judged_privately:
        return []
    labels = source.evaluation.labels
    by_label = scores.slices(labels, source.label_names, source.groups)
    return [*by_label, *column_slices(source, columns)]

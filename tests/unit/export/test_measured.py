"""A variant that does not run in its own process is left out; the others go on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedtrain.data.examples import Examples
from fedtrain.export.edge import write_edge
from fedtrain.export.export_run import _measured
from fedtrain.export.record import Bounds
from fedtrain.export.source import Source
from fedtrain.export.targets import Written
from fedtrain.export.verify import Candidate, Verifier
from fedtrain.models.dense import dense_classifier

BOUNDS = Bounds(max_accuracy_drop=0.5, max_slice_drop=2.0, min_slice_rows=200)
ROWS = Examples(features=np.ones([4, 3], np.float32), labels=np.zeros(4, np.int32))


def test_variant_that_does_not_run_is_named_and_removed(
    source_with: Callable[..., Source], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    source, wider = (source_with(dense_classifier(3, n), ROWS) for n in (2, 5))
    paths = {name: tmp_path / name for name in ("good", "broken", "wider")}
    write_edge(source, paths["good"], variant="float32", calibration=None)
    write_edge(wider, paths["wider"], variant="float32", calibration=None)
    paths["broken"].write_bytes(b"TFL3 but nothing else")
    made = Written(
        [
            Candidate(target="edge", name=name, runtime="tflite", path=path)
            for name, path in paths.items()
        ],
        {"edge/int8": "no rows to measure ranges on"},
    )
    verifier = Verifier(source, BOUNDS)
    found, not_made = _measured(verifier, made, aside=tmp_path, told=lambda text: None)
    assert [variant.name for _, variant in found] == ["good"]
    assert list(not_made) == ["edge/int8", "edge/broken", "edge/wider"]
    assert "does not run in its own runtime" in not_made["edge/broken"]
    assert "(4, 5) where the trained model gives (4, 2)" in not_made["edge/wider"]
    assert [path.name for path in tmp_path.iterdir()] == ["good"]

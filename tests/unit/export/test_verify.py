"""How far the outputs of a served model may be from the trained one's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export import verify
from fedtrain.export.record import Latency, RawCheck
from fedtrain.export.verify import (
    Candidate,
    _checked_raw,
    max_difference,
    run_fresh,
)

LATENCY = Latency(p50_s=1e-3, p99_s=2e-3)


def candidate(target: str, name: str) -> Candidate:
    return Candidate(target=target, name=name, runtime="any", path=Path())


def test_servers_are_held_to_the_precision_of_float32() -> None:
    small, large = np.array([0.5, -0.1]), np.array([3e5, -1.0])
    server = candidate("server", "float32")
    assert max_difference(server, small) == pytest.approx(1e-4)
    assert max_difference(server, large) == pytest.approx(30.0)
    rounded = candidate("server", "bfloat16")
    assert max_difference(rounded, small) == pytest.approx(0.025)
    assert max_difference(candidate("edge", "int8"), small) == np.inf


@pytest.mark.parametrize("difference", [np.inf, np.nan])
def test_raw_outputs_that_are_not_finite_are_refused(difference: float) -> None:
    raw = RawCheck(
        columns={},
        max_output_difference=difference,
        latency_1=LATENCY,
        latency_32=LATENCY,
    )
    variant: Any = SimpleNamespace(raw=raw, refusal=None)
    variant.model_copy = lambda update: SimpleNamespace(**update)
    assert _checked_raw(variant, np.inf).refusal is not None


def test_variant_that_takes_too_long_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "_TIMEOUT_S", 0.01)
    with pytest.raises(ConfigError, match=r"int8 was not measured within 0\.01 s"):
        run_fresh(candidate("edge", "int8"), {})

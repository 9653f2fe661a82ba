from typing import Any

import pytest

from fedtrain.core.errors import RefusedExportError
from fedtrain.export.choice import recommended
from fedtrain.export.record import Latency, Variant


def test_smallest_accepted_variant_of_each_target_is_recommended() -> None:
    variants = [
        variant("server", "float32", 50),
        variant("edge", "float32", 40),
        variant("edge", "float16", 20),
        variant("edge", "int8", 10, refusal="accuracy drops", drop=1.5),
    ]
    marked = [
        v.name for v in recommended(variants, ["server", "edge"]) if v.recommended
    ]
    assert marked == ["float32", "float16"]


def test_target_without_variant_names_reasons_and_the_closest() -> None:
    variants = [
        variant("edge", "int8", 10, refusal="accuracy drops 1.50", drop=1.5),
        variant("edge", "int4", 5, refusal="accuracy drops 9.00", drop=9.0),
    ]
    with pytest.raises(RefusedExportError) as error:
        recommended(variants, ["edge"])
    for words in ("'edge'", "drops 9.00", "closest is int8", "1.50 points"):
        assert words in str(error.value)


def test_way_out_is_that_of_the_target() -> None:
    broken = variant("server", "float32", 10, refusal="not finite")
    with pytest.raises(RefusedExportError) as error:
        recommended([broken.model_copy(update={"drop_points": {}})], ["server"])
    assert "edge_variants" not in str(error.value)
    assert "closest is float32: allow" in str(error.value)


def test_variant_that_could_not_be_measured_is_named_with_its_reason() -> None:
    not_made = {"edge/int8": "does not run", "web/uint8": "no TF.js"}
    only = [variant("edge", "int4", 5, refusal="accuracy drops", drop=9.0)]
    for variants in ([], only):
        with pytest.raises(RefusedExportError, match="int8: does not run") as error:
            recommended(variants, ["edge"], not_made)
        assert "no TF.js" not in str(error.value)
        assert "Nothing was released" in str(error.value)


def variant(
    target: str, name: str, gzip: int, *, refusal: str | None = None, drop: float = 0.0
) -> Variant:
    values: dict[str, Any] = {"max_output_difference": 0.0, "agreement": 1.0}
    return Variant(
        target=target,
        name=name,
        runtime="tflite",
        path=None,
        recommended=False,
        refusal=refusal,
        calibration=None,
        size_bytes=gzip,
        gzip_bytes=gzip,
        scores={"accuracy": 0.9},
        drop_points={"accuracy": drop},
        worst_slice=None,
        latency_1=Latency(p50_s=1e-3, p99_s=2e-3),
        latency_32=None,
        peak_memory_bytes=None,
        **values,
    )

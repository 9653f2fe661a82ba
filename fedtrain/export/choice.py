"""Which variant of each target is recommended, and whether a target has any."""

import math
from collections.abc import Sequence

from fedtrain.core.errors import RefusedExportError
from fedtrain.export.record import Variant

_OTHERS = {
    target: f", or ask for other variants (export.{target}_variants)"
    for target in ("edge", "web")
}


def recommended(variants: Sequence[Variant], targets: Sequence[str]) -> list[Variant]:
    """``variants`` with the smallest accepted one of each target marked.

    Size is after gzip, as it is sent; of equals the faster is taken.

    Raises:
      RefusedExportError: Naming each variant's refusal, where a target has none left.
    """
    chosen = [_best(variants, target) for target in targets]
    return [
        variant.model_copy(update={"recommended": variant in chosen})
        for variant in variants
    ]


def _best(variants: Sequence[Variant], target: str) -> Variant:
    own = [variant for variant in variants if variant.target == target]
    accepted = [variant for variant in own if variant.refusal is None]
    if not accepted:
        closest = min(own, key=_drop)
        reasons = "; ".join(f"{v.name}: {v.refusal}" for v in own)
        raise RefusedExportError(
            f"The target {target!r} has no variant within the bounds ({reasons}). The "
            f"closest is {closest.name}{_by(_drop(closest))}: "
            "allow it with --max-accuracy-drop (export.max_accuracy_drop), "
            "export.max_slice_drop or export.max_error_increase"
            f"{_OTHERS.get(target, '')}. Nothing was released."
        )
    return min(accepted, key=lambda v: (v.gzip_bytes, v.latency_1.p50_s))


def _by(drop: float) -> str:
    return f", with a drop of {drop:.2f} points" if math.isfinite(drop) else ""


def _drop(variant: Variant) -> float:
    return max(variant.drop_points.values(), default=math.inf)

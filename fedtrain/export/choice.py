"""Which variant of each target is recommended, and whether a target has any."""

import math
from collections.abc import Mapping, Sequence

from fedtrain.core.errors import RefusedExportError
from fedtrain.export.record import Variant

_OTHERS = {
    target: f", or ask for other variants (export.{target}_variants)"
    for target in ("edge", "web")
}


def recommended(
    variants: Sequence[Variant],
    targets: Sequence[str],
    not_made: Mapping[str, str] | None = None,
) -> list[Variant]:
    """``variants`` with the smallest accepted one of each target marked.

    Size is after gzip, as it is sent; of equals the faster is taken.

    Args:
      variants: Those that could be measured.
      targets: Each needs one.
      not_made: Why others could not be, by ``target/variant``.

    Raises:
      RefusedExportError: Naming each variant's refusal, where a target has none left.
    """
    chosen = [_best(variants, target, not_made or {}) for target in targets]
    return [
        variant.model_copy(update={"recommended": variant in chosen})
        for variant in variants
    ]


def _best(
    variants: Sequence[Variant], target: str, not_made: Mapping[str, str]
) -> Variant:
    own = [variant for variant in variants if variant.target == target]
    accepted = [variant for variant in own if variant.refusal is None]
    if accepted:
        return min(accepted, key=lambda v: (v.gzip_bytes, v.latency_1.p50_s))
    prefix = f"{target}/"
    lost = {
        k.removeprefix(prefix): v for k, v in not_made.items() if k.startswith(prefix)
    }
    reasons = {**{v.name: v.refusal for v in own}, **lost}
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise RefusedExportError(
        f"The target {target!r} has no variant within the bounds ({listed}). "
        f"{_way_out(target, own)}Nothing was released."
    )


def _way_out(target: str, own: Sequence[Variant]) -> str:
    others = _OTHERS.get(target, "")
    if not own:
        return f"Leave it out of the targets{others}. "
    closest = min(own, key=_drop)
    return (
        f"The closest is {closest.name}{_by(_drop(closest))}: "
        "allow it with --max-accuracy-drop (export.max_accuracy_drop), "
        f"export.max_slice_drop or export.max_error_increase{others}. "
    )


def _by(drop: float) -> str:
    return f", with a drop of {drop:.2f} points" if math.isfinite(drop) else ""


def _drop(variant: Variant) -> float:
    return max(variant.drop_points.values(), default=math.inf)

"""The figures side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from simulations.service.systems import BOUND, SYSTEMS

_HEAD = (
    "system",
    "s a round",
    "(least to most)",
    "over TLS sockets",
    "processor s: aggregator",
    "all",
    "MB on the wire",
    "peak MB above idle",
    "x the model",
    "difference",
)


def table(results: Mapping[str, Any], num_weights: int) -> str:
    """Markdown, a row for each system.

    Args:
      results: By peer: what was measured, or ``failure``.
      num_weights: Length of the vector, of four bytes each.
    """
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for peer, result in results.items():
        if "failure" in result:
            name = SYSTEMS[peer].name
            rows.append((name, "failed", *("",) * (len(_HEAD) - 2)))
            continue
        rows.append((SYSTEMS[peer].name, *_cells(result, results, 4 * num_weights)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def over_bound(result: Mapping[str, Any], results: Mapping[str, Any]) -> float | None:
    """How many times the bound's median round a median round takes."""
    bound = results.get(BOUND, {})
    if "seconds" not in bound:
        return None
    return float(np.median(result["seconds"]) / np.median(bound["seconds"]))


def _cells(
    result: Mapping[str, Any], results: Mapping[str, Any], model_bytes: int
) -> tuple[str, ...]:
    seconds = result["seconds"]
    ratio = over_bound(result, results)
    above = result["peak_bytes"] - result["idle_bytes"]
    return (
        f"{np.median(seconds):.2f}",
        f"{min(seconds):.2f} to {max(seconds):.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{result['cpu_seconds']:.2f}",
        f"{result['all_cpu_seconds']:.2f}",
        f"{result['wire_bytes'] / 1e6:.0f}",
        f"{above / 1e6:.0f}",
        f"{above / model_bytes:.1f}",
        f"{result['difference']:.0e}",
    )

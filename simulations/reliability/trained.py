"""The two programs for a nursery: TensorFlow is imported once, and trains in the forks.

Only imported: the runtime, whose threads no fork would have, starts in each program.
"""

import os
from typing import Any

import aggregator.cli
import clients.cli
from fedtrain.cli.quiet import load_tensorflow
from simulations.reliability.faults import befall

load_tensorflow(start=False)

import aggregator.serve  # noqa: E402
import aggregator.trained  # noqa: E402 - after TensorFlow
import clients.training  # noqa: E402

_MAIN = {"aggregator": aggregator.cli.main, "clients": clients.cli.main}


def program(
    module: str, arguments: list[str], setting: dict[str, Any], faults: dict[str, float]
) -> None:
    """One program, from its command line to its end.

    Args:
      module: Which of the two.
      arguments: Of the command line.
      setting: ``folder``, where it runs, and ``environment``.
      faults: See ``befall``.
    """
    os.chdir(setting["folder"])
    os.environ.update(setting["environment"])
    befall(faults)
    _MAIN[module](arguments)

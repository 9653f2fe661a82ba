"""Federated, privacy-preserving training on TensorFlow.

A round is three lines: broadcast the server's state, let every client of the cohort
contribute one term of a sum, update the server from the sum. The names below are
loaded when first used, so that ``import fedtrain`` is quick and loads no TensorFlow.
"""

import importlib
import os
import sys
from typing import Any

if sys.version_info < (3, 12):
    # TensorFlow 2.14 wraps returned tuples and dicts with wrapt; its C extension cannot
    # be combined with the Protocol of typing-extensions 4.6 and later.
    os.environ.setdefault("WRAPT_DISABLE_EXTENSIONS", "1")

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "LoadedRun": "fedtrain.project.load",
    "build": "fedtrain.project.build",
    "describe_data": "fedtrain.project.data_commands",
    "evaluate_run": "fedtrain.project.evaluate_run",
    "federate": "fedtrain.project.simulate",
    "load_run": "fedtrain.project.load",
    "named_sets": "fedtrain.project.data_commands",
    "pack_data": "fedtrain.project.data_commands",
    "plan": "fedtrain.project.plan_project",
    "read_config": "fedtrain.project.read",
    "repair_ledger": "fedtrain.project.ledger_commands",
    "resume": "fedtrain.project.simulate",
    "show_ledger": "fedtrain.project.ledger_commands",
    "simulate": "fedtrain.project.simulate",
    "verify_ledger": "fedtrain.project.ledger_commands",
}

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """Loads a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedtrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_HOMES])

"""Packages that only exports need, and what to do where one is missing."""

import importlib
from typing import Any

from fedtrain.core.errors import ConfigError


def needed(module: str, *, reason: str, extra: str = "export") -> Any:
    """The module by its name.

    Args:
      module: To be imported.
      reason: What needs it.
      extra: Of fedtrain's optional dependencies, the one that it belongs to.

    Raises:
      ConfigError: If it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{reason} needs {module.split('.')[0]}, which cannot be imported "
            f'({error}). Install it: pip install "fedtrain[{extra}]" (in this '
            f"project: uv sync --extra {extra})."
        ) from error

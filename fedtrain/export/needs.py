"""Packages that only exports need, and what to do where one is missing."""

import importlib
from typing import Any

from fedtrain.core.errors import ConfigError

_INSTALL = 'pip install "fedtrain[export]" (in this project: uv sync --extra export)'


def needed(module: str, *, reason: str) -> Any:
    """The module by its name.

    Raises:
      ConfigError: If it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{reason} needs {module.split('.')[0]}, which cannot be imported "
            f"({error}). Install it: {_INSTALL}."
        ) from error

"""Checks that name the argument, the value and what is allowed.

Each takes keyword arguments, so that the message carries the caller's own name:
``validate.positive(clipping_norm=clipping_norm)``.
"""

import math
from collections.abc import Collection
from typing import Any

from fedtrain.core.errors import ConfigError


def positive(**values: float) -> None:
    """Each value is finite and above zero."""
    for name, value in values.items():
        if not (_is_number(value) and value > 0):
            raise ConfigError(f"{name} must be a number above 0, got {value!r}.")


def non_negative(**values: float) -> None:
    """Each value is finite and at least zero."""
    for name, value in values.items():
        if not (_is_number(value) and value >= 0):
            raise ConfigError(f"{name} must be a number of at least 0, got {value!r}.")


def positive_integer(**values: int) -> None:
    """Each value is a whole number of at least one."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"{name} must be a whole number of at least 1, got {value!r}."
            )


def fraction(**values: float) -> None:
    """Each value lies in (0, 1]."""
    for name, value in values.items():
        if not (_is_number(value) and 0 < value <= 1):
            raise ConfigError(f"{name} must be in (0, 1], got {value!r}.")


def probability(**values: float) -> None:
    """Each value lies strictly between 0 and 1."""
    for name, value in values.items():
        if not (_is_number(value) and 0 < value < 1):
            raise ConfigError(f"{name} must be between 0 and 1, got {value!r}.")


def one_of(allowed: Collection[str], **values: Any) -> None:
    """Each value is one of ``allowed``."""
    for name, value in values.items():
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in sorted(allowed))
            raise ConfigError(f"{name} must be one of {choices}; got {value!r}.")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )

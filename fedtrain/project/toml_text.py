"""A configuration as TOML text: what a run folder keeps of its project file."""

import json
from collections.abc import Mapping
from typing import Any

from fedtrain.project.config import ProjectConfig


def resolved_toml(config: ProjectConfig) -> str:
    """Every key that holds a value, defaults included; reads back to ``config``."""
    return toml_text(config.model_dump(exclude_none=True))


def toml_text(tables: Mapping[str, Any]) -> str:
    """``tables`` as TOML: plain keys first, then one section for each table."""
    return "\n".join(_section((), tables)).strip() + "\n"


def _section(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    lines = ["", f"[{'.'.join(map(_key, path))}]"] if path and plain else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _section((*path, key), value)
    return lines


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)

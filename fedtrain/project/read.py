"""From a project file and overrides to a checked ``ProjectConfig``."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedtrain.core.errors import ConfigError
from fedtrain.project.checks import contradictions
from fedtrain.project.config import ProjectConfig
from fedtrain.project.problems import Problem, ProjectError, closest, listed


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> ProjectConfig:
    """The project file at ``path``, with ``key=value`` overrides.

    Raises:
      ProjectError: Naming every key that is unknown, missing, of a wrong type or in
        contradiction to another one.
    """
    return checked_config(overridden(_tables(Path(path)), overrides), file=path)


def checked_config(tables: Mapping[str, Any], *, file: str | Path) -> ProjectConfig:
    """``tables`` as a configuration; ``file`` names their origin in errors."""
    try:
        config = ProjectConfig.model_validate(dict(tables))
    except ValidationError as error:
        raise ProjectError(
            file, [_problem(item) for item in error.errors(include_url=False)]
        ) from None
    problems = contradictions(config)
    if problems:
        raise ProjectError(file, problems)
    return config


def overridden(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``tables`` with each ``dotted.key=value`` applied (values as in TOML).

    What is not a TOML value is taken as text: ``-s client.optimizer=adam`` works.
    """
    result = _copied(tables)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"-s {override!r} must look like key=value, for example "
                "-s rounds.num_rounds=10."
            )
        _put(result, key.strip().split("."), _value(text.strip()))
    return result


def _tables(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"{path} is not a file. Write a project with `fedtrain new NAME`, or call "
            "`fedtrain simulate` without a file for the embedded example."
        )
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from None


def _copied(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copied(value) if isinstance(value, Mapping) else value
        for key, value in tables.items()
    }


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tables: dict[str, Any], keys: list[str], value: Any) -> None:
    *sections, last = keys
    for section in sections:
        tables = tables.setdefault(section, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"-s {'.'.join(keys)}: {section!r} has no keys below it.")
    tables[last] = value


def _problem(error: Any) -> Problem:
    location = error["loc"]
    key = ".".join(str(part) for part in location)
    if error["type"] == "missing":
        return Problem(key=key, text="missing key", allowed=_allowed(location))
    if error["type"] == "extra_forbidden":
        return _unknown_key(key, location, error["input"])
    text = "wrong type" if error["type"].endswith("_type") else "not allowed"
    hint = closest(str(error["input"]), _choices(location))
    allowed = _allowed(location) + (f".{hint}" if hint else "")
    return Problem(key=key, text=text, value=error["input"], allowed=allowed)


def _unknown_key(key: str, location: tuple[Any, ...], value: Any) -> Problem:
    section = _model_at(location[:-1])
    names = section.model_fields if section else {}
    where = f"[{'.'.join(str(p) for p in location[:-1])}]" if location[:-1] else "it"
    hint = closest(str(location[-1]), names) or _elsewhere(str(location[-1]))
    text = f"unknown key.{hint}"
    return Problem(
        key=key, text=text, value=value, allowed=f"{where} knows {listed(names)}"
    )


def _elsewhere(name: str) -> str:
    homes = [
        section
        for section in ProjectConfig.model_fields
        if (model := _model_at((section,))) and name in model.model_fields
    ]
    return f" It belongs to [{homes[0]}]." if homes else ""


def _allowed(location: tuple[Any, ...]) -> str:
    field = _field_at(location)
    if field is None:
        return ""
    return _described(field.annotation, field.metadata)


def _described(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section"
    words = {
        int: "a whole number",
        float: "a number",
        str: "text in quotes",
        bool: "true or false",
    }
    if annotation in words:
        return words[annotation] + _range(metadata)
    options = [option for option in get_args(annotation) if option is not type(None)]
    if options and isinstance(options[0], str):
        return "one of " + ", ".join(f'"{option}"' for option in options)
    if str(annotation).startswith("list["):
        return f"a list, each entry {_described(*_unwrapped(options[0]))}"
    if str(annotation).startswith("dict["):
        return "a table"
    return _described(*_unwrapped(options[0])) if options else "a value"


def _unwrapped(annotation: Any) -> tuple[Any, Sequence[Any]]:
    metadata = getattr(annotation, "__metadata__", ())
    if not metadata:
        return annotation, ()
    constraints = [c for info in metadata for c in getattr(info, "metadata", [])]
    return get_args(annotation)[0], constraints


def _range(metadata: Sequence[Any]) -> str:
    signs = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    parts = [
        f"{word} {getattr(item, sign)}"
        for item in metadata
        for sign, word in signs.items()
        if getattr(item, sign, None) is not None
    ]
    pattern = next((item.pattern for item in metadata if hasattr(item, "pattern")), "")
    if pattern:
        return " of letters, digits, '_', '.' and '-'"
    return (" " + " and ".join(parts)) if parts else ""


def _choices(location: tuple[Any, ...]) -> list[str]:
    field = _field_at(location)
    found: list[str] = []
    pending = [field.annotation] if field else []
    while pending:
        for option in get_args(pending.pop()):
            (found if isinstance(option, str) else pending).append(option)
    return found


def _field_at(location: tuple[Any, ...]) -> Any:
    names = [part for part in location if isinstance(part, str)]
    model = _model_at(tuple(names[:-1]))
    return model.model_fields.get(names[-1]) if model and names else None


def _model_at(location: tuple[Any, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = ProjectConfig
    for part in location:
        field = model.model_fields.get(str(part)) if model else None
        model = _section_of(field.annotation) if field else None
    return model


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None

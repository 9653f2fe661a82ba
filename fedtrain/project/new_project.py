"""A new project: a folder with an explained ``federation.toml`` and a ``model.py``."""

import re
from importlib import resources
from pathlib import Path

from fedtrain.core.errors import ConfigError

_FILES = ("federation.toml", "model.py")


def write_project(folder: Path) -> list[Path]:
    """Writes the files of a new project; its name is the folder's.

    Raises:
      ConfigError: If the folder has files, or its name cannot name runs. Nothing is
        written then.
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            f"NAME is {name!r}; a project's name has letters, digits, '_', '.' and '-'."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; give another NAME.")
    contents = {file: template(f"new/{file}") for file in _FILES}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in contents.items():
        (folder / file).write_text(text.replace("@NAME@", name), encoding="utf-8")
    return [folder / file for file in _FILES]


def template(path: str) -> str:
    """The text of a file that comes with fedtrain."""
    home = resources.files("fedtrain.project") / "templates"
    return home.joinpath(path).read_text(encoding="utf-8")

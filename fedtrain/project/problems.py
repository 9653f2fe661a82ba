"""What is wrong with a project file: where, what was found, and what is allowed."""

import difflib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError, DataError

MOST_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to correct.

    Attributes:
      key: Dotted, such as ``"privacy.delta"``.
      text: What is wrong, in one line.
      value: What was found; ``...`` for a key that is not there.
      allowed: What may stand there instead.
    """

    key: str
    text: str
    value: Any = ...
    allowed: str = ""

    def lines(self) -> list[str]:
        """The problem as a person reads it."""
        found = "(not given)" if self.value is ... else _shown(self.value)
        lines = [f"{self.key}: {self.text}", f"  found    {found}"]
        return [*lines, f"  allowed  {self.allowed}"] if self.allowed else lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = None if self.value is ... else _shown(self.value)
        return {
            "key": self.key,
            "problem": self.text,
            "found": found,
            "allowed": self.allowed,
        }


class ProjectError(ConfigError):
    """A project file cannot be used; lists every problem that was found in it."""

    def __init__(self, file: str | Path, problems: Sequence[Problem]) -> None:
        """Keeps ``problems`` for programs, and one screen of them for people."""
        self.file = str(file)
        self.problems = tuple(problems)
        super().__init__(_screen(self.file, self.problems))


@contextmanager
def in_file(file: str | Path | None) -> Iterator[None]:
    """Names the project file in errors about its keys; those about rows name theirs."""
    try:
        yield
    except (ProjectError, DataError):
        raise
    except ConfigError as error:
        if file is None:
            raise
        raise type(error)(f"{file}: {error}") from error


def closest(word: str, words: Collection[str]) -> str:
    """``" Did you mean 'x'?"``, or nothing where no word is close."""
    matches = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def listed(words: Collection[str]) -> str:
    """Words in order, separated by commas."""
    return ", ".join(sorted(words))


def _screen(file: str, problems: Sequence[Problem]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{file}: {count}"]
    for problem in problems[:MOST_SHOWN]:
        lines += ["", *(f"  {line}" for line in problem.lines())]
    if len(problems) > MOST_SHOWN:
        lines += ["", f"  ... and {len(problems) - MOST_SHOWN} more"]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."

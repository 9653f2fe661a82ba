"""Log lines on standard error: short ones for people, or JSON for programs.

A line holds what happened, when, and to whom; never keys, tokens, numbers of a
contribution or rows.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class LogFormat(StrEnum):
    """How log lines are written."""

    text = "text"
    json = "json"


def log_to_stderr(format: LogFormat) -> None:
    """Has this program's loggers write to standard error, in ``format`` alone."""
    handler = _ToStderr()
    handler.setFormatter(_JsonLines() if format is LogFormat.json else _ShortLines())
    for name in ("aggregator", "fedtrain"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        # People are told what changes; a program may want every event.
        logger.setLevel(logging.DEBUG if format is LogFormat.json else logging.INFO)
        logger.propagate = False


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Writes to what is standard error now: a progress bar may stand before it."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - logging never ends what it tells of
            self.handleError(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One object: time, level, what, where, and the event's own fields."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "event", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _ShortLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The time of day in UTC, and what happened."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
        line = f"{_time(record):%H:%M:%S} {level}{record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)

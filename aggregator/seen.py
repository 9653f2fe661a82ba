"""When each partner was last seen, kept across restarts; it informs, nothing more."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from aggregator.traffic import PartnerSeen
from fedtrain.core.files import write_atomically

_LOG = logging.getLogger(__name__)


def read_seen(path: Path) -> dict[str, PartnerSeen]:
    """What ``write_seen`` left; nothing where it is not there or cannot be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return {str(name): PartnerSeen(**seen) for name, seen in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _LOG.warning("%s is passed over: %s", path, error)
        return {}


def write_seen(path: Path, seen: Mapping[str, PartnerSeen]) -> None:
    """Writes ``seen``; a disk that does not take it is only noted."""
    content = {name: partner._asdict() for name, partner in sorted(seen.items())}
    try:
        write_atomically(path, json.dumps(content) + "\n", mode=0o600)
    except OSError as error:
        _LOG.warning("%s was not written: %s", path, error)

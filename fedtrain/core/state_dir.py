"""Where fedtrain keeps what must outlive a run: ledgers, noise keys, homes."""

import hashlib
import os
from pathlib import Path


def state_dir() -> Path:
    """``$FEDTRAIN_STATE_DIR``, else ``$XDG_STATE_HOME/fedtrain``, else under home.

    The last is ``~/.local/state/fedtrain``. Nothing is made.
    """
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("FEDTRAIN_STATE_DIR") or Path(base) / "fedtrain")


def file_stem(name: str) -> str:
    """A file's name for any ``name``: readable, and different for different names."""
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{readable[:60]}-{digest}"

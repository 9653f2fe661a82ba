"""What a partner brings to a run: its rows, their ledger, and TensorFlow at last.

All of it is loaded when it is first asked for, which is after the policy has agreed.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients.agent import Event, Local
from clients.home import Home
from clients.taking_part import Odometer
from clients.work import Work
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError
from fedtrain.wire.plan import Plan


def local_rows(data: str, home: Home, *, tell: Callable[[Event], None]) -> Local:
    """The rows in ``data`` and their ledger, opened when they are asked for.

    Args:
      data: A path or URL that ``fedtrain.read`` takes.
      home: Of the client.
      tell: Where events go.
    """
    if "://" not in data and not Path(data).exists():
        raise ConfigError(f"--data {data}: there is no such file.")
    return Local(
        work_of=lambda plan: training_work(plan, data, home),
        odometer_of=lambda plan: odometer(plan, data, home.client_id),
        tell=tell,
    )


def training_work(plan: Plan, data: str, home: Home) -> Work:
    """The plan's round on the rows in ``data``, by TensorFlow."""
    load_tensorflow(one_thread_per_operation=True)
    training = importlib.import_module("clients.training")
    made: Any = training.work_of(
        plan, data=data, home=home.path, client_id=home.client_id
    )
    return made


def odometer(plan: Plan, data: str, client_id: str) -> Odometer:
    """The odometer of the rows in ``data``, in the terms of ``plan``.

    The ledger is the one that simulations on the same file charge.
    """
    counting = importlib.import_module("clients.odometer")
    ledger = importlib.import_module("fedtrain.privacy.ledger")
    identity = importlib.import_module("fedtrain.project.ledger_identity")
    name = identity.file_identity(data, Path.cwd())
    path = ledger.ledger_path(dataset_name=name, is_private=True)
    terms = counting.terms_of(plan)
    made: Any = counting.Odometer(ledger.Ledger(path), client_id=client_id, terms=terms)
    return made

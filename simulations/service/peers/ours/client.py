"""A partner's agent with its own policy, audit log and answers; numpy is its work."""

import sys
from pathlib import Path
from typing import Any

from clients.agent import Agent, Local
from clients.home import Home
from clients.transport import Transport, caller_of
from fedtrain.wire.enrolment import read_invitation
from simulations.service.workload import Training, arguments


def main() -> None:
    """Takes part until the run is finished."""
    about = arguments()
    home = Path(about["folder"]) / about["client"]
    invitation = read_invitation(home / "invitation")
    own = Home(home, invitation.client_id)
    training = Training(about["position"], about["weights"], about["batches"])
    work = _Work(training)
    local = Local(
        work_of=lambda _: work,
        odometer_of=lambda _: _Odometer(),
        tell=lambda event: print(event.text, flush=True),
    )
    with own.alone(), Transport(caller_of(invitation, own)) as calls:
        Agent(calls, own, invitation, local).run()


class _Work:
    num_examples = 1000

    def __init__(self, train: Training) -> None:
        if "tensorflow" in sys.modules:
            raise RuntimeError("TensorFlow was loaded; this client must not.")
        self._train = train

    def cost(self, task: Any) -> None:
        """Nothing is spent: the plan has no privacy section."""

    def compute(self, task: Any, broadcast: Any) -> Any:
        (weights,) = broadcast
        return [weights - self._train(weights)]

    def forget(self) -> None:
        """There is no key."""


class _Odometer:
    def head(self) -> dict[str, Any]:
        return {"file": "none", "length": 0}


if __name__ == "__main__":
    main()

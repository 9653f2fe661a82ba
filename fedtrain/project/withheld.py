"""What a round's report keeps to itself where the data are private."""

from dataclasses import replace
from typing import Any

from fedtrain.project.build import Project
from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import ServerState


def withholding(project: Project, on_round: OnRound) -> OnRound:
    """``on_round``, told only of what the guarantee of ``project`` lets be seen.

    How many clients had no rows is an exact count of private data; who and how many
    took part is part of the promise where the cohort is hidden. Both become None.
    """
    withheld = withheld_fields(project)

    def told(report: RoundReport, state: ServerState) -> None:
        on_round(replace(report, **withheld), state)

    return told if withheld else on_round


def withheld_fields(project: Project) -> dict[str, Any]:
    """The fields of a ``RoundReport`` that nothing written or shown may hold."""
    if not project.is_protected:
        return {}
    hidden = ("cohort_size", "lost_clients") if project.sampler.amplifies else ()
    return dict.fromkeys(("skipped_clients", *hidden))

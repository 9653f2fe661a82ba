"""Sessions of two levels: clients in regions, and the regional aggregators above them.

A regional aggregator runs a session with its clients, and takes part with their sum in
a session of all regional aggregators. The top one sees the total, which the steps of
the model show to everybody: so a regional aggregator has its own region's sum and that
of the others together, and all of them but one have the last one's, too.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from fedtrain.core.errors import ConfigError
from fedtrain.secagg.parameters import LEAST_CLIENTS, Parameters, parameters_for


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The sessions of one round.

    Attributes:
      sessions: Of each region; clients are dealt to them in the text order of ids.
      top: Of the regional aggregators; its honest survivors need no noise.

    Guarantees:
      Every regional sum that is opened has the noise of ``num_honest_survivors`` honest
      clients, all regional sums of a round taken together too.
    """

    sessions: tuple[Parameters, ...]
    top: Parameters

    @property
    def num_clients(self) -> int:
        """Of all regions."""
        return sum(session.num_clients for session in self.sessions)

    @property
    def num_honest_survivors(self) -> int:
        """Of the region with the fewest; all clients add noise for so many."""
        return min(session.num_honest_survivors for session in self.sessions)

    def members(self, client_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """The clients of each region, by the region's name.

        Raises:
          ConfigError: If there are more or fewer of them, or one is there twice.
        """
        names = sorted(set(client_ids))
        if not len(names) == len(client_ids) == self.num_clients:
            raise ConfigError(
                f"The regions are of {self.num_clients} clients, each in one of them; "
                f"got {len(client_ids)} ids of {len(names)} clients."
            )
        of_region = {}
        for number, session in enumerate(self.sessions):
            of_region[f"region-{number:02}"] = tuple(names[: session.num_clients])
            names = names[session.num_clients :]
        return of_region


def regions_for(
    num_clients: int,
    num_regions: int,
    *,
    num_colluding: int = 1,
    threshold: int | None = None,
) -> Regions:
    """Regions whose sizes differ by one client at most.

    Args:
      num_clients: Of all regions.
      num_regions: At least 3, or a regional aggregator could take its own sum from the
        total and have the other one's.
      num_colluding: As many clients of each region may work with its aggregator, and as
        many regional aggregators with the top one.
      threshold: In each region; by default the least that is safe.

    Raises:
      ConfigError: If a level has no session; with the numbers that would have one.
    """
    _check_sizes(num_clients, num_regions, num_colluding)
    size, larger = divmod(num_clients, num_regions)
    sessions = [
        parameters_for(
            size + (number < larger), num_colluding=num_colluding, threshold=threshold
        )
        for number in range(num_regions)
    ]
    honest = min(session.num_honest_survivors for session in sessions)
    return Regions(
        sessions=tuple(replace(one, num_honest_survivors=honest) for one in sessions),
        top=parameters_for(num_regions, num_colluding=num_colluding),
    )


def _check_sizes(num_clients: int, num_regions: int, num_colluding: int) -> None:
    least = max(LEAST_CLIENTS, num_colluding + 1)
    if num_regions < least:
        raise ConfigError(
            f"num_regions is {num_regions}: the session of the regional aggregators, "
            f"of which {num_colluding} may collude, needs at least {least}. Use as "
            "many regions, or one session for all clients."
        )
    if num_clients < num_regions * least:
        most = num_clients // least
        fewer = f"at most {most} regions" if most >= least else "no regions"
        raise ConfigError(
            f"{num_clients} clients in {num_regions} regions are "
            f"{num_clients // num_regions} in one, and a region's session needs at "
            f"least {least} if {num_colluding} may collude. Use {fewer}, or enrol "
            f"{num_regions * least - num_clients} more."
        )

"""Rounds of two levels in one process: regions of clients, and their aggregators."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from fedtrain.core.errors import TooFewClientsError
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.regions import Regions
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import (
    NO_FAULTS,
    Faults,
    SecureSum,
    SimulatedNetwork,
)


class RegionsOnlyError(TooFewClientsError):
    """There is no total, but sums of regions were opened: the round is to be charged.

    Under the same noise it must not be tried again: with other survivors, sums of the
    same region would differ by single contributions.
    """


class RegionalNetwork:
    """A network of each region, and one whose clients are the regional aggregators.

    Args:
      regions: Of every round.
      client_ids: Of all clients; neighbours in their order share a region.
      vector_length: The words of one contribution.

    Attributes:
      regions: Each with its operator's key and its clients, by the region's name.
      top: Its clients are the regional aggregators, by the same names.
    """

    def __init__(
        self, regions: Regions, *, client_ids: Collection[str], vector_length: int
    ) -> None:
        named = regions.members(client_ids).items()
        self.regions = {
            name: SimulatedNetwork(
                session, client_ids=clients, vector_length=vector_length
            )
            for (name, clients), session in zip(named, regions.sessions, strict=True)
        }
        self.top = SimulatedNetwork(
            regions.top, client_ids=self.regions, vector_length=vector_length
        )

    def secure_sum(
        self,
        round_number: int,
        vectors: Mapping[str, Vector],
        faults: Faults = NO_FAULTS,
        *,
        top_faults: Faults = NO_FAULTS,
    ) -> SecureSum:
        """The sums of the regions, and then their sum.

        A region that too many clients have left has no sum: it is lost to the top, and
        who is named in its session is not among ``blames``.

        Args:
          round_number: Above that of every earlier call.
          vectors: The contribution of each client, uint32; they stay as they are.
          faults: What goes wrong in the regions.
          top_faults: What goes wrong above them; ``lost`` is by the region's name.

        Raises:
          RegionsOnlyError: If too many regions were lost, and others had shown sums.
          TooFewClientsError: If no region had a sum: nothing is known of any vector.
        """
        sums = {
            name: found
            for name, region in self.regions.items()
            if (found := _sum_of(region, round_number, vectors, faults)) is not None
        }
        absent = dict.fromkeys(self.regions.keys() - sums.keys(), Step.KEYS)
        lost = {**top_faults.lost, **absent}
        totals = {name: regional.total for name, regional in sums.items()}
        try:
            found = self.top.secure_sum(
                round_number, totals, replace(top_faults, lost=lost)
            )
        except TooFewClientsError as error:
            if not sums:
                raise
            raise RegionsOnlyError(
                f"{error} {len(sums)} of {len(self.regions)} regions have shown their "
                "sums: charge the round, and try again only with fresh noise and a "
                "charge of its own."
            ) from error
        blames = [blame for regional in sums.values() for blame in regional.blames]
        return SecureSum(
            total=found.total,
            survivors=tuple(
                n for name in found.survivors for n in sums[name].survivors
            ),
            blames=(*blames, *found.blames),
        )


def _sum_of(
    region: SimulatedNetwork,
    round_number: int,
    vectors: Mapping[str, Vector],
    faults: Faults,
) -> SecureSum | None:
    try:
        return region.secure_sum(round_number, vectors, faults)
    except TooFewClientsError:
        return None

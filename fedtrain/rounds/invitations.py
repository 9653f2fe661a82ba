"""Who is asked next, where no round waits for its cohort."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds
from fedtrain.data.cohorts import CohortSampler

Counts = npt.NDArray[np.int32]


class Invited(NamedTuple):
    """One participation of one client.

    Attributes:
      number: Counts all participations of the run, from 0.
      position: The client's, in the population.
    """

    number: int
    position: int


class Invitations:
    """The order in which clients are asked, and who must not be asked now.

    The sampler draws wave after wave. A wave's clients are asked in random order; those
    who are busy or have taken part often enough are passed over. A client is busy from
    when it is asked until the sum that holds its contribution is closed, so no sum
    holds two contributions of one client.

    Args:
      sampler: Draws a wave.
      seed: The run's.
      may_be_asked: Bool [clients]: those with rows, for example.
      max_participations: Most times one client is asked in the run; None for no bound.
      participations: int32 [clients]: how often each was asked before.
    """

    def __init__(
        self,
        sampler: CohortSampler,
        seed: seeds.HostSeed,
        *,
        may_be_asked: npt.NDArray[np.bool_],
        max_participations: int | None,
        participations: Counts,
    ) -> None:
        self.participations = participations.copy()
        self.num_asked = int(participations.sum())
        self.wave = 0
        self._sampler = sampler
        self._seed = seed
        self._may_be_asked = may_be_asked
        self._max = max_participations
        self._busy: set[int] = set()
        self._waiting: deque[int] = deque()

    def go_on_from(self, *, num_asked: int, wave: int) -> None:
        """Continues numbering where a saved run stopped; an unfinished wave is left."""
        self.num_asked = num_asked
        self.wave = wave

    def next(self) -> Invited | None:
        """The client to ask now, or None while nobody is free."""
        while True:
            while self._waiting:
                position = self._waiting.popleft()
                if self._is_free(position):
                    return self._invited(position)
            if not self._anyone_free():
                return None
            self._draw_wave()

    def free(self, positions: Any) -> None:
        """Says that these clients are no longer busy."""
        self._busy.difference_update(positions)

    def are_used_up(self) -> bool:
        """Whether nobody may be asked again, now or later."""
        return not bool(np.any(self._unspent()))

    def _invited(self, position: int) -> Invited:
        invited = Invited(self.num_asked, position)
        self._busy.add(position)
        self.participations[position] += 1
        self.num_asked += 1
        return invited

    def _draw_wave(self) -> None:
        seed = seeds.derive(self._seed, "cohort", self.wave)
        drawn = self._sampler.sample(len(self.participations), seed, self.wave)
        order = seeds.generator(seeds.derive(self._seed, "order", self.wave))
        self._waiting.extend(order.permutation(drawn).tolist())
        self.wave += 1

    def _is_free(self, position: int) -> bool:
        spent = self._max is not None and self.participations[position] >= self._max
        return bool(
            self._may_be_asked[position] and not spent and position not in self._busy
        )

    def _anyone_free(self) -> bool:
        free = self._unspent()
        free[list(self._busy)] = False
        return bool(np.any(free))

    def _unspent(self) -> npt.NDArray[np.bool_]:
        if self._max is None:
            return self._may_be_asked.copy()
        return self._may_be_asked & (self.participations < self._max)

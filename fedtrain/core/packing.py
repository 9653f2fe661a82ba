"""How an array of few distinct numbers, or mostly zeros, is written in fewer bytes.

The stage of an aggregator that makes such an array says so with a ``Packing``; the wire
writes the array accordingly, and whoever reads it has the same array to the bit.
"""

from dataclasses import dataclass
from typing import Literal

from fedtrain.core.errors import WireError


@dataclass(frozen=True)
class Packing:
    """What is known of a float array beforehand; exactly one of the two.

    Attributes:
      num_bits: Each number is a whole multiple, at most 127 (8 bits) or 7 (4 bits), of
        the last single number before the array.
      num_kept: At most so many numbers are not 0.
    """

    num_bits: Literal[4, 8] | None = None
    num_kept: int | None = None

    def __post_init__(self) -> None:
        is_grid, is_sparse = self.num_bits in (4, 8), self.num_kept is not None
        if is_grid == is_sparse or (self.num_kept or 0) < 0:
            raise WireError(
                "A packing has either num_bits, 4 or 8, or num_kept, at least 0; got "
                f"num_bits = {self.num_bits} and num_kept = {self.num_kept}."
            )

    @property
    def most(self) -> int:
        """The largest multiple that ``num_bits`` can hold, in size."""
        return 127 if self.num_bits == 8 else 7

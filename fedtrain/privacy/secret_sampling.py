"""Poisson batches that nobody else can predict: drawn from the noise key.

Amplification by sampling is proved for draws that the adversary does not see. A seed of
a simulation is known; a key from the operating system is not.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.client_work.batching import Indices, Poisson, PoissonEntities
from fedtrain.core import seeds
from fedtrain.core.keystream import KeyStream
from fedtrain.data.examples import Examples


@dataclass(frozen=True, kw_only=True)
class SecretSampling:
    """The batches of ``batching``, from a cryptographic stream.

    Attributes:
      batching: Which rows or entities, at which rate.
      key: Of 32 bytes.

    Guarantees:
      Each is taken independently, with a chance that is at most the rate and less than
      2^-52 below it.
    """

    batching: Poisson | PoissonEntities
    key: bytes = field(repr=False)

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices of each step; the same for the same key, seed and rows."""
        label = np.asarray(seed, "<i4").tobytes()
        random = _Random(KeyStream(self.key, "rows", label))
        return self.batching.drawn_by(random, examples)


class _Random:
    """What batchings use of a numpy generator."""

    def __init__(self, stream: KeyStream) -> None:
        self._stream = stream

    def random(self, shape: tuple[int, ...] | list[int]) -> npt.NDArray[np.float64]:
        """Multiples of 2^-53 in (0, 1]: below a rate no more often than they should."""
        words = self._stream.words(math.prod(shape)) >> np.uint64(11)
        return ((words + np.uint64(1)) * 2.0**-53).reshape(shape)

    def choice(self, items: Any, num: int, *, replace: bool) -> Any:
        """``num`` different ones of ``items``."""
        if replace:
            raise NotImplementedError(
                "Rows of an entity are drawn without replacement."
            )
        return items[np.argsort(self._stream.words(len(items)), kind="stable")[:num]]

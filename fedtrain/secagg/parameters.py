"""How many clients a session needs, how many may collude, how many are honest."""

from dataclasses import dataclass

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError

LEAST_CLIENTS = 3
MOST_CLIENTS = 50


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The public numbers of a session; refused unless they keep its promises.

    Attributes:
      num_clients: n, all clients of the roster, 3 to 50.
      threshold: t, how many must answer the last step; as many shares open a secret.
      num_colluding: m, the greatest number of clients that may work with the
        aggregator against the others.
      num_honest_survivors: h, the honest clients whose noise is counted on; each
        client adds 1/h of the needed variance.

    Guarantees:
      2t > n + m: no two sets of t clients have only colluders in common, so a client is
      never opened both as survivor and as lost. t > 2n/3. h <= t - m: of t survivors,
      at least h are honest.

    Source:
      Bonawitz et al. (2017), https://eprint.iacr.org/2017/281, section 6.2.
    """

    num_clients: int
    threshold: int
    num_colluding: int
    num_honest_survivors: int

    def __post_init__(self) -> None:
        _check_num_clients(self.num_clients)
        _check_whole_at_least(0, num_colluding=self.num_colluding)
        validate.positive_integer(
            threshold=self.threshold, num_honest_survivors=self.num_honest_survivors
        )
        self._check_threshold()
        self._check_honest()

    @property
    def num_tolerated_losses(self) -> int:
        """How many clients may vanish at any step without ending the session."""
        return self.num_clients - self.threshold

    def _check_threshold(self) -> None:
        least = least_threshold(self.num_clients, self.num_colluding)
        if not least <= self.threshold <= self.num_clients:
            raise ConfigError(
                f"threshold must be from {least} to {self.num_clients} for "
                f"{self.num_clients} clients of which {self.num_colluding} may "
                f"collude, got {self.threshold}: it must be above two thirds of the "
                "clients, and twice the threshold above clients and colluders together."
            )

    def _check_honest(self) -> None:
        most = self.threshold - self.num_colluding
        if self.num_honest_survivors > most:
            raise ConfigError(
                f"num_honest_survivors must be at most {most}, got "
                f"{self.num_honest_survivors}: of {self.threshold} survivors "
                f"{self.num_colluding} may collude and add no noise."
            )


def least_threshold(num_clients: int, num_colluding: int) -> int:
    """The smallest threshold allowed: above 2n/3, and above (n + m) / 2."""
    return max(2 * num_clients // 3, (num_clients + num_colluding) // 2) + 1


def parameters_for(
    num_clients: int, *, num_colluding: int = 1, threshold: int | None = None
) -> Parameters:
    """The parameters that tolerate most losses, or those of ``threshold``.

    As many honest survivors are counted on as the threshold leaves: a higher threshold
    tolerates fewer losses, and needs less noise of each client.

    Raises:
      ConfigError: If so many colluders leave no session: says how many would.
    """
    _check_num_clients(num_clients)
    _check_whole_at_least(0, num_colluding=num_colluding)
    if threshold is None:
        threshold = least_threshold(num_clients, num_colluding)
        _check_colluding(num_clients, num_colluding, threshold)
    if threshold <= num_colluding:
        raise ConfigError(
            f"threshold is {threshold} and num_colluding is {num_colluding}: of the "
            "clients that answer none need be honest. Raise the threshold, or expect "
            "fewer colluders."
        )
    return Parameters(
        num_clients=num_clients,
        threshold=threshold,
        num_colluding=num_colluding,
        num_honest_survivors=threshold - num_colluding,
    )


def _check_colluding(num_clients: int, num_colluding: int, threshold: int) -> None:
    if threshold > num_clients:
        raise ConfigError(
            f"num_colluding={num_colluding} is too many for {num_clients} clients: at "
            f"most {num_clients - 1} can be withstood, or enrol more clients."
        )


def _check_num_clients(num_clients: int) -> None:
    _check_whole_at_least(0, num_clients=num_clients)
    if num_clients < LEAST_CLIENTS:
        raise ConfigError(
            f"num_clients must be at least {LEAST_CLIENTS}, got {num_clients}: of two, "
            "each reads the other's contribution from their sum. A session needs "
            f"{LEAST_CLIENTS - num_clients} more: enrol them, or draw larger cohorts "
            "(rounds.cohort_size). Or leave secure aggregation out, with privacy.trust "
            '= "local".'
        )
    if num_clients > MOST_CLIENTS:
        raise ConfigError(
            f"num_clients must be at most {MOST_CLIENTS}, got {num_clients}. Where all "
            "clients take part use rounds.num_regions, or more of them; else "
            "a smaller cohort, or fewer partners."
        )


def _check_whole_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"{name} must be a whole number of at least {least}, got {value!r}."
            )

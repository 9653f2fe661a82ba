"""The round that a partner runs, from the round that was simulated."""

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.noise_source import ReleasedNoise
from fedtrain.rounds.round import Round


def released(round_: Round, noise: ReleasedNoise) -> Round:
    """``round_`` with the noise of its clients from a source for release.

    Args:
      round_: Of trust local, as it was simulated; the same weights, contributions and
        events, other noise and other batches.
      noise: A partner's own; ``NOISE_OF_PARTNERS`` where the round is only described,
        as the aggregator's privacy report does.

    Raises:
      PrivacyError: The clients add no noise in this round, or have none to replace.
    """
    work = round_.client_work
    if work.released is None:
        trusts = ", ".join(sorted({m.trust for m in round_.mechanisms})) or "none"
        raise PrivacyError(
            f"The clients of round {round_.name!r} have no noise to release (trust: "
            f"{trusts}). Use dp_sgd(...) without a wrapper, for trust = 'local'."
        )
    own = work.released(noise)
    return round_._replace(client_work=own, mechanisms=own.mechanisms)

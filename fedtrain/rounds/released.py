"""The round that a partner runs, from the round that was simulated."""

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.noise_source import ReleasedNoise
from fedtrain.rounds.round import Round


def released(round_: Round, noise: ReleasedNoise) -> Round:
    """``round_`` with its noise from a source for release.

    Args:
      round_: As it was simulated; the same contributions and events, other noise and
        other batches.
      noise: A partner's own (trust local or distributed) or the server's (trust
        central); ``NOISE_OF_PARTNERS`` where the round is only described, as the
        aggregator's privacy report does.

    Raises:
      PrivacyError: The round adds no noise, or none that can be replaced.
    """
    if round_.released is None:
        trusts = ", ".join(sorted({m.trust for m in round_.mechanisms})) or "none"
        raise PrivacyError(
            f"Round {round_.name!r} has no noise that can be released (trust: "
            f"{trusts}). Use dp_sgd(...) without a wrapper for trust = 'local', or "
            "fixed_point_sum(...) for whole numbers on the sum."
        )
    return round_.released(noise)._replace(name=round_.name)

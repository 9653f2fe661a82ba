"""The aggregator's noise key, for runs in which it adds the noise (trust central)."""

from pathlib import Path

from fedtrain.privacy.noise_key import forget_noise_key, noise_key, noise_key_path
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, ReleasedNoise
from fedtrain.wire.plan import Plan


def own_noise(plan: Plan) -> ReleasedNoise:
    """What the aggregator draws from; with other trust it only describes noise.

    The key is on disk before the first charge, so a sum that is decoded again after a
    crash meets the same noise.
    """
    if not _adds_noise(plan):
        return NOISE_OF_PARTNERS
    return ReleasedNoise(noise_key(_path(plan)))


def forget_own_noise(plan: Plan) -> None:
    """Deletes the key when the run has ended."""
    if _adds_noise(plan):
        forget_noise_key(_path(plan))


def _adds_noise(plan: Plan) -> bool:
    repeats = plan.simulation_seed is not None
    return plan.privacy is not None and plan.privacy.trust == "central" and not repeats


def _path(plan: Plan) -> Path:
    return noise_key_path(f"aggregator-{plan.sha256}")

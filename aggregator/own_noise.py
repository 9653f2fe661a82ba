"""The aggregator's noise key, for runs in which it adds the noise (trust central).

A run has one key from its first round to its last. With another one a round that was
charged could be decoded again with fresh noise, so a key that is lost is never
replaced: the run stops. No TensorFlow is needed.
"""

from pathlib import Path

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.noise_key import (
    forget_noise_key,
    key_fingerprint,
    noise_key,
    noise_key_path,
)
from fedtrain.project.run_folder import NOISE_KEY, RunFolder
from fedtrain.wire.plan import Plan


def own_key(plan: Plan, folder: RunFolder, *, is_new: bool) -> bytes:
    """What the aggregator draws from; empty with other trust.

    The key is on disk, and its fingerprint in the run's folder, before this returns: a
    sum that is decoded again after a crash meets the same noise.

    Args:
      plan: That partners approved.
      folder: Of the run.
      is_new: Whether the run begins; else its key has to be there.

    Raises:
      PrivacyError: If the run's key is gone, or another one is in its place.
    """
    if not _adds_noise(plan):
        return b""
    path = _path(folder)
    if not is_new and not path.exists():
        raise _lost(path, "is gone")
    key = noise_key(path)
    name, info = key_fingerprint(key), folder.read_json(folder.info)
    if is_new:
        folder.write_json(folder.info, info | {NOISE_KEY: name})
    elif info.get(NOISE_KEY) != name:
        raise _lost(path, "is not the one that the run began with")
    return key


def forget_own_key(plan: Plan, folder: RunFolder) -> None:
    """Deletes the key when the run has ended."""
    if _adds_noise(plan):
        forget_noise_key(_path(folder))


def _adds_noise(plan: Plan) -> bool:
    repeats = plan.simulation_seed is not None
    return plan.privacy is not None and plan.privacy.trust == "central" and not repeats


def _path(folder: RunFolder) -> Path:
    return noise_key_path(f"aggregator-{folder.path.name}")


def _lost(path: Path, what: str) -> PrivacyError:
    return PrivacyError(
        f"The key of this run's noise, {path}, {what}. With another one a round that "
        "was charged could be decoded again with fresh noise. Bring it back from a "
        "backup of FEDTRAIN_STATE_DIR, or end the run with its last weights: "
        "`fedtrain-aggregator runs stop`."
    )

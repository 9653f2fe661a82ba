"""The other partners' identity keys, pinned: under secure aggregation they are checked.

Whoever chooses all keys of a session could be all the other partners. So a key counts
here only if a person of this partner has seen it: ``review`` shows them as words to
compare by phone, ``approve`` writes them down, and nothing that comes over the wire
changes them.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from fedtrain.core.errors import ConfigError, PolicyError
from fedtrain.core.files import write_atomically
from fedtrain.project.agreed_session import partners_of
from fedtrain.project.toml_text import toml_text
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.identity import fingerprint, public_key_from
from fedtrain.wire.plan import Plan

_HEAD = """\
# Identity keys of the partners, as they were when you approved a plan with secure
# aggregation. Sums are opened with these keys only. Take a line out only after the
# partner has told you, by voice, that its key is a new one.
"""


def pin(path: Path, invitation: Invitation) -> None:
    """Adds the keys in ``invitation`` to the file at ``path``.

    Keys of others than the plan's partners are left out: nobody has agreed to them.

    Args:
      path: Of the file; it need not exist.
      invitation: Whose keys a person has seen; without secure aggregation it has none.

    Raises:
      PolicyError: If a partner has another key than the one that is pinned.
    """
    invited = keys_of_partners(
        invitation.roster, plan=invitation.parsed_plan(), client_id=invitation.client_id
    )
    if not invited:
        return
    known = pinned(path)
    changed = [
        f"{name} has the key {words_of(key)}, and pinned is {words_of(known[name])}"
        for name, key in invited.items()
        if known.get(name, key) != key
    ]
    if changed:
        raise PolicyError(
            f"The invitation has other keys than {path}: {'; '.join(changed)}. Nothing "
            "was approved. Ask these partners by phone; if a key is new, take its line "
            "out of the file and approve again."
        )
    text = toml_text({**known, **invited})
    write_atomically(path, f"{_HEAD}\n{text}", mode=0o600)


def check_names_all(invitation: Invitation) -> None:
    """Refuses an invitation that was made before all partners were admitted.

    Raises:
      PolicyError: Naming who is missing in it.
    """
    plan = invitation.parsed_plan()
    if not plan.secure_aggregation:
        return
    partners = partners_of(plan, invitation.client_id)
    missing = sorted(partners - set(invitation.roster))
    if missing:
        raise PolicyError(
            f"The invitation has no key of {', '.join(missing)}: they were not "
            "admitted yet when it was made, and without their keys nothing can be "
            "masked. Ask the operator for an invitation once all are admitted."
        )


def pinned(path: Path) -> dict[str, str]:
    """The pinned keys by partner, as text; none where there is no file yet.

    Raises:
      ConfigError: If the file is no such list.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for key in found.values():
        public_key_from(str(key))
    return {name: str(key) for name, key in found.items()}


def keys_of_partners(
    keys: Mapping[str, str], *, plan: Plan, client_id: str
) -> dict[str, str]:
    """Those of ``keys`` that the plan has in one session with ``client_id``.

    Others may be pinned too, for other plans. In a session of this one they would be
    clients that nobody has agreed to, and could be the operator's own.
    """
    partners = partners_of(plan, client_id)
    return {name: key for name, key in keys.items() if name in partners}


def raw_keys(keys: Mapping[str, str]) -> dict[str, bytes]:
    """``keys`` as 32 raw bytes each."""
    return {name: public_key_from(key).public_bytes_raw() for name, key in keys.items()}


def words_of(key: str) -> str:
    """A key as words to compare by phone."""
    return fingerprint(public_key_from(key))

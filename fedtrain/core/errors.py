"""Errors that a user can act on, and the exit code each one gives the command line."""

EXIT_CODES = {
    0: "success",
    1: "an error inside fedtrain",
    2: "unusable input: configuration, data or arguments",
    3: "the privacy budget does not allow the next round",
    4: "training diverged (non-finite weights)",
    5: "the privacy ledger or an audit log is damaged or shorter than it was",
    6: "no usable checkpoint",
    7: "another worker of a distributed run was lost; the run can be resumed",
    8: "no variant of a requested export target is within its bounds",
    9: "a release does not match its record or its signature",
    10: "a release is intact, but no privacy guarantee stands behind it",
    11: "an identity, a certificate, an invitation or a signature is refused",
    12: "what the other side sent does not follow the protocol",
    13: "the journal of the service is damaged, in use, or cannot be written",
    14: "too few clients answered; the run can be resumed",
    15: "the partner's policy does not allow the plan; nothing left",
    16: "the aggregator has stopped the run, or does not know this client's plan",
    17: "a release is intact, but raw private rows calibrated it: its promise is void",
    130: "interrupted; the run can be resumed",
}


class FedtrainError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is the command line's."""

    exit_code = 1


class ConfigError(FedtrainError, ValueError):
    """An argument or a key of a project file is missing, unknown or out of range."""

    exit_code = 2


class DataError(ConfigError):
    """Data that cannot be used as it is: names client, row, column and value."""


class MissingValueError(DataError):
    """A value is missing that no schema allows to be.

    Args:
      found: Where, and that it is missing.
      way_out: What whoever reads it can do.
    """

    def __init__(self, found: str, way_out: str) -> None:
        """Both are the message."""
        super().__init__(f"{found} {way_out}")
        self.found = found


class PrivacyError(ConfigError):
    """A composition that would break a privacy promise: refused, with the way out."""


class BudgetExhaustedError(FedtrainError):
    """The next charge would pass the privacy budget; nothing was used or released."""

    exit_code = 3


class DivergedError(FedtrainError):
    """The weights are no longer finite."""

    exit_code = 4


class LedgerError(FedtrainError):
    """A privacy ledger or audit log is damaged, locked, or shorter than remembered."""

    exit_code = 5


class CheckpointError(FedtrainError):
    """No checkpoint that fits this run can be read."""

    exit_code = 6


class WorkerLostError(FedtrainError):
    """Another worker of a distributed run has ended or does not answer."""

    exit_code = 7


class RefusedExportError(FedtrainError):
    """A requested target has no variant that keeps the bounds; nothing was released."""

    exit_code = 8


class TamperedReleaseError(FedtrainError):
    """A file, the record or the signature of a release is not what was released."""

    exit_code = 9


class IdentityError(FedtrainError):
    """A key, certificate, invitation or signature is missing, damaged or refused."""

    exit_code = 11


class WireError(FedtrainError, ValueError):
    """Bytes from the other side are not what the protocol and the plan declare."""

    exit_code = 12


class JournalError(FedtrainError):
    """The journal of the service is damaged, in use by another, or not writable."""

    exit_code = 13


class TooFewClientsError(FedtrainError):
    """A round has too few answers after all its deadlines; it can be resumed."""

    exit_code = 14


class PolicyError(FedtrainError):
    """The partner's policy does not allow a plan: names each clause that forbids it."""

    exit_code = 15


class StoppedError(FedtrainError):
    """The aggregator has stopped the run, or asks for another plan or version."""

    exit_code = 16

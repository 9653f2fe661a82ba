"""What ``train_async`` runs, and what it refuses."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedtrain.core import seeds, validate
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.checks import Evaluate, check_privacy
from fedtrain.rounds.executor import Executor
from fedtrain.rounds.report import OnRound
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import refuse_order_statistics
from fedtrain.rounds.staleness import StalenessDiscount, polynomial_discount

# Each bounds a contribution by a constant and adds fresh noise to each sum. A norm that
# adapts would meet the noise of another norm; correlated noise needs numbered rounds.
_SOUND_MECHANISMS = ("gaussian", "dp_sgd", "gaussian_on_gradient_sum")


@dataclass(frozen=True, kw_only=True)
class AsyncRun:
    """What ``train_async`` runs. A round is one update of the server.

    Attributes:
      round_: What a client computes and how the server takes a sum in.
      dataset: The population.
      sampler: Draws who is asked, wave after wave; see ``Invitations``.
      executor: Who computes contributions.
      num_rounds: Server updates in all, those before a resume included.
      buffer_goal: Contributions in one update (FedBuff's K).
      concurrency: Clients that are at work at the same time.
      seed: The run's seed.
      staleness_discount: Factor of a contribution by its staleness, in [0, 1].
      max_staleness: A client that is further behind is given up; None for no bound.
      max_participations: Most times one client is asked; required under DP.
      privacy: Charges the ledger; required where the round has a privacy mechanism.
      evaluate: Scores a state, for example on public test data.
      evaluate_every: Updates between two evaluations; the last has one too.
      checkpoints: Where to save, and to resume from.
      on_round: Called with each update's report and state, before it is saved.
    """

    round_: Round
    dataset: FederatedDataset
    sampler: CohortSampler
    executor: Executor
    num_rounds: int
    buffer_goal: int
    concurrency: int
    seed: seeds.HostSeed
    staleness_discount: StalenessDiscount = field(default_factory=polynomial_discount)
    max_staleness: int | None = None
    max_participations: int | None = None
    privacy: RunPrivacy | None = None
    evaluate: Evaluate | None = None
    evaluate_every: int = 1
    checkpoints: CheckpointStore | None = None
    on_round: Sequence[OnRound] = field(default=())

    def __post_init__(self) -> None:
        """The parts fit together, and what is promised holds without cohorts."""
        _check_ranges(self)
        refuse_order_statistics(self.round_)
        _refuse_secure_aggregation(self.round_.mechanisms)
        _refuse_amplification(self)
        check_privacy(self)
        if self.privacy is not None:
            _check_bounds(self, self.privacy)
            _refuse_unsound(self.round_.mechanisms, self.privacy)


def _check_ranges(run: AsyncRun) -> None:
    validate.positive_integer(
        num_rounds=run.num_rounds,
        buffer_goal=run.buffer_goal,
        concurrency=run.concurrency,
        evaluate_every=run.evaluate_every,
        max_participations=run.max_participations or 1,
    )
    validate.non_negative(max_staleness=run.max_staleness or 0)
    if run.buffer_goal > run.dataset.num_clients:
        raise ConfigError(
            f"buffer_goal is {run.buffer_goal}, but {run.dataset.name} has only "
            f"{run.dataset.num_clients} clients, and each is in a sum at most once. "
            f"Use at most {run.dataset.num_clients}."
        )
    most = run.dataset.num_clients * (run.max_participations or run.num_rounds)
    if most < run.num_rounds * run.buffer_goal:
        raise ConfigError(
            f"num_rounds = {run.num_rounds} updates of buffer_goal = "
            f"{run.buffer_goal} need {run.num_rounds * run.buffer_goal} contributions, "
            f"but {run.dataset.num_clients} clients with max_participations = "
            f"{run.max_participations} give {most}. Lower one, or raise "
            "max_participations."
        )


def _refuse_secure_aggregation(mechanisms: tuple[Mechanism, ...]) -> None:
    for mechanism in mechanisms:
        if mechanism.trust == "distributed":
            raise PrivacyError(
                f"The {mechanism.name} mechanism relies on secure aggregation, whose "
                "masks cancel within one cohort that is fixed beforehand; here nobody "
                "knows beforehand whose contributions meet in a sum. Use train(...)."
            )


def _refuse_amplification(run: AsyncRun) -> None:
    if run.sampler.amplifies:
        raise PrivacyError(
            f"The {run.sampler.name} sampler claims amplification, which is proved for "
            "rounds whose cohort is an independent, hidden sample. Here who is in a "
            "sum depends on who was fast. Use uniform_sampler(...), or train(...)."
        )


def _check_bounds(run: AsyncRun, privacy: RunPrivacy) -> None:
    if run.max_participations is None:
        raise PrivacyError(
            "max_participations is None: under differential privacy the number of "
            "times that one client is asked must be bounded. Give the plan's."
        )
    if run.max_participations > privacy.plan.participations:
        raise PrivacyError(
            f"max_participations is {run.max_participations}, but the privacy plan was "
            f"made for {privacy.plan.participations}. Plan for as many."
        )
    relation = privacy.plan.neighboring_relation
    if privacy.plan.unit == "client" and relation == "add_or_remove_one":
        raise PrivacyError(
            "neighboring_relation is 'add_or_remove_one', but sums here hold a fixed "
            "number of contributions: without a client another takes its place. Use "
            "'replace_special' (its contribution is replaced by zero; who the clients "
            "are is public), or 'replace_one'."
        )


def _refuse_unsound(mechanisms: tuple[Mechanism, ...], privacy: RunPrivacy) -> None:
    for mechanism in mechanisms:
        if mechanism.name not in _SOUND_MECHANISMS:
            raise PrivacyError(
                f"The {mechanism.name} mechanism ties its bound or its noise to "
                "numbered rounds, and a late contribution belongs to an earlier one. "
                "Use gaussian_mechanism(...) or dp_sgd(...), or train(...)."
            )
    plan = privacy.plan
    shared = plan.unit == "entity" and plan.max_clients_per_entity > 1
    if shared and plan.trust == "central":
        raise PrivacyError(
            f"max_clients_per_entity is {plan.max_clients_per_entity} with trust = "
            "'central': the mixture that is charged speaks of one sum, but an entity's "
            "clients may be in different ones. Use trust = 'local'."
        )

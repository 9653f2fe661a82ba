"""The keys of a project file (``federation.toml``), section by section.

Strict: an unknown key, a missing one or a wrong type is an error, never a default. The
choices that carry a privacy promise have no defaults at all.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
ClientId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]+:[0-9]{1,5}$")]
OptimizerName = Literal["sgd", "adam", "yogi", "adagrad"]
EdgeVariant = Literal[
    "float32",
    "float16",
    "dynamic_int8",
    "int8",
    "int16x8",
    "compressed_dynamic_int8",
    "compressed_int8",
]


class Section(BaseModel):
    """A section of the file: immutable, and nothing in it is guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScheduleSection(Section):
    """How a learning rate changes over steps (client) or rounds (server)."""

    kind: Literal["constant", "exponential", "cosine"] = "constant"
    decay: Fraction | None = None
    every: Count = 1
    num_steps: Count | None = None
    final: NonNegative = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class DataSection(Section):
    """Where the rows come from, and which client holds which."""

    name: Text | None = None
    path: Text | None = None
    label: Text | None = None
    client: Text | None = None
    features: list[Text] | None = None
    entity: Text | None = None
    weight: Text | None = None
    schema_path: Text | None = None
    test_path: Text | None = None
    test_fraction: Probability | None = None
    sensitivity: Literal["public", "private"] | None = None
    test_sensitivity: Literal["public", "private"] | None = None
    partition: (
        Literal["iid", "dirichlet", "labels_per_client", "quantity_skew", "by_column"]
        | None
    ) = None
    num_clients: Count | None = None
    concentration: Positive | None = None
    num_labels: Count | None = None
    column: Text | Annotated[int, Field(ge=0)] | None = None
    num_bands: Count | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class ModelSection(Section):
    """What is trained: a ready-made model by name, or a function in a file."""

    name: Literal["dense_classifier"] | None = None
    hidden: list[Count] = Field(default_factory=list)
    weight_penalty: NonNegative = 0.0
    path: Text | None = None
    function: Text = "model"


class RoundsSection(Section):
    """The algorithm, how many rounds, and who takes part in each.

    With ``secure_aggregation`` nobody sees a contribution: ``threshold`` of a round's
    clients (by default as few as are safe) have to answer to the end, and at most
    ``num_colluding`` of them are thought to work with the aggregator. In
    ``num_regions`` each region has an aggregator of its own, and both numbers hold in
    each; the regional sums are added up by secure aggregation, too. Clients come into
    regions by the order of their ids as text: those that belong together need ids that
    come together.
    """

    algorithm: Literal["fed_avg", "fed_prox", "fed_sgd"] = "fed_avg"
    num_rounds: Count
    sampler: Literal["full", "uniform", "poisson", "cyclic"] = "full"
    cohort_size: Count | None = None
    sampling_rate: Fraction | None = None
    min_separation: Count | None = None
    weighted: bool | None = None
    update_compression: Literal["int8", "int4", "top_k"] | None = None
    kept_fraction: Fraction | None = None
    proximal_strength: Positive | None = None
    secure_aggregation: bool = False
    threshold: Count | None = None
    num_colluding: Annotated[int, Field(ge=0)] = 1
    num_regions: Annotated[int, Field(ge=3, le=50)] | None = None


class OptimizerSection(Section):
    """An optimizer, the same on client and server."""

    optimizer: OptimizerName = "sgd"
    learning_rate: Positive | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0
    beta_1: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta_2: Probability | None = None
    epsilon: Positive | None = None
    schedule: ScheduleSection = ScheduleSection()


class ClientSection(OptimizerSection):
    """What each client does with its own rows in one round."""

    batch_size: Count | None = None
    local_epochs: Count | None = None
    local_steps: Count | None = None
    sampling_rate: Fraction | None = None
    expected_batch_size: Positive | None = None
    max_rows: Count | None = None


class ServerSection(OptimizerSection):
    """What the server does with the aggregate."""

    learning_rate: Positive | None = 1.0


class PrivacySection(Section):
    """The promise. The first five keys have no defaults."""

    unit: Literal["example", "entity", "client"]
    trust: Literal["local", "distributed", "central"]
    neighboring_relation: Literal["add_or_remove_one", "replace_one", "replace_special"]
    delta: Probability
    sampling: Literal["poisson", "full", "uniform", "cyclic"]
    clipping_norm: Positive
    mechanism: Literal[
        "gaussian", "discrete_gaussian", "adaptive_gaussian", "tree", "banded"
    ] = "gaussian"
    grid_bits: Annotated[int, Field(ge=1, le=30)] = 16
    noise_multiplier: Positive | None = None
    target_epsilon: Positive | None = None
    max_weight: Positive | None = None
    max_rows_per_entity: Count | None = None
    max_clients_per_entity: Count = 1
    unclipped_quantile: Probability = 0.5
    metrics_share: Fraction | None = None
    num_bands: Count | None = None
    cohort_is_hidden: bool = False
    accept_weak_privacy: bool = False


class RuntimeSection(Section):
    """Who carries the rounds out."""

    kind: Literal["compiled", "eager", "tff"] = "compiled"
    num_workers: Count | None = None
    strategy: Literal["fastest", "graph", "xla", "stacked", "stacked_xla"] = "fastest"
    chunk_size: Count | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class EvaluationSection(Section):
    """When the model is scored, on which rows, and what the run is compared with.

    ``held_out_fraction`` is what each client keeps back of its own rows to score the
    global model on. Of private rows under ``[privacy]`` noised counts leave: their cost
    is ``epsilon`` for all evaluations together, or ``noise_multiplier`` for each.
    """

    every: Count = 1
    held_out_fraction: Probability | None = None
    epsilon: Positive | None = None
    noise_multiplier: Positive | None = None
    baselines: bool | None = None
    baseline_learning_rate: Positive | None = None


class StopSection(Section):
    """When training ends before its last round, and which weights the run leaves.

    ``metric`` is a name of the rounds' reports, such as ``"test_accuracy"``.
    """

    metric: Text
    patience: Count | None = None
    min_delta: NonNegative = 0.0
    goal: Literal["max", "min"] | None = None
    keep: Literal["best", "last"] = "best"


class TrackingSection(Section):
    """What a run leaves behind."""

    runs_dir: Text = "runs"
    checkpoint_every: Count = 1
    tensorboard: bool = True
    histograms: bool = False
    profile_rounds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    html_report: bool = True


class CompressionSection(Section):
    """What the weights have to satisfy to become small, and rounds to learn that in.

    The rounds come after those of ``[rounds]``, and cost privacy like them.
    """

    fine_tuning_rounds: Annotated[int, Field(ge=0)]
    prune_sparsity: Probability | None = None
    prune_scope: Literal["layer", "global"] = "layer"
    prune_pattern: Literal["any", "2_of_4"] = "any"
    prune_steps: Count = 1
    num_clusters: Annotated[int, Field(ge=2, le=256)] | None = None
    quantize: bool = True


class ExportSection(Section):
    """What ``fedtrain export`` makes of a finished run, and what that may cost.

    Drops are in points: hundredths of the accuracy; errors of a model that predicts a
    number may rise by ``max_error_increase`` per cent.
    """

    to: list[Literal["server", "edge", "web", "onnx"]] = Field(
        default=["server", "edge"]
    )
    server_variants: list[Literal["float32", "bfloat16"]] = Field(
        default=["float32"], min_length=1
    )
    edge_variants: list[EdgeVariant] | None = Field(default=None, min_length=1)
    web_variants: list[Literal["float32", "float16", "uint8"]] = Field(
        default=["float32", "float16", "uint8"], min_length=1
    )
    max_accuracy_drop: NonNegative = 0.5
    max_slice_drop: NonNegative = 2.0
    min_slice_rows: Count = 200
    max_error_increase: NonNegative = 1.0
    slice_columns: list[Text] = Field(default_factory=list)
    public_rows: Text | None = None
    evaluation_epsilon: Positive | None = None
    calibration: Literal["public", "schema", "private_query", "raw_private"] | None = (
        None
    )
    calibration_epsilon: Positive | None = None
    rows_per_unit: Count = 10
    error_bound: Positive | None = None
    accept_no_privacy: bool = False
    accept_raw_calibration: bool = False


class ServiceSection(Section):
    """The federation that is served: who takes part, where, and how long is waited.

    What it says of rows is public and holds whatever the partners' rows are. An attempt
    at a round that is repeated spends epsilon again; the plan has room for
    ``further_attempts`` of them, by default for one in ten rounds.
    """

    clients: Annotated[list[ClientId], Field(min_length=1)]
    rows_per_client: Count
    address: Address = "127.0.0.1:8470"
    public_address: Address | None = None
    hosts: list[Text] = Field(default=["localhost"])
    page: Address = "127.0.0.1:8471"
    home: Text = "aggregator-home"
    database: Text | None = None
    report_goal: Count | None = None
    least_reports: Count | None = None
    deadline_s: Positive = 600.0
    max_deadlines: Count = 12
    further_attempts: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    repeats_simulation: bool = False


class ProjectConfig(Section):
    """A whole project file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0)]
    data: DataSection
    model: ModelSection
    rounds: RoundsSection
    client: ClientSection
    server: ServerSection = ServerSection()
    privacy: PrivacySection | None = None
    runtime: RuntimeSection = RuntimeSection()
    evaluation: EvaluationSection = EvaluationSection()
    stop: StopSection | None = None
    tracking: TrackingSection = TrackingSection()
    compression: CompressionSection | None = None
    export: ExportSection = ExportSection()
    service: ServiceSection | None = None

    @property
    def all_rounds(self) -> int:
        """Rounds that use data: those of ``[rounds]``, then those of fine-tuning."""
        tuning = self.compression.fine_tuning_rounds if self.compression else 0
        return self.rounds.num_rounds + tuning

    @property
    def further_attempts(self) -> int:
        """Repeated attempts at rounds that the privacy plan counts besides them."""
        if self.service is None or self.service.repeats_simulation:
            return 0
        given = self.service.further_attempts
        return -(-self.rounds.num_rounds // 10) if given is None else given

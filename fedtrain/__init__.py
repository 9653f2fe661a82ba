"""Federated, privacy-preserving training on TensorFlow.

A round is three lines: broadcast the server's state, let every client of the cohort
contribute one term of a sum, update the server from the sum. The names below are
loaded when first used, so that ``import fedtrain`` is quick and loads no TensorFlow.
"""

import importlib
import os
import sys
from typing import Any

if sys.version_info < (3, 12):
    # TensorFlow 2.14 wraps returned tuples and dicts with wrapt; its C extension cannot
    # be combined with the Protocol of typing-extensions 4.6 and later.
    os.environ.setdefault("WRAPT_DISABLE_EXTENSIONS", "1")

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "Aggregator": "fedtrain.aggregation.aggregator",
    "Broadcast": "fedtrain.client_work.client_work",
    "CheckpointStore": "fedtrain.rounds.checkpoint",
    "ClientWork": "fedtrain.client_work.client_work",
    "CompiledRuntime": "fedtrain.runtimes.compiled",
    "Contribution": "fedtrain.client_work.client_work",
    "EagerRuntime": "fedtrain.runtimes.eager",
    "Epochs": "fedtrain.client_work.batching",
    "Evaluator": "fedtrain.rounds.evaluation",
    "Examples": "fedtrain.data.examples",
    "FederatedDataset": "fedtrain.data.dataset",
    "Ledger": "fedtrain.privacy.ledger",
    "LoadedRun": "fedtrain.project.load",
    "Model": "fedtrain.models.model",
    "ModelWeights": "fedtrain.models.model",
    "Optimizer": "fedtrain.optimizers.optimizer",
    "Poisson": "fedtrain.client_work.batching",
    "PrivacyPlan": "fedtrain.privacy.plan",
    "Round": "fedtrain.rounds.round",
    "RunPrivacy": "fedtrain.privacy.run_privacy",
    "Runtime": "fedtrain.rounds.runtime",
    "ServerState": "fedtrain.rounds.round",
    "Steps": "fedtrain.client_work.batching",
    "TrainingRun": "fedtrain.rounds.train",
    "adagrad": "fedtrain.optimizers.adaptive",
    "adam": "fedtrain.optimizers.adaptive",
    "adaptive_gaussian_mechanism": "fedtrain.privacy.adaptive_clipping",
    "banded_mechanism": "fedtrain.privacy.correlated_noise",
    "build": "fedtrain.project.build",
    "chain": "fedtrain.aggregation.aggregator",
    "compare_releases": "fedtrain.export.release",
    "cyclic_sampler": "fedtrain.data.cohorts",
    "dense_classifier": "fedtrain.models.dense",
    "describe_data": "fedtrain.project.data_commands",
    "dp_fed_sgd": "fedtrain.rounds.dp_fed_sgd",
    "dp_sgd": "fedtrain.privacy.dp_sgd",
    "evaluate_run": "fedtrain.project.evaluate_run",
    "export_run": "fedtrain.export.export_run",
    "fed_avg": "fedtrain.rounds.fed_avg",
    "fed_prox": "fedtrain.rounds.fed_avg",
    "fed_sgd": "fedtrain.rounds.fed_avg",
    "federate": "fedtrain.project.simulate",
    "from_dataframe": "fedtrain.data.readers.read",
    "full_participation": "fedtrain.data.cohorts",
    "gaussian_mechanism": "fedtrain.privacy.gaussian",
    "keras_model": "fedtrain.models.keras",
    "label_version": "fedtrain.export.publish",
    "load_run": "fedtrain.project.load",
    "local_sgd": "fedtrain.client_work.local_sgd",
    "mean_over_expected_cohort": "fedtrain.aggregation.mean",
    "named_sets": "fedtrain.project.data_commands",
    "pack_data": "fedtrain.project.data_commands",
    "plan": "fedtrain.project.plan_project",
    "poisson_sampler": "fedtrain.data.cohorts",
    "publish_release": "fedtrain.export.publish",
    "read": "fedtrain.data.readers.read",
    "read_config": "fedtrain.project.read",
    "repair_ledger": "fedtrain.project.ledger_commands",
    "resume": "fedtrain.project.simulate",
    "sgd": "fedtrain.optimizers.sgd",
    "show_ledger": "fedtrain.project.ledger_commands",
    "simulate": "fedtrain.project.simulate",
    "train": "fedtrain.rounds.train",
    "tree_mechanism": "fedtrain.privacy.correlated_noise",
    "uniform_sampler": "fedtrain.data.cohorts",
    "unweighted_mean": "fedtrain.aggregation.mean",
    "verify_ledger": "fedtrain.project.ledger_commands",
    "verify_release": "fedtrain.export.release",
    "weighted_mean": "fedtrain.aggregation.mean",
    "yogi": "fedtrain.optimizers.adaptive",
}

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """Loads a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedtrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_HOMES])

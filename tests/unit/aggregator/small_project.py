"""The smallest project that is served: two features, one layer, two steps a round."""

import pandas as pd

from aggregator.planning import plan_for
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.project.deployed import deployed
from fedtrain.project.read import checked_config

POISSON = {
    "learning_rate": 0.1,
    "sampling_rate": 0.5,
    "local_steps": 2,
    "expected_batch_size": 4.0,
}
PLAIN = {"learning_rate": 0.1, "batch_size": 4, "local_epochs": 1}
PRIVACY = {
    "unit": "example",
    "trust": "local",
    "neighboring_relation": "add_or_remove_one",
    "delta": 1e-3,
    "sampling": "poisson",
    "clipping_norm": 1.0,
    "noise_multiplier": 2.0,
}


FRAME = pd.DataFrame(
    {
        "x": [0.1, -0.4, 0.3, 0.9, -0.7, 0.2, -0.1, 0.5],
        "y": [1.0, 0.2, -0.3, 0.4, 0.8, -0.9, 0.6, -0.5],
        "label": [0, 1, 0, 1, 0, 1, 0, 1],
    }
)
SCHEMA = infer_schema(table_of(FRAME), label="label").with_source("declared")


def small_project(
    folder, *, privacy=PRIVACY, data=None, schema=SCHEMA, evaluation=None, **service
):
    """The aggregator's side of it."""
    tables = {
        "name": "small",
        "seed": 3,
        "data": {"path": "rows", "schema_path": "schema.json", **(data or {})},
        "model": {"name": "dense_classifier"},
        "rounds": {"num_rounds": 3},
        "client": PLAIN if privacy is None else POISSON,
        "service": {"clients": ["bank-a"], "rows_per_client": 8, **service},
    }
    if privacy is not None:
        tables["privacy"] = privacy
    if evaluation is not None:
        tables["evaluation"] = evaluation
    return deployed(checked_config(tables, file="test"), folder=folder, schema=schema)


def plan_of(project):
    """What its partners approve."""
    return plan_for(project, operator="test")

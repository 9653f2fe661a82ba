"""A schema of every kind of column, and rows of it, for the tests of exports."""

import numpy as np

from fedtrain.data.schema import parsed

DECLARED = {"source": "declared"}
SCHEMA = parsed(
    {
        "features": [
            {
                "name": "monthly income",
                "kind": "number",
                "encoding": "standardise",
                "moments": {"mean": 2103.7, "stddev": 517.3, **DECLARED},
                "missing": {"allowed": True, **DECLARED},
            },
            {
                "name": "region",
                "kind": "category",
                "encoding": "one_hot",
                "categories": {"values": ["1", "2", "north/east"], **DECLARED},
            },
            {
                "name": "age",
                "kind": "number",
                "encoding": "min_max",
                "whole": True,
                "range": {"minimum": 18, "maximum": 99, **DECLARED},
            },
            {
                "name": "job",
                "kind": "category",
                "encoding": "one_hot",
                "categories": {"values": ["a", "</script>"], **DECLARED},
                "missing": {"allowed": True, **DECLARED},
            },
            {"name": "score", "kind": "number"},
        ],
        "label": {
            "name": "repays",
            "kind": "category",
            "encoding": "index",
            "categories": {"values": ["no", "yes"], **DECLARED},
        },
    },
    where="test",
)
TABLE = {
    "monthly income": np.array([2500.25, np.nan, 1.0 / 3.0, -7.5e3]),
    "region": np.array(["1", "2", "north/east", "1"], object),
    "age": np.array([18.0, 99.0, 33.0, 47.0]),
    "job": np.array(["a", "</script>", None, "a"], object),
    "score": np.array([0.1, -1e-7, 12345.678, 3.0]),
    "repays": np.array(["no", "yes", "no", "yes"], object),
}

"""What a file for a device says of itself: it travels without its release."""

from typing import Any

from fedtrain.data.schema_encoding import feature_names
from fedtrain.export.source import Source


def model_facts(source: Source, *, variant: str) -> dict[str, Any]:
    """Labels, the preparation of inputs, and what stands behind the model; for JSON."""
    schema = source.schema
    return {
        "name": source.name,
        "variant": variant,
        "labels": list(source.label_names),
        "feature_names": list(feature_names(schema)) if schema else None,
        "schema": schema.as_dict() if schema else None,
        "preparation": "the schema's" if schema else f"data set {source.name}'s own",
        "release_status": source.status,
    }

"""The spec's JSON Schema, for editors, generated from the models. Knows JSON Schema. Does not know files."""

from __future__ import annotations

import json

from coolsd_rt.spec.model import Spec

TITLE = "coolsd-rt spec"


def schema_text() -> str:
    """Return the exact content of the file `pipelines/spec.schema.json`."""
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    body["title"] = TITLE
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"

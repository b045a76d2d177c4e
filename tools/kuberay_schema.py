"""Check a manifest of Kubernetes against a CustomResourceDefinition, as its API server would.

    python -m tools.kuberay_schema docs/ray/rayservice.yaml ray.io_rayservices.yaml

The CRD is a file of the operator's own repository. A field that the CRD does not know is a problem too: an API server
drops it, or refuses it under strict validation. Rules in CEL (`x-kubernetes-validations`) are not checked.

Knows YAML and JSON Schema. Does not know what the manifest is for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import read_bytes
from coolsd_rt.limits import SPEC_BYTES

_KEEPS = "x-kubernetes-preserve-unknown-fields"
_EITHER = "x-kubernetes-int-or-string"


def read(path: Path) -> Any:
    """The document of a YAML file. Raises UserError."""
    data = read_bytes(path, "a YAML file", SPEC_BYTES)
    try:
        return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # it is a safe one
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(str(path), expected="YAML", found=" ".join(str(error).split())[:200]) from None


def schema_of(definition: Any, manifest: Any) -> dict[str, Any]:
    """The schema of the manifest's version. Raises UserError if the definition is of another kind."""
    try:
        spec, (group, _, version) = definition["spec"], manifest["apiVersion"].partition("/")
        found = {one["name"]: one["schema"]["openAPIV3Schema"] for one in spec["versions"]}
        if (spec["group"], spec["names"]["kind"]) == (group, manifest["kind"]) and version in found:
            schema: dict[str, Any] = strict(found[version])
            return schema
        known = f"{spec['group']}/{{{','.join(found)}}} {spec['names']['kind']}"
        raise UserError("the manifest", expected=known, found=f"{manifest['apiVersion']} {manifest['kind']}")
    except (KeyError, TypeError, AttributeError):
        raise UserError("the files", expected="a manifest and a CustomResourceDefinition", found="others") from None


def strict(schema: Any, at_top: bool = True) -> Any:
    """The schema in JSON Schema's words, without fields that it does not name."""
    if not isinstance(schema, dict):
        return schema
    new = dict(schema)
    if new.get(_EITHER):
        return {"type": ["integer", "string"]}
    if "properties" in new:
        new["properties"] = {name: strict(inner, False) for name, inner in new["properties"].items()}
        if at_top:
            new["properties"]["metadata"] = {"type": "object"}
        if not new.get(_KEEPS):
            new.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if name in new:
            new[name] = strict(new[name], False)
    if new.get("nullable") and isinstance(new.get("type"), str):
        new["type"] = [new["type"], "null"]
    return new


def problems(manifest: Any, definition: Any) -> list[str]:
    """A line for each thing that is wrong."""
    errors = Draft202012Validator(schema_of(definition, manifest)).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path)) or 'top'}: {error.message[:300]}" for error in errors]


def main(words: Sequence[str]) -> int:
    """Check the manifest of the first path against the definition of the second. Returns the exit code."""
    try:
        if len(words) != 2:
            raise UserError("arguments", expected="MANIFEST CRD", found=f"{len(words)} words")
        found = problems(*(read(Path(word)) for word in words))
    except CoolsdError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.writelines(f"{line}\n" for line in found or [f"{words[0]}: as {words[1]} describes"])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

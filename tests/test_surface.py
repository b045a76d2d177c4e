"""What `import coolsd_rt` gives: the names, their arguments and fields, all of them frozen here; and what it imports.

A change of this file is a change of what programs rely on: say it in CHANGELOG.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import coolsd_rt

NAMES = [
    "BuildEvent",
    "BuildOutput",
    "CallOptions",
    "CoolsdError",
    "FinalImage",
    "GenerationStats",
    "ImageRecord",
    "ImageStream",
    "MissingExtra",
    "PartialImage",
    "Pipeline",
    "PipelineOutput",
    "Progress",
    "SpecError",
    "StreamOptions",
    "TextPart",
    "UserError",
    "WrittenText",
    "__version__",
    "build",
]
ARGUMENTS = {
    "build": "spec, *, out, precision, backend, device, on_event",
    "Pipeline.load": "engine, *, threads, features, text_encoder",
    "Pipeline.__call__": "self, prompts, **options",
    "Pipeline.stream": "self, prompts, **options",
    "Pipeline.stream_text": "self, prompts, **options",
    "Pipeline.close": "self",
    "PipelineOutput.save": "self, folder, *, overwrite",
    "ImageStream.__next__": "self",
    "ImageStream.close": "self",
}
OPTIONS = """
    images_per_prompt num_images_per_prompt seed seeds guidance_scale cfg_interval temperature top_k top_p schedule
    acceptance resampler pacing draft_length plain draft max_tokens system raw loop
"""
FIELDS = {
    "BuildEvent": "state stage done total seconds",
    "BuildOutput": "folder name fingerprint fresh seconds current passed failures",
    "FinalImage": "record",
    "GenerationStats": "images tokens rounds seconds seconds_by_phase loop mean_acceptance_length "
    "acceptance_by_position",
    "ImageRecord": "image index prompt seed tokens provenance",
    "PartialImage": "image index prompt seed rows total_rows",
    "PipelineOutput": "records stats warnings images_per_prompt written",
    "TextPart": "job text",
    "WrittenText": "job ids text reason rounds accept_length seconds",
    "Progress": "decided mean_acceptance_length codes",
}
PROPERTIES = {
    "FinalImage": "image index",
    "GenerationStats": "tokens_per_second",
    "ImageStream": "output",
    "Pipeline": "closed folder name",
    "PipelineOutput": "images text texts",
    "Progress": "total",
}


def found(name: str) -> Any:
    value: Any = coolsd_rt
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_the_names() -> None:
    assert coolsd_rt.__all__ == NAMES
    assert set(NAMES) <= set(dir(coolsd_rt))
    for name in NAMES:
        assert found(name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        found("Pipelines")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments(name: str) -> None:
    words, keyword = list[str](), False
    for parameter in inspect.signature(found(name)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            words, keyword = [*words, "*"], True
        words.append(f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name)
    assert ", ".join(words) == ARGUMENTS[name]


def test_the_options_of_calls_and_streams() -> None:
    callbacks = ["callback_on_step_end", "on_progress"]
    assert sorted(coolsd_rt.CallOptions.__annotations__) == sorted([*OPTIONS.split(), *callbacks])
    assert sorted(coolsd_rt.StreamOptions.__annotations__) == sorted([*OPTIONS.split(), "partial_images"])


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_of_results(name: str) -> None:
    kind = found(name)
    assert [field.name for field in dataclasses.fields(kind)] == FIELDS[name].split()
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_properties(name: str) -> None:
    of = {key for key, value in vars(found(name)).items() if isinstance(value, property) and key[0] != "_"}
    assert of == set(PROPERTIES[name].split())


def test_every_name_is_documented() -> None:
    for name in [*NAMES, *ARGUMENTS]:
        if name != "__version__":
            assert inspect.getdoc(found(name)), name


def test_errors_are_one_family() -> None:
    for name in ("MissingExtra", "SpecError", "UserError"):
        assert issubclass(found(name), coolsd_rt.CoolsdError)


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_to_import_the_package_imports_no_other() -> None:
    """Switches off usage reports, and that before anything else."""
    modules = loaded_after("import os, coolsd_rt\ndir(coolsd_rt)\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '1'")
    packages = {name.partition(".")[0] for name in modules}
    for name in ("torch", "onnx", "onnxruntime", "PIL", "pydantic", "yaml", "click", "rich", "numpy", "transformers"):
        assert name not in packages
    assert {name for name in modules if name.startswith("coolsd_rt")} == {"coolsd_rt", "coolsd_rt.telemetry"}


def test_the_pipelines_module_needs_no_torch() -> None:
    packages = {name.partition(".")[0] for name in loaded_after("from coolsd_rt import Pipeline")}
    assert not packages & {"torch", "onnx", "onnxruntime", "transformers", "click", "rich"}

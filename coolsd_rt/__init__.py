"""coolsd-rt: relaxed speculative decoding for autoregressive image models, from a YAML spec to an image.

    import coolsd_rt as cool

    cool.build("pipelines/emoji.yaml")
    pipe = cool.Pipeline.load("engines/emoji")
    pipe("red apple").images[0].save("apple.png")

Names are imported on first use, so that importing the package imports no dependency.
"""

from coolsd_rt.telemetry import switch_off

switch_off()  # before any module of this package imports a library with telemetry

import importlib  # noqa: E402  (see above)
from typing import TYPE_CHECKING, Any  # noqa: E402

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
    from coolsd_rt.pipeline import CallOptions, Pipeline, StreamOptions
    from coolsd_rt.runtime.progress import Progress
    from coolsd_rt.spec import SpecError
    from coolsd_rt.workflows.building import BuildEvent, BuildOutput, build
    from coolsd_rt.workflows.results import GenerationStats, ImageRecord, PipelineOutput
    from coolsd_rt.workflows.streaming import FinalImage, ImageStream, PartialImage
    from coolsd_rt.workflows.texts import TextPart, WrittenText

_HOME = {
    "errors": ("CoolsdError", "MissingExtra", "UserError"),
    "pipeline": ("CallOptions", "Pipeline", "StreamOptions"),
    "runtime.progress": ("Progress",),
    "spec": ("SpecError",),
    "workflows.building": ("BuildEvent", "BuildOutput", "build"),
    "workflows.results": ("GenerationStats", "ImageRecord", "PipelineOutput"),
    "workflows.streaming": ("FinalImage", "ImageStream", "PartialImage"),
    "workflows.texts": ("TextPart", "WrittenText"),
}
_MODULES = {name: f"coolsd_rt.{module}" for module, names in _HOME.items() for name in names}

__all__ = [
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


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)

"""The spec's `engine` section: backend, device and precision that the models are compiled for.

Knows names of backends. Does not know backends.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coolsd_rt import limits
from coolsd_rt.spec.section import Section, Within, complaint

RUNNABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("onnxruntime", "cpu"): ("fp32", "int8"),  # the CPU provider has no bf16 kernels, and runs fp16 through casts
    ("onnxruntime", "cuda"): ("fp32", "fp16"),
    ("torch", "cpu"): ("fp32", "bf16"),
    ("torch", "cuda"): ("fp32", "fp16", "bf16"),
    ("tensorrt", "cuda"): ("fp32", "fp16", "bf16", "int8"),
    ("tensorrt-rtx", "cuda"): ("fp32", "fp16", "bf16", "int8"),
}
"""(backend, device) to the supported precisions."""


class EngineOptions(Section):
    """Runtime, device and precision that the models are compiled for."""

    backend: Literal["onnxruntime", "torch", "tensorrt", "tensorrt-rtx"] = Field(
        default="onnxruntime",
        description="Runtime of the models. `torch` runs the PyTorch networks. `tensorrt` and `tensorrt-rtx` need a "
        "GPU "
        "to run.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Device of the engine. Default: `cuda` for TensorRT and `cpu` for the other backends.",
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(
        default="fp32",
        description="Precision of weights, arithmetic and KV cache; logits are always float32. `int8` stores weights "
        "in 8 bits, with int8 products on a CPU (see `quantization`) and fp16 products on a GPU. `fp16` needs a GPU; "
        "`bf16` runs on torch and TensorRT, `int8` on ONNX Runtime on a CPU and TensorRT.",
    )
    quantization: Literal["auto", "rowwise", "block"] = Field(
        default="auto",
        description="Form of int8 products of ONNX Runtime on a CPU. `auto`: for each shape of matrix the faster form, "
        "measured on the machine that builds the engine and recorded in it. `rowwise`: one scale for each row of "
        "activations and for each column of weights; wide steps cost little more than narrow ones. `block`: one scale "
        "for each 128 weights of a column. With `auto` and `rowwise`, a matrix that would lose too much precision "
        "row-wise is by blocks.",
    )
    max_batch: Annotated[int, Within(limits.MAX_BATCH)] = Field(
        default=4, description="Maximum batch size in images; more images are drawn in several batches."
    )
    batch_invariant: bool | None = Field(
        default=None,
        description="Compute bitwise equal results for an image in any batch, for any number of drafts that a "
        "step verifies. ONNX Runtime on a CPU only. null: on for int8, where a difference is visible, and off for "
        "fp32. Without guidance an odd number of rows then steps one row more; under guidance it costs nothing.",
    )

    @property
    def invariant(self) -> bool:
        """Whether the engine is batch invariant.

        Defaults to true for int8 on ONNX Runtime's CPU provider.
        """
        on_cpu = (self.backend, self.device) == ("onnxruntime", "cpu")
        return on_cpu and self.precision == "int8" if self.batch_invariant is None else self.batch_invariant

    @model_serializer(mode="wrap")
    def _without_the_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `quantization: auto`, so that engines of before have today's fingerprint of their spec."""
        data: dict[str, Any] = handler(self)
        if data.get("quantization") == "auto":
            del data["quantization"]
        return data

    @model_validator(mode="before")
    @classmethod
    def _device_of_the_backend(cls, data: Any) -> Any:
        if isinstance(data, dict) and "device" not in data and str(data.get("backend", "")).startswith("tensorrt"):
            return {**data, "device": "cuda"}
        return data

    @model_validator(mode="after")
    def _parts_that_run(self) -> EngineOptions:
        here = RUNNABLE.get((self.backend, self.device))
        if here is None:
            found = f"device {self.device}"
            raise complaint(f"the device cuda for the backend {self.backend}", found, "set engine.device: cuda")
        if self.precision not in here:
            expected = f"one of {', '.join(here)} for {self.backend} on {self.device}"
            raise complaint(expected, f"precision {self.precision}")
        if self.batch_invariant and (self.backend, self.device) != ("onnxruntime", "cpu"):
            found = f"batch_invariant: true for {self.backend} on {self.device}"
            raise complaint("onnxruntime on cpu for a batch-invariant engine", found, "leave batch_invariant out")
        if self.quantization == "rowwise" and (self.backend, self.device) != ("onnxruntime", "cpu"):
            found = f"quantization: rowwise for {self.backend} on {self.device}"
            raise complaint("onnxruntime on cpu for row-wise int8", found, "leave quantization out")
        return self

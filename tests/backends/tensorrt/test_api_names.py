"""Every name of TensorRT's runtime that is called without having run: the real module has it."""

from __future__ import annotations

import pytest

trt = pytest.importorskip("tensorrt_rtx")

NAMES = {
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "create_execution_context", "create_runtime_config", "device_memory_size_v2", "get_aliased_input_tensor",
        "get_tensor_dtype", "get_tensor_mode", "get_tensor_name", "get_tensor_shape", "num_io_tensors",
        "num_optimization_profiles",
    ],
    "IExecutionContext": [
        "execute_async_v3", "infer_shapes", "set_device_memory", "set_input_shape", "set_optimization_profile_async",
        "set_tensor_address",
    ],
    "IRuntimeConfig": [
        "create_runtime_cache", "cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy", "set_runtime_cache",
    ],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "CudaGraphStrategy": ["DISABLED"],
    "TensorIOMode": ["INPUT", "OUTPUT"],
    "ITimingCache": ["combine", "serialize"],
    "IBuilderConfig": ["create_timing_cache", "get_timing_cache", "set_timing_cache"],
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_names_are_those_of_the_package(kind: str) -> None:
    assert [name for name in NAMES[kind] if not hasattr(getattr(trt, kind), name)] == []

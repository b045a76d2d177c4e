"""TensorRT and TensorRT-RTX: one implementation for two packages with the same API under two names.

    package     which of the two is used, its version, and the GPU of this machine
    profiles    the sizes an engine is compiled for
    memory      an estimate of the GPU memory that an engine needs, before it is built
    build       an ONNX graph with a fixed cache capacity -> an engine (`network` parses, `inspect` checks the layers)
    facts       a build's record of an engine, which a load checks before it parses the engine
    model       an engine's execution contexts over torch's memory
    engine      the models that `device` decodes with, and their steps

Importing this package, or any module of it except `model` and `engine` (which need torch), imports neither TensorRT
package. TensorRT-RTX builds on a machine without a GPU, and the tests do so; nothing here has run on a GPU.
"""

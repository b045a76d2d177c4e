"""Export torch modules to ONNX: the graphs of the tensor contract, their precision, and checks of the result.

Knows torch and ONNX. Does not know backends, the files of a build, or the command line. Importing this package imports
neither torch nor onnx; its modules do.
"""

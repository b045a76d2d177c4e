"""torch to ONNX: graphs of the tensor contract, their precision, and checks of what came out.

Knows torch and ONNX. Does not know what runs a graph, where files of a build go, or the command line. Importing this
package imports neither torch nor onnx; its modules do.
"""

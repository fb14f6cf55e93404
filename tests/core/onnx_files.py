"""Small model files for tests of the core: real ONNX, with the metadata of a bridge."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

METADATA = {
    "format": "1",
    "name": "tiny",
    "task": "jpeg",
    "prediction": "noise",
    "interval": "1000",
    "beta_max": "0.3",
    "t0": "0.0001",
    "T": "1",
    "ot_ode": "0",
    "cond_x1": "0",
    "add_x1_noise": "0",
    "clip": "0",
    "channels": "3",
    "upscale": "1",
    "multiple": "4",
    "minimum": "4",
    "tile": "32",
    "overlap": "16",
    "batch": "1",
    "sampler": "sde",
    "nfe": "1",
    "dtype": "fp32",
    "network": "{}",
    "trained_on": "nothing",
    "license": "Apache-2.0",
    "weights_sha256": "0" * 64,
}


def make_onnx(path: Path, drop: str | None = None, in_channels: int = 3, **changes: str) -> Path:
    """out = conv1x1(x) + 0.01 t on `in_channels` channels, with `changes` to the metadata and one key dropped."""
    weight = np.zeros((3, in_channels, 1, 1), np.float32)
    weight[range(3), range(3), 0, 0] = [0.5, 0.25, 0.125]
    if in_channels == 6:
        weight[range(3), range(3, 6), 0, 0] = 1
    nodes = [
        helper.make_node("Conv", ["x", "mix.weight"], ["mixed"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["t", "slope"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["added"]),
        helper.make_node("Add", ["mixed", "added"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", in_channels, "H", "W"]),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, ["B"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [
            numpy_helper.from_array(weight, "mix.weight"),
            numpy_helper.from_array(np.float32([0.01]), "slope"),
            numpy_helper.from_array(np.int64([-1, 1, 1, 1]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    metadata = {f"i2sb.{key}": value for key, value in (METADATA | changes).items() if key != drop}
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path

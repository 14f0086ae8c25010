"""The child process that feeds a file to NVIDIA's parser and builder and prints its verdict."""

import json
import sys

import tensorrt_rtx as trt

PROFILE_BATCHES = (1, 4, 16)
PROFILE_LENGTHS = (1, 128, 512)


class _Collector(trt.ILogger):
    """Keeps the builder's errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: "trt.ILogger.Severity", message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def build(path: str) -> tuple[bool, str]:
    """Parse an ONNX file and build an engine for batches 1 to 16; return (accepted, reason).

    Other free axes may be 1 to 512 long.
    """
    logger = _Collector()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        return False, parser.get_error(0).desc()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        inner = tuple(tensor.shape)[1:]
        shapes = [
            (batch, *(length if d < 0 else d for d in inner))
            for batch, length in zip(PROFILE_BATCHES, PROFILE_LENGTHS, strict=True)
        ]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return False, logger.errors[0] if logger.errors else "the builder gave no reason"
    return True, ""


if __name__ == "__main__":
    accepted, reason = build(sys.argv[1])
    print(json.dumps({"accepted": accepted, "reason": reason}))

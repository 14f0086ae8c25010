"""Build TensorRT engines of the ONNX files beside this script, check and time them.

It needs numpy and, on the device, TensorRT's Python module (part of JetPack) and cuda-bindings;
neither torch nor edgedl.

    python3 build_and_run.py                 build, check with golden.npz, time
    python3 build_and_run.py --build-only    build alone
    python3 build_and_run.py --library tensorrt_rtx --compute-capability 8.6 --build-only
                                             compile ahead of time, on a machine without a GPU

Exit codes: 0 done; 1 a file computes something else than golden.npz says; 2 the builder refuses a
file; 4 there is no driver or no library.
"""

import argparse
import ctypes
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Tuple

import numpy as np

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
WARM_UP, RUNS = 20, 200


def main() -> int:
    """Build every file, and run it unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("tensorrt", "tensorrt_rtx"), default="tensorrt")
    parser.add_argument("--only", metavar="NAME", help="one of the files, such as tensorrt-int8")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--compute-capability", action="append", default=[], metavar="8.6")
    parser.add_argument("--workspace", type=int, metavar="MIB", help="memory for a layer")
    parser.add_argument("--out", type=Path, default=HERE / "engines", metavar="FOLDER")
    options = parser.parse_args()
    if options.compute_capability:
        options.build_only = True
    else:
        need_driver()
    try:
        trt = importlib.import_module(options.library)
    except ImportError as error:
        stop(4, f"{options.library} cannot be imported: {error}")
    files = json.loads((HERE / "package.json").read_text())["files"]
    chosen = [file for file in files if options.only in (None, file["name"])]
    if not chosen:
        stop(2, f"no file '{options.only}': {', '.join(file['name'] for file in files)}")
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for file in chosen:
        start = time.monotonic()
        engine = build(trt, file, options)
        (options.out / (file["name"] + ".engine")).write_bytes(engine)
        seconds = time.monotonic() - start
        print(f"{file['name']}: built in {seconds:.1f} s, {len(engine) / MIB:.1f} MiB")
        if not options.build_only:
            wrong += not run(trt, engine, file)
    return 1 if wrong else 0


def stop(code: int, message: str) -> NoReturn:
    """End with one line."""
    print(f"build_and_run: {message}", file=sys.stderr)
    sys.exit(code)


def need_driver() -> None:
    """Stop where there is no GPU: TensorRT's objects crash without a driver."""
    try:
        code = ctypes.CDLL("libcuda.so.1").cuInit(0)
    except OSError:
        stop(4, "there is no NVIDIA driver here (libcuda.so.1 cannot be loaded)")
    if code:
        stop(4, f"the NVIDIA driver is here and cuInit fails: error {code}")


def build(trt: Any, file: Any, options: argparse.Namespace) -> bytes:
    """Return the serialized engine of a file."""
    log = trt.Logger(trt.ILogger.WARNING)
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    typed = hasattr(flags, "STRONGLY_TYPED")
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if typed else 0))
    parser = trt.OnnxParser(network, log)
    if not parser.parse((HERE / file["path"]).read_bytes()):
        stop(2, f"{file['name']}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    configure(trt, config, file, options.workspace or file["workspace_mib"])
    if not typed:
        allow_types(trt, config, file["precision"])
    if options.compute_capability:
        config.num_compute_capabilities = len(options.compute_capability)
        for index, name in enumerate(options.compute_capability):
            value = getattr(trt.ComputeCapability, "SM" + name.replace(".", ""))
            config.set_compute_capability(value, index)
    if file["profile"]:
        profile = builder.create_optimization_profile()
        for sizes in file["profile"]:
            shapes = [tuple(sizes[corner]) for corner in ("min", "opt", "max")]
            profile.set_shape(sizes["input"], *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        stop(2, f"{file['name']}: the builder refuses it, its log says why")
    return bytes(memoryview(engine))


def configure(trt: Any, config: Any, file: Any, workspace: Any) -> None:
    """Set what was asked for when the package was made."""
    if workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace * MIB)
    if file["sparse"]:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if file["dla_core"] is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = file["dla_core"]
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def allow_types(trt: Any, config: Any, precision: str) -> None:
    """Allow TensorRT 8.6, whose builder chooses types, those of the file."""
    for name, flag in (("float16", "FP16"), ("int8", "INT8")):
        if name in precision:
            config.set_flag(getattr(trt.BuilderFlag, flag))


def run(trt: Any, engine: bytes, file: Any) -> bool:
    """Run the golden inputs and time one sample; say whether the outputs are what they must be."""
    golden = np.load(HERE / "golden.npz", allow_pickle=False)
    inputs = [normalised(golden[f"input/{i}"], spec) for i, spec in enumerate(file["inputs"])]
    session = Session(trt, engine, file)
    least, step = session.batches()
    parts = []
    for start in range(0, len(inputs[0]), step):
        batch = [x[start : start + step] for x in inputs]
        have = len(batch[0])
        # Fewer than the engine takes are filled up with copies of the last one.
        filled = [np.concatenate([x, np.repeat(x[-1:], max(0, least - have), 0)]) for x in batch]
        parts.append([y[:have] for y in session(filled)])
    right = True
    for index, tolerance in enumerate(file["tolerances"]):
        found = np.concatenate([part[index] for part in parts]).astype(np.float32)
        error = float(np.abs(found - golden[f"{file['name']}/{index}"]).max())
        right = right and error <= tolerance
        verdict = "ok" if error <= tolerance else "FAILED"
        print(f"{file['name']}: {verdict}, output {index} differs by {error:.3g} "
              f"(allowed {tolerance:.3g})")  # fmt: skip
    step = max(1, least)
    first = [np.repeat(x[:1], step, 0) for x in inputs]
    for _ in range(WARM_UP):
        session(first)
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        session(first)
        times.append(1000 * (time.perf_counter() - begun))
    median, most = np.median(times), np.quantile(times, 0.9)
    print(f"{file['name']}: median {median:.3f} ms, 90 % within {most:.3f} ms with batch {step}, "
          "copies included")  # fmt: skip
    return right


def normalised(x: Any, spec: Any) -> Any:
    """Return an input as the file takes it."""
    if spec["mean"]:
        by_channel = (-1, *[1] * (x.ndim - 2))
        mean, std = (np.asarray(spec[k], np.float32).reshape(by_channel) for k in ("mean", "std"))
        x = (x - mean) / std
    return np.ascontiguousarray(x, spec["dtype"])


class Session:
    """An engine with its memory on the GPU."""

    def __init__(self, trt: Any, engine: bytes, file: Any) -> None:
        """Load the engine."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            stop(4, f"cuda-bindings cannot be imported ({error}): pip install cuda-bindings")
        self.cuda, self.file = runtime, file
        self.runtime = trt.Runtime(trt.Logger(trt.ILogger.ERROR))
        self.engine = self.runtime.deserialize_cuda_engine(engine)
        if self.engine is None:
            stop(2, f"{file['name']}: the library refuses the engine that it has built")
        self.context = self.engine.create_execution_context()
        if self.context is None:
            stop(4, f"{file['name']}: there is not enough memory on the GPU")
        self.stream = self.call("cudaStreamCreate")
        self.memory: Dict[str, Tuple[int, int]] = {}

    def call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA; return its one result."""
        code, *results = getattr(self.cuda, name)(*arguments)
        if int(code):
            stop(4, f"{name} fails on the GPU: {code}")
        return results[0] if results else None

    def batches(self) -> Tuple[int, int]:
        """Return the smallest and the largest batch that the engine takes."""
        fixed = self.file["inputs"][0]["shape"][0]
        if self.file["profile"]:
            sizes = self.file["profile"][0]
            return sizes["min"][0], sizes["max"][0]
        return fixed, fixed

    def __call__(self, inputs: List[Any]) -> List[Any]:
        """Run one batch: numpy arrays in the order of the inputs, and of the outputs."""
        cuda, kinds = self.cuda, self.cuda.cudaMemcpyKind
        for spec, x in zip(self.file["inputs"], inputs):
            if not self.context.set_input_shape(spec["name"], x.shape):
                stop(2, f"{spec['name']}: the engine does not take {list(x.shape)}")
            pointer = self.place(spec["name"], x.nbytes)
            kind = kinds.cudaMemcpyHostToDevice
            self.call("cudaMemcpyAsync", pointer, x.ctypes.data, x.nbytes, kind, self.stream)
        outputs = []
        for spec in self.file["outputs"]:
            shape = tuple(self.context.get_tensor_shape(spec["name"]))
            outputs.append(np.empty(shape, spec["dtype"]))
            self.place(spec["name"], outputs[-1].nbytes)
        if not self.context.execute_async_v3(int(self.stream)):
            stop(4, f"{self.file['name']}: the engine does not run")
        for spec, y in zip(self.file["outputs"], outputs):
            pointer, kind = self.memory[spec["name"]][0], kinds.cudaMemcpyDeviceToHost
            self.call("cudaMemcpyAsync", y.ctypes.data, pointer, y.nbytes, kind, self.stream)
        cuda.cudaStreamSynchronize(self.stream)
        return outputs

    def place(self, name: str, size: int) -> int:
        """Return memory of the GPU for a tensor."""
        pointer, have = self.memory.get(name, (0, 0))
        if have < size:
            if pointer:
                self.call("cudaFree", pointer)
            pointer = int(self.call("cudaMalloc", size))
            self.memory[name] = (pointer, size)
            self.context.set_tensor_address(name, pointer)
        return pointer


if __name__ == "__main__":
    sys.exit(main())

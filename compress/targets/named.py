"""Targets by name, for benchmarks that are about one of them."""

from edgedl.compress.targets.target import load_target

ORT = load_target("ort")
ORT_AVX2 = load_target("ort_avx2")
TFLITE = load_target("tflite")
TENSORRT = load_target("tensorrt")

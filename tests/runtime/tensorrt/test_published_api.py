"""The builder's and the session's calls are calls that every supported version of TensorRT has."""

import pytest
from published_api import ENGINE, VERSIONS, PublishedModule

from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError, build
from edgedl.runtime.tensorrt.library import Library

PROFILE = (ShapeRange("x", (1, 3), (4, 3), (16, 3)),)
ALL = {
    "profile": PROFILE,
    "types": ("float16", "int8"),
    "workspace_mib": 64,
    "sparse": True,
}


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> PublishedModule:
    return PublishedModule(request.param)


def library(trt: PublishedModule) -> Library:
    return Library(trt.__name__, trt)


def test_the_versions_are_those_that_are_supported() -> None:
    assert [version.rpartition(".")[0] for version in VERSIONS] == [
        "tensorrt-10.16.1",
        "tensorrt-10.3",
        "tensorrt-11.4.0",
        "tensorrt-8.6",
        "tensorrt_rtx-1.7.1",
    ]


def test_an_engine_is_built_with_calls_of_the_version(trt: PublishedModule) -> None:
    settings = BuildSettings(trt.__name__, **ALL)
    built = build(library(trt), b"model", settings, b"times")
    assert built.engine == ENGINE
    assert trt.called("set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 64 << 20)]
    assert trt.called("set_shape") == [("x", (1, 3), (4, 3), (16, 3))]
    flags = {flag.name for (flag,) in trt.called("set_flag")}
    ((network_flags,),) = trt.called("create_network")
    if trt.__version__.startswith("8."):
        assert flags == {"SPARSE_WEIGHTS", "FP16", "INT8"}
        assert network_flags == 1 << trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    else:
        assert flags == {"SPARSE_WEIGHTS"}
        assert network_flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    is_rtx = trt.__name__ == "tensorrt_rtx"
    assert trt.called("create_timing_cache") == ([] if is_rtx else [(b"times",)])
    assert built.timings == (b"" if is_rtx else ENGINE)
    assert bool(trt.called("progress_monitor")) is not trt.__version__.startswith("8.")


def test_layers_that_the_accelerator_does_not_take_are_named(trt: PublishedModule) -> None:
    trt.answers["Builder", "num_DLA_cores"] = 2
    trt.answers["INetworkDefinition", "num_layers"] = 3
    trt.answers["INetworkDefinition", "get_layer"] = lambda index: layer(trt, f"layer{index}")
    trt.answers["IBuilderConfig", "can_run_on_DLA"] = lambda it: it.name != "layer1"
    built = build(library(trt), b"model", BuildSettings(trt.__name__, dla_core=1))
    assert built.on_gpu == ("layer1",)
    assert trt.called("DLA_core") == [(1,)]
    assert (trt.BuilderFlag.GPU_FALLBACK,) in trt.called("set_flag")


def test_an_accelerator_that_is_not_there_is_refused(trt: PublishedModule, refused) -> None:
    with refused(BadInputError, "no DLA core 0", "finds 0"):
        build(library(trt), b"model", BuildSettings(trt.__name__, dla_core=0))


def test_the_parsers_first_reason_is_given(trt: PublishedModule, refused) -> None:
    trt.answers["OnnxParser", "parse"] = False
    trt.answers["OnnxParser", "num_errors"] = 2
    trt.answers["OnnxParser", "get_error"] = lambda index: object.__new__(trt.ParserError)
    trt.answers["ParserError", "desc"] = "no such\noperator"
    with refused(EngineRefusedError, "no such operator"):
        build(library(trt), b"model", BuildSettings(trt.__name__))


def test_a_builder_that_gives_no_engine_is_a_refusal(trt: PublishedModule, refused) -> None:
    trt.answers["Builder", "build_serialized_network"] = lambda *_: None
    with refused(EngineRefusedError, "gave no reason"):
        build(library(trt), b"model", BuildSettings(trt.__name__))


def test_only_rtx_compiles_ahead_of_time(trt: PublishedModule, refused) -> None:
    settings = BuildSettings(trt.__name__, compute_capabilities=("8.6", "12.0"))
    if trt.__name__ == "tensorrt_rtx":
        build(library(trt), b"model", settings)
        kinds = trt.ComputeCapability
        assert trt.called("set_compute_capability") == [(kinds.SM86, 0), (kinds.SM120, 1)]
        return
    with refused(BadInputError, "for the GPU of this machine only"):
        build(library(trt), b"model", settings)


def layer(trt: PublishedModule, name: str) -> object:
    made = object.__new__(trt.ILayer)
    object.__setattr__(made, "name", name)
    return made

"""edgedl: compress a trained network, compile it for edge runtimes, and measure what ships.

The names below are what a user needs; each is imported when it is asked for, so that ``import
edgedl`` needs neither torch nor numpy. Everything else is private.

>>> import edgedl
>>> made = edgedl.compress_model(module, loader)  # doctest: +SKIP
>>> made.runner("ort")(x)                         # doctest: +SKIP

The package has four rooms, each a top-level folder of the repository: ``edgedl.compress`` (torch
lives here), ``edgedl.runtime`` (what a device needs), ``edgedl.models`` (reference models and data)
and ``edgedl.tools`` (command line and reports).
"""

# ruff: noqa: F401
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    # For editors and type checkers; _HOMES says the same to Python, and a test compares them.
    from edgedl.compress.cluster.cluster_weights import ClusterWeights
    from edgedl.compress.distill.fine_tune import FineTune
    from edgedl.compress.errors import ExportError
    from edgedl.compress.factorize.factorize import Factorize
    from edgedl.compress.graph.edit import copy_graph
    from edgedl.compress.graph.stored_weights import stored_weights
    from edgedl.compress.prune.prune_blocks import PruneBlocks
    from edgedl.compress.prune.prune_channels import PruneChannels
    from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
    from edgedl.compress.quantize.corrections.equalize import Equalize
    from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
    from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
    from edgedl.compress.quantize.corrections.reconstruct_blocks import ReconstructBlocks
    from edgedl.compress.quantize.corrections.round_weights import RoundWeights
    from edgedl.compress.quantize.corrections.scale_weights import ScaleWeights
    from edgedl.compress.quantize.corrections.smooth import Smooth
    from edgedl.compress.quantize.dynamic import QuantizeDynamic
    from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
    from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
    from edgedl.compress.quantize.recurrent import QuantizeRecurrent
    from edgedl.compress.quantize.search.mix_precision import MixPrecision
    from edgedl.compress.quantize.search.protect_parts import ProtectParts
    from edgedl.compress.quantize.static import QuantizeStatic
    from edgedl.compress.quantize.weight_only import QuantizeWeights
    from edgedl.compress.recipe.rebuild import rebuild
    from edgedl.compress.recipe.recipe import Budget, Recipe
    from edgedl.compress.recipe.recipe_file import load_recipe
    from edgedl.compress.sparsify.sparsify import Sparsify
    from edgedl.compress.stage import Stage
    from edgedl.compress.state import Phase
    from edgedl.compress.subject.subject import Subject
    from edgedl.compress.targets.target import Target, load_target
    from edgedl.runtime.backend import Availability, Backend, Session
    from edgedl.runtime.backends.engines import EngineBackend
    from edgedl.runtime.backends.runtimes import open_backend
    from edgedl.runtime.bundle.bundle import Bundle
    from edgedl.runtime.bundle.signature import Trust
    from edgedl.runtime.bundle.state import State
    from edgedl.runtime.errors import (
        BackendUnavailableError,
        BadInputError,
        BudgetMissedError,
        EdgedlError,
        FileFailedError,
        IntegrityError,
        InvalidMeasurementError,
    )
    from edgedl.runtime.first_load import OtherOutputsWarning
    from edgedl.runtime.generate import Generation, Sampling
    from edgedl.runtime.loaded_model import UnusualInputWarning
    from edgedl.runtime.placement import Fallback, Placement
    from edgedl.runtime.preprocess.audio import AudioPreprocessing, LogMel
    from edgedl.runtime.preprocess.characters import CharacterPreprocessing
    from edgedl.runtime.preprocess.image import ImagePreprocessing
    from edgedl.runtime.preprocess.sequence import SequencePreprocessing
    from edgedl.runtime.preprocess.text import TextPreprocessing
    from edgedl.runtime.runner import Runner
    from edgedl.runtime.steps import Steps
    from edgedl.runtime.supervised import SupervisedRunner
    from edgedl.runtime.task.scores import (
        accuracy_of_each,
        agreement,
        bits_per_character,
        r2,
        sqnr,
        top1,
    )
    from edgedl.runtime.task.task import ArrayTask, Batch, Samples, Task
    from edgedl.tools.bench.result import Result, load_result
    from edgedl.tools.jobs.bench_bundles import bench
    from edgedl.tools.jobs.compress_model import compress_model
    from edgedl.tools.jobs.compressed import Compressed
    from edgedl.tools.jobs.subjects import find_subject

# Module -> the names that it has.
_HOMES = {
    "edgedl.compress.cluster.cluster_weights": ("ClusterWeights",),
    "edgedl.compress.distill.fine_tune": ("FineTune",),
    "edgedl.compress.errors": ("ExportError",),
    "edgedl.compress.factorize.factorize": ("Factorize",),
    "edgedl.compress.prune.prune_blocks": ("PruneBlocks",),
    "edgedl.compress.prune.prune_channels": ("PruneChannels",),
    "edgedl.compress.quantize.corrections.correct_bias": ("CorrectBias",),
    "edgedl.compress.quantize.corrections.equalize": ("Equalize",),
    "edgedl.compress.quantize.corrections.learn_rounding": ("LearnRounding",),
    "edgedl.compress.quantize.corrections.match_statistics": ("MatchStatistics",),
    "edgedl.compress.quantize.corrections.reconstruct_blocks": ("ReconstructBlocks",),
    "edgedl.compress.quantize.corrections.round_weights": ("RoundWeights",),
    "edgedl.compress.quantize.corrections.scale_weights": ("ScaleWeights",),
    "edgedl.compress.quantize.corrections.smooth": ("Smooth",),
    "edgedl.compress.quantize.dynamic": ("QuantizeDynamic",),
    "edgedl.compress.quantize.qat.train_quantized": ("TrainQuantized",),
    "edgedl.compress.quantize.quantize_fp8": ("QuantizeFp8",),
    "edgedl.compress.quantize.recurrent": ("QuantizeRecurrent",),
    "edgedl.compress.quantize.search.mix_precision": ("MixPrecision",),
    "edgedl.compress.quantize.search.protect_parts": ("ProtectParts",),
    "edgedl.compress.quantize.static": ("QuantizeStatic",),
    "edgedl.compress.quantize.weight_only": ("QuantizeWeights",),
    "edgedl.compress.graph.edit": ("copy_graph",),
    "edgedl.compress.graph.stored_weights": ("stored_weights",),
    "edgedl.compress.recipe.rebuild": ("rebuild",),
    "edgedl.compress.recipe.recipe": (
        "Budget",
        "Recipe",
    ),
    "edgedl.compress.recipe.recipe_file": ("load_recipe",),
    "edgedl.compress.sparsify.sparsify": ("Sparsify",),
    "edgedl.compress.stage": ("Stage",),
    "edgedl.compress.state": ("Phase",),
    "edgedl.compress.subject.subject": ("Subject",),
    "edgedl.compress.targets.target": (
        "Target",
        "load_target",
    ),
    "edgedl.runtime.backend": ("Availability", "Backend", "Session"),
    "edgedl.runtime.backends.engines": ("EngineBackend",),
    "edgedl.runtime.backends.runtimes": ("open_backend",),
    "edgedl.runtime.bundle.bundle": ("Bundle",),
    "edgedl.runtime.preprocess.audio": ("AudioPreprocessing", "LogMel"),
    "edgedl.runtime.preprocess.characters": ("CharacterPreprocessing",),
    "edgedl.runtime.preprocess.image": ("ImagePreprocessing",),
    "edgedl.runtime.preprocess.sequence": ("SequencePreprocessing",),
    "edgedl.runtime.preprocess.text": ("TextPreprocessing",),
    "edgedl.runtime.bundle.signature": ("Trust",),
    "edgedl.runtime.bundle.state": ("State",),
    "edgedl.runtime.errors": (
        "BackendUnavailableError",
        "BadInputError",
        "BudgetMissedError",
        "EdgedlError",
        "FileFailedError",
        "IntegrityError",
        "InvalidMeasurementError",
    ),
    "edgedl.runtime.first_load": ("OtherOutputsWarning",),
    "edgedl.runtime.generate": ("Generation", "Sampling"),
    "edgedl.runtime.loaded_model": ("UnusualInputWarning",),
    "edgedl.runtime.placement": ("Fallback", "Placement"),
    "edgedl.runtime.runner": ("Runner",),
    "edgedl.runtime.steps": ("Steps",),
    "edgedl.runtime.supervised": ("SupervisedRunner",),
    "edgedl.runtime.task.scores": (
        "accuracy_of_each",
        "agreement",
        "bits_per_character",
        "r2",
        "sqnr",
        "top1",
    ),
    "edgedl.runtime.task.task": (
        "ArrayTask",
        "Batch",
        "Samples",
        "Task",
    ),
    "edgedl.tools.bench.result": (
        "Result",
        "load_result",
    ),
    "edgedl.tools.jobs.bench_bundles": ("bench",),
    "edgedl.tools.jobs.compress_model": ("compress_model",),
    "edgedl.tools.jobs.compressed": ("Compressed",),
    "edgedl.tools.jobs.subjects": ("find_subject",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    """Import a public name where it is asked for the first time.

    Raises:
        AttributeError: there is no such name.
        BackendUnavailableError: a library that it needs is missing; the message says how to get it.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'edgedl' has no attribute '{name}'")
    try:
        found: object = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from edgedl.runtime.errors import BackendUnavailableError
        from edgedl.tools.terminal.host_packages import how_to_install

        hint = how_to_install(error.name)
        if hint is None:
            raise
        raise BackendUnavailableError(f"edgedl.{name}: {hint}") from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return all public names."""
    return sorted(__all__)

"""A user's stage in a recipe file: named by its file, checked, reused, measured, rebuilt."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from listening import notes_to
from tiny import make_net, make_subject

from edgedl.compress import code_digest
from edgedl.compress.code_digest import Project
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.apply_recipe import StageRunner, apply_recipe
from edgedl.compress.recipe.judge import Judge
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.recipe.recipe import Budget, Recipe
from edgedl.compress.recipe.recipe_file import load_recipe, parse_recipe
from edgedl.compress.recipe.store.ingredients import Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase, begin
from edgedl.compress.targets.named import ORT
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import SILENT
from edgedl.tools.jobs.plan import plan
from edgedl.tools.jobs.wish import Wish

OWN = Path(__file__).parents[1] / "own_stage.py"
RECIPE = """\
description: mine
stages:
  - stage: own_stage.py:Scale
    factor: 0.25
  - {stage: quantize_static, samples: 16}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shutil.copy(OWN, tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_it_is_read_from_beside_the_recipe(recipe: Path) -> None:
    own, shipped = load_recipe(str(recipe)).stages
    assert (own.name, own.factor, shipped) == ("scale", 0.25, QuantizeStatic(samples=16))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("factor: 0.25", "factr: 0.25", 4, "unknown key 'factr', did you mean 'factor'? known:"),
        ("factor: 0.25", "zzz: 1", 4, "unknown key 'zzz'; known: stage, factor, keep, budget"),
        ("0.25", "2", 4, "'factor': Expected `float` <= 1.0"),
        ("0.25", "much", 4, "'factor': Expected `float`, got `str`"),
        (":Scale", ":Scael", 3, "own_stage.py has no class 'Scael'"),
        (":Scale", ":PRUNE", 3, "own_stage.py has no class 'PRUNE'"),
        (":Scale", ":NoStage", 3, "own_stage.py:NoStage is not a stage: make it a subclass"),
        (":Scale", ":Stage", 3, "own_stage.py:Stage is not a stage: make it a"),
        ("own_stage.py", "gone.py", 3, "there is no file 'gone.py' in "),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    old: str, new: str, line: int, said: str, recipe: Path
) -> None:
    recipe.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(BadInputError) as caught:
        load_recipe(str(recipe))
    assert str(caught.value).startswith(f"{recipe}, line {line}: ")
    assert said in str(caught.value)


def test_its_place_in_the_order_is_checked(recipe: Path) -> None:
    text = "description: x\nstages:\n  - stage: quantize_static\n  - stage: own_stage.py:Round\n"
    recipe.write_text(text)
    with pytest.raises(BadInputError, match=r"round works on the float graph: .*quantize_static"):
        load_recipe(str(recipe))
    before = parse_recipe(text.replace("quantize_static", "equalize"), "x", folder=recipe.parent)
    assert [stage.name for stage in before.stages] == ["equalize", "round"]


def run(recipe: Recipe, folder: Path) -> tuple[ModelState, list[str]]:
    """Apply a recipe through a store; return the state, and what was reused or not kept."""
    heard: list[str] = []
    state = replace(begin(make_subject()), progress=notes_to(heard.append))
    runner = StageRunner(StageStore(folder), Provenance(state, {"torch": "1"}))
    return runner.run(recipe.stages, state), [line.rpartition(" ")[0] for line in heard]


@pytest.mark.slow
def test_its_result_is_reused_until_a_byte_of_its_file_changes(
    recipe: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first, heard = run(load_recipe(str(recipe)), store)
    assert heard == []
    second, heard = run(load_recipe(str(recipe)), store)
    assert heard == ["scale: reused", "quantize_static: reused"]
    assert second.history == first.history
    for name, tensor in first.graph.state_dict().items():
        assert torch.equal(second.graph.state_dict()[name], tensor)
    with (tmp_path / "own_stage.py").open("a") as file:
        file.write("# A comment counts, too.\n")
    _, heard = run(load_recipe(str(recipe)), store)
    # What comes out is the same again, so the next stage is reused.
    assert heard == ["quantize_static: reused"]


@pytest.mark.slow
def test_a_file_that_its_file_imports_counts_too(recipe: Path, tmp_path: Path) -> None:
    own, store = tmp_path / "own_stage.py", tmp_path / "store"
    (tmp_path / "beside_own_stage.py").write_text("FACTOR = 1\n")
    own.write_text(f"import beside_own_stage\n{own.read_text()}")
    run(load_recipe(str(recipe)), store)
    assert len(run(load_recipe(str(recipe)), store)[1]) == 2
    (tmp_path / "beside_own_stage.py").write_text("FACTOR = 2\n")
    assert len(run(load_recipe(str(recipe)), store)[1]) == 1


@pytest.mark.slow
def test_sizes_that_it_changes_are_built_again(recipe: Path, tmp_path: Path) -> None:
    text = "description: x\nstages: [{stage: 'own_stage.py:Thin'}]\n"
    own = parse_recipe(text, "x", folder=tmp_path)
    first, _ = run(own, tmp_path / "store")
    second, heard = run(own, tmp_path / "store")
    assert heard == ["Thin: reused"]
    widths = [p.shape for p in first.subject.module.parameters()]
    assert [p.shape for p in second.subject.module.parameters()] == widths
    again = rebuild(
        make_net(), make_subject().example_inputs(), first.history, own=(type(own.stages[0]),)
    )
    assert [p.shape for p in again.parameters()] == widths


@pytest.mark.slow
def test_a_class_inside_a_function_is_applied_every_time(tmp_path: Path) -> None:
    class Inner(Stage, frozen=True):
        works_on = yields = Phase.TRAINED

        def change(self, state: ModelState) -> tuple[ModelState, Found]:
            return state.with_network(state.subject.module), {}  # type: ignore[arg-type]

    for _ in range(2):
        _, heard = run(Recipe("", (PruneChannels(ratio=0.5, multiple=2), Inner())), tmp_path)
    assert heard[0] == "prune_channels: reused"
    assert heard[1].startswith("results are not cached: the code of Inner has no digest")
    assert len(heard) == 2


@pytest.fixture
def copied_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of edgedl's code; digests are of it, while the code that runs is not."""
    folders = code_digest.edgedl().folders
    for package, folder in folders.items():
        for path in (*folder.rglob("*.py"), *folder.rglob("*.yaml")):
            copy = tmp_path / "code" / package / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    copied = {package: tmp_path / "code" / package for package in folders}
    monkeypatch.setattr(code_digest, "edgedl", lambda: Project(copied))
    return tmp_path / "code"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "reused"),
    [
        ("compress/prune/prune_channels.py", '"""The stage that', '"""A stage that', True),
        ("compress/prune/prune_channels.py", "# Share that", "# The share that", True),
        ("compress/distill/fine_tune.py", "epochs: ", "rounds: ", True),
        ("compress/prune/prune_channels.py", "RATIO = 0.5", "RATIO = 0.25", False),
        # Imported inside a function, by a name that begins constant.
        ("compress/export/tflite/exporter.py", "\nEXPORTER", "\nOTHER = 1\nEXPORTER", False),
        ("compress/targets/tflite.yaml", "\n", "\n# another\n", False),
    ],
)
def test_a_shipped_stage_runs_again_only_where_its_code_does_something_else(
    file: str, old: str, new: str, reused: bool, copied_code: Path, tmp_path: Path
) -> None:
    recipe = Recipe("", (PruneChannels(ratio=0.5, multiple=2),))
    run(recipe, tmp_path / "store")
    room, _, rest = file.partition("/")
    path = copied_code / f"edgedl.{room}" / rest
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    _, heard = run(recipe, tmp_path / "store")
    assert heard == (["prune_channels: reused"] if reused else [])


@pytest.mark.slow
def test_a_missed_budget_is_tried_milder(recipe: Path) -> None:
    own = load_recipe(str(recipe)).stages[0]
    start = begin(make_subject())
    runner = StageRunner(None, None)
    tried = apply_recipe(
        start,
        Recipe("", (own,), {0: Budget(0.0, retries=1)}),
        runner,
        lambda: Judge(start, start.subject.task),
    )
    assert "tried again with factor 0.625" in tried.notes[0]


def test_a_dry_run_estimates_it_and_finds_what_is_kept(recipe: Path, tmp_path: Path) -> None:
    subject = f"{Path(__file__).parents[2] / 'tiny.py'}:make_subject"
    wish = Wish(subject, None, str(recipe), (), (), (ORT,), 0)
    store = StageStore(tmp_path / "store")
    own, _ = plan(wish.job(), store, SILENT)
    assert (own.name, own.settings, own.kept) == ("scale", "(factor=0.25)", None)
    assert own.seconds is not None


@pytest.mark.slow
def test_the_bundle_says_that_it_was_applied(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    compress(make_subject(), load_recipe(str(recipe)), (ORT,), folder)
    entry = Bundle.open(folder).manifest.history[0]
    assert entry.stage == "scale"
    assert entry.settings["factor"] == 0.25
    assert entry.settings["scaled"] == 5

"""Links resolve, shell lines name real commands and options, Python blocks and examples work."""

import re
import shlex
import textwrap
from pathlib import Path

import click
import pytest

from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.tools.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [p.relative_to(ROOT).as_posix() for p in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    return [textwrap.dedent(block) for _, block in found]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_shell_blocks_name_real_commands_and_options(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(page, "(?:sh|bash)"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                for target in words[1:]:
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
            elif words[:1] == ["edgedl"]:
                check_command(words[1:], line)


def check_command(words: list[str], line: str) -> None:
    context = click.Context(cli)
    command: click.Command = cli
    known = options_of(cli)
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{line}: no option {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found, f"{line}: no command {word}"
            command, known = found, options_of(found)


def options_of(command: click.Command) -> set[str]:
    own = {option for parameter in command.params for option in parameter.opts}
    return own | {"--help", "-h", "--version", "--debug"}


LANGUAGES = {"python", "sh", "text", "yaml"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_block_has_a_language_and_says_why_it_is_not_run(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    for info in fences[::2]:
        language, _, rest = info.partition(" ")
        assert language in LANGUAGES, f"{page.name}: ```{info}"
        if rest:
            assert re.match(r"not run: \w", rest), f"{page.name}: ```{info}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


def test_every_command_has_its_help() -> None:
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.help


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=lambda p: p.name
)
def test_examples_of_recipes_can_be_read(path: Path) -> None:
    assert load_recipe(str(path)).stages

"""YAML that people write: read with limits, and with errors that name the line."""

from typing import Any

import yaml

from edgedl.runtime.errors import BadInputError

# A recipe has six levels. Without limits, brackets in brackets end in a RecursionError, and aliases
# of aliases in a file of 1 KB stand for more values than any machine has memory for.
MOST_LEVELS = 32
# What yaml raises for a value that it cannot build, such as a date that there is not, besides its
# own errors.
NO_VALUE = (ValueError, KeyError, IndexError, AttributeError, OverflowError, TypeError)
OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def read_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a text, which know their lines, and its values.

    Args:
        text: one document.
        source: what errors call it.

    Raises:
        BadInputError: it is no YAML, nested too deep, has aliases, or a key twice in one mapping;
            it names the line.
    """
    try:
        _check_tokens(text, source)
        loader = yaml.SafeLoader(text)
        tree = loader.get_single_node()
        _refuse_repeated_keys(tree, source)
        return tree, None if tree is None else loader.construct_document(tree)
    except BadInputError:
        raise
    except (yaml.YAMLError, *NO_VALUE) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInputError(
            f"{source}{line}: not YAML ({getattr(error, 'problem', error)})"
        ) from error


def _check_tokens(text: str, source: str) -> None:
    levels = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        where = f"{source}, line {token.start_mark.line + 1}"
        if isinstance(token, yaml.AliasToken):
            raise BadInputError(f"{where}: an alias (*{token.value}) is not read: write it out")
        levels += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if levels > MOST_LEVELS:
            raise BadInputError(f"{where}: nested deeper than {MOST_LEVELS} levels")


def _refuse_repeated_keys(node: yaml.Node | None, source: str) -> None:
    """Refuse a key that stands twice in one mapping; YAML would take the last in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in seen:
                line = key.start_mark.line + 1
                raise BadInputError(f"{source}, line {line}: the key '{key.value}' is given twice")
            seen.add(str(key.value))
            _refuse_repeated_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, source)

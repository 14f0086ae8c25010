"""Keys of YAML files that are written twice."""

import yaml

from edgedl.runtime.errors import BadInputError


def refuse_repeated_keys(node: yaml.Node | None, source: str) -> None:
    """Refuse a key that stands twice in one mapping; YAML would take the last in silence.

    Raises:
        BadInputError: it names the line.
    """
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise BadInputError(f"{source}, line {line}: the key '{key.value}' is given twice")
            seen.add(key.value)
            refuse_repeated_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_repeated_keys(item, source)

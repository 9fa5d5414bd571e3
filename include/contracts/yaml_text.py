"""YAML read strictly: a key given twice is an error and never a silent overwrite."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from include.contracts.errors import DefinitionError

_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads ten times faster, where the wheel has it


class _StrictLoader(_SafeLoader):  # type: ignore[misc,valid-type]
    """Safe loader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, file: str, error: type[DefinitionError]) -> dict[str, Any]:
    """Parse one YAML document that must be a mapping.

    Raises:
        DefinitionError: Of the class `error`, if the text is no YAML, holds a key twice or is no mapping.
    """
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark is not None else "document"
        raise error(file, place, f"not valid YAML ({getattr(failure, 'problem', None) or failure})", "correct that line") from failure
    if not isinstance(document, dict):
        raise error(file, "document", "is not a mapping of keys", "start from a file beside it")
    return document

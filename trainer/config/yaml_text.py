"""parse_yaml(): YAML with duplicate keys refused."""

from __future__ import annotations

from typing import Any

import yaml

from trainer.config.errors import UserError


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys: PyYAML keeps the last one silently, so an arm of a study would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise UserError(f"line {line}: a key must be a string, number or truth value but got {key!r}")
            if key in keys:
                raise UserError(f"line {line}: key '{key}' is written twice; keep one")
            keys.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of a YAML text. Raises UserError naming `where` when it is not YAML, or a key is written twice."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None

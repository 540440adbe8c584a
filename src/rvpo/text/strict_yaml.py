"""Strict YAML: plain data only, every key at most once, limited depth and size."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 100
"""Largest depth of nested mappings and lists. Python's recursion limit is near 1000, and readers recurse, too."""

MAX_REPEATED = 100_000
"""Largest number of values that aliases may repeat. A few lines of aliases to aliases can expand beyond memory."""

MAX_VALUES = 10_000
"""Largest number of keys and values. PyYAML reads about 16,000 per second. Use JSON for larger data."""

MAX_CHARACTERS = 500_000
"""Largest number of characters. PyYAML reads about a million characters per second."""


def load_yaml(text: str) -> Any:
    """Read a text with one YAML document.

    The format is YAML 1.1 as PyYAML's ``SafeLoader`` reads it, except that ``1e-5`` is a number. The following are
    errors: a key that occurs twice in a mapping, an alias inside the value that it repeats, nesting deeper than
    :data:`MAX_DEPTH`, aliases that repeat more than :data:`MAX_REPEATED` values, more than :data:`MAX_VALUES` keys and
    values, and more than :data:`MAX_CHARACTERS` characters. Any text is read or refused within about a second.

    Raises:
        ValueError: the text is not YAML of this kind. The message names the problem and the line.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the text has {len(text)} characters; expected at most {MAX_CHARACTERS}: use JSON for data")

    try:
        return yaml.load(text, _loader())  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except ValueError:  # an impossible date, or an integer with too many digits
        raise
    except Exception as error:  # PyYAML does not check values with an explicit tag, such as `!!bool x`
        raise ValueError(f"a value does not fit its tag ({type(error).__name__}: {error})") from error


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Make the loader's class on first use. Importing yaml is slow, and ``import rvpo`` does not need it."""
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that checks the nodes while it reads them, before it builds any value."""

        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            self._sizes: dict[yaml.Node, int] = {}  # sizes of finished nodes with an anchor, with aliases expanded
            self._open: list[int] = []  # sizes so far of unfinished nodes, from the root inwards
            self._repeated = self._values = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            """Compose a node, or resolve an alias."""
            if self.check_event(yaml.AliasEvent):
                return self._alias(parent, index)
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if len(self._open) >= MAX_DEPTH:
                raise _error(f"the values are nested more than {MAX_DEPTH} deep", event.start_mark)
            self._values += 1
            if self._values > MAX_VALUES:
                raise _error(f"there are more than {MAX_VALUES} keys and values; use JSON for data", event.start_mark)
            self._open.append(1)
            node = super().compose_node(parent, index)
            assert node is not None
            size = self._open.pop()
            if event.anchor is not None:
                self._sizes[node] = size
            self._grow(size)
            return node

        def _alias(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            node = super().compose_node(parent, index)
            assert node is not None  # PyYAML has raised otherwise
            if node not in self._sizes:
                raise _error(f"the alias *{event.anchor} is inside the value that it repeats", event.start_mark)
            self._repeated += self._sizes[node]
            if self._repeated > MAX_REPEATED:
                raise _error(f"aliases repeat more than {MAX_REPEATED} values", event.start_mark)
            self._grow(self._sizes[node])
            return node

        def _grow(self, size: int) -> None:
            if self._open:
                self._open[-1] += size

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            """Build an integer, if a float can represent it. Larger ones are refused: no code computes with them."""
            value = super().construct_yaml_int(node)
            try:
                float(value)
            except OverflowError:
                raise _error("an integer is beyond 1.8e308; expected a smaller one", node.start_mark) from None
            return value

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            """Compose a mapping, and refuse a repeated key.

            ``construct_mapping`` would be too late: by then, ``<<`` may have inserted the keys of another mapping, and
            this mapping may override those.
            """
            node = super().compose_mapping_node(anchor)
            lines: dict[Any, int] = {}
            for key, _ in node.value:
                # construct_mapping refuses keys that are lists or mappings.
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                value, line = self.construct_object(key), key.start_mark.line + 1
                if value in lines:
                    raise _error(f"the key {value!r} occurs twice, first in line {lines[value]}", key.start_mark)
                lines[value] = line
            return node

    def _error(problem: str, mark: Any) -> yaml.YAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )
    return Loader

"""The formats that a config file may have. Each is read into plain values, or ValueError says what is wrong."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_LONGEST_REASON = 300


def toml(text: str) -> object:
    """What a TOML text says."""
    import tomllib  # noqa: PLC0415 - most starts have no such file

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("not valid TOML: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        reason = str(error).replace("Cannot overwrite a value", "a key is given twice")
        raise ValueError(f"not valid TOML: {_cut(reason)}") from error


def yaml(text: str) -> object:
    """What a YAML text says; a key that is given twice is an error."""
    import yaml as library  # noqa: PLC0415 - most starts have no such file

    class UniqueKeys(library.SafeLoader):
        """The safe loader, but a key given twice is an error instead of the last one winning."""

        def construct_mapping(self, node: library.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key, _ in node.value:
                name = key.value if isinstance(key, library.ScalarNode) else key
                if name in seen:
                    raise library.MarkedYAMLError(
                        problem=f"the key {name!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

    try:
        return library.load(text, UniqueKeys)  # noqa: S506 - derived from SafeLoader
    except library.MarkedYAMLError as error:
        line = f" (at line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"not valid YAML: {_cut(str(error.problem))}{line}") from error
    except library.YAMLError as error:
        raise ValueError(f"not valid YAML: {_cut(str(error))}") from error
    except RecursionError:
        raise ValueError("not valid YAML: it is nested too deeply") from None
    except Exception as error:
        # The library reads a value such as `!!int ""` with no check of its own, and fails as it happens.
        raise ValueError(f"not valid YAML: a value is not what its tag or form says ({_cut(str(error))})") from error


def _cut(text: str) -> str:
    """The text in one line of a bounded length: the library quotes what it has read."""
    return " ".join(text.split())[:_LONGEST_REASON]


BY_SUFFIX: Mapping[str, Callable[[str], object]] = MappingProxyType({".yaml": yaml, ".yml": yaml, ".toml": toml})

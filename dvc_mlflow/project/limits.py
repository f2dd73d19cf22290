"""Limits to what DVC reads: a FIFO or a device has no end, and YAML's aliases unfold to anything.

DVC itself waits for ever, or until there is no memory left.
"""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

import dvc.utils.serialize
import dvc.utils.serialize._yaml
from dvc.fs import LocalFileSystem

_LONGEST = 10_000_000  # characters of YAML, which take the parser a minute
_MOST = 1_000_000  # values, once all aliases are unfolded
_parse = dvc.utils.serialize._yaml.parse_yaml


def apply() -> None:
    """Let DVC keep these limits in this process."""
    type(LocalFileSystem().fs).open = _open
    for module in (dvc.utils.serialize, dvc.utils.serialize._yaml):
        module.parse_yaml = _parse_yaml


def _open(_: Any, path: str, mode: str = "r", encoding: str | None = None, **__: Any) -> IO[Any]:
    file = Path(path)
    if "r" in mode and file.exists() and not (file.is_file() or file.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return file.open(mode, encoding=encoding)


def _parse_yaml(text: str | bytes, path: str, typ: str = "safe") -> Any:
    if len(text or "") > _LONGEST:
        _refuse(path, f"it has more than {_LONGEST // 1_000_000} MB")
    found = _parse(text, path, typ)
    has_aliases = b"*" in text if isinstance(text, bytes) else "*" in (text or "")
    if has_aliases and _unfolded(found, {}) > _MOST:
        _refuse(path, f"its aliases unfold to more than {_MOST:,} values")
    return found


def _refuse(path: str, rule: str) -> NoReturn:
    raise dvc.utils.serialize._yaml.YAMLError(path, rule) from ValueError(rule)


def _unfolded(value: Any, known: dict[int, float]) -> float:
    """Return how many values there are in a value; those that contain themselves have no end."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_unfolded(each, known) for each in inner)
    return known[id(value)]

"""params.yaml, read as DVC reads it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vanilla_lstm.task.errors import FileError, ParamsError, broken_rule

PARAMS = Path("params.yaml")
MAX_BYTES = 20_000  # small enough that any content is parsed within two seconds


def read(path: Path = PARAMS) -> str:
    """Return the text of a params file; raises `FileError` and `ParamsError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        cure = f"`git checkout {path}` restores the committed one"
        raise FileError(path, f"cannot be read ({cause})", cure) from None
    if len(content) > MAX_BYTES:
        raise ParamsError(path, [broken_rule("", f"must be at most {MAX_BYTES} bytes")])
    return text


def parse(text: str, path: Path = PARAMS) -> dict[str, Any]:
    """Return the mapping in `text`; raises a `ParamsError` that names `path`."""
    if tab := re.search(r"^[^#\n]*\t", text, re.M):  # `dvc exp run -S` cannot read them
        line = f"line {text.count(chr(10), 0, tab.end()) + 1}"
        raise ParamsError(path, [broken_rule(line, "must have spaces instead of tabs")])
    try:
        values = yaml.load(text, _Loader)  # noqa: S506  (derived from CSafeLoader)
    except Exception as error:  # YAML's own, and Python's for scalars such as `!!int ""`
        mark = getattr(error, "problem_mark", None)
        cause = " ".join((getattr(error, "problem", None) or str(error)).split())[:200]
        line = f"line {mark.line + 1}" if mark else ""
        raise ParamsError(path, [broken_rule(line, f"must be valid YAML: {cause}")]) from None
    if not isinstance(values, dict):
        raise ParamsError(path, [broken_rule("", "must be a mapping of sections", values)])
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key, as `dvc params` names them; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class _Loader(yaml.CSafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, as DVC reads them.

    By default PyYAML reads YAML 1.1: `1e-3` as text, `yes` as true, `010` as 8. Duplicate keys are
    refused, as by DVC; so are merge keys, whose expansion can grow without bound.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: list[object] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen or key == "<<":
                problem = "found a merge key" if key == "<<" else f'found duplicate key "{key}"'
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def _scalar(tag: str, pattern: str, first: str) -> None:
    regex = re.compile(f"(?:{pattern})$", re.X)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", regex, list(first) or [""])


_scalar("null", "~ | null | Null | NULL |", "~nN")
_Loader.yaml_implicit_resolvers[""] = _Loader.yaml_implicit_resolvers["~"]
_scalar("bool", "true | True | TRUE | false | False | FALSE", "tTfF")
_scalar(
    "float",
    r"""[-+]? [0-9][0-9_]* \. [0-9_]* ([eE][-+]?[0-9]+)?
    | [-+]? [0-9][0-9_]* [eE][-+]?[0-9]+
    | [-+]? \. [0-9_]+ ([eE][-+][0-9]+)?
    | [-+]? \. (inf | Inf | INF)
    | \. (nan | NaN | NAN)""",
    "-+.0123456789",
)
_scalar(
    "int",
    "[-+]? (0b[01_]+ | 0o[0-7_]+ | [0-9_]+ | 0x[0-9a-fA-F_]+)",
    "-+0123456789",
)


def _construct_int(loader: _Loader, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    number = text.lstrip("-+")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(number[:2], 10)
    return (-1 if text.startswith("-") else 1) * int(number if base == 10 else number[2:], base)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)

"""The post's params.yaml as text: change it, and read the lines that refuse it."""

import json
import re
from typing import Any

from ruamel.yaml import YAML

from support.sections import RECIPE
from vanilla_lstm.task.errors import ParamsError
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params import parse_params

TEXT = "".join(
    f"{section}:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in keys.items())
    for section, keys in RECIPE.items()
)
VALUES: dict[str, dict[str, Any]] = YAML(typ="safe").load(TEXT)
KEYS = [f"{section}.{key}" for section, keys in VALUES.items() for key in keys]


def line_of(key: str, text: str = TEXT) -> int:
    """Return the index of the line that has a key."""
    section, name = key.split(".")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    return next(i for i, line in enumerate(lines) if i > start and line.startswith(f"  {name}:"))


def changed(**values: str | None) -> str:
    """Return params.yaml with other YAML for some keys (`__`: a dot; None: no key)."""
    lines = TEXT.splitlines()
    for dotted, value in values.items():
        key = dotted.replace("__", ".")
        lines[line_of(key)] = "  # gone" if value is None else f"  {key.split('.')[1]}: {value}"
    return "\n".join(lines)


def of(key: str, value: str | None) -> str:
    """Return params.yaml with other YAML for one key."""
    return changed(**{key.replace(".", "__"): value})


def refusal(text: str) -> list[str]:
    """Return the lines that refuse a text, and assert that each is well-formed."""
    try:
        check_memory(parse_params(text))
    except ParamsError as error:
        lines = str(error).splitlines()
    else:
        raise AssertionError(f"accepted:\n{text}")
    assert 0 < len(lines) <= 21
    for line in lines:
        assert re.match(r"params\.yaml: (.+: )?must |params\.yaml: … and \d+", line), line
        assert len(line) < 400, line
    return lines

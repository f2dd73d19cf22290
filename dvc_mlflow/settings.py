"""The tool's settings in dvc.yaml: `meta.mlflow` of a stage, and `artifacts` that are models.

All are optional. What is wrong is reported, one line each, and left out.
"""

import difflib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Model:
    """A model as MLflow serves it: an output, and what loads it. Nothing of it is imported here."""

    path: str
    loader_module: str = ""
    """The module whose `_load_pyfunc(path)` MLflow calls when the model is served."""
    code_paths: Sequence[str] = ()
    pip_requirements: Sequence[str] | str = ()
    """Requirements, or the path of a requirements file."""
    signature: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """A stage's `meta.mlflow`."""

    experiment: str = ""
    prefix: str | None = None
    columns: Sequence[str] = ()
    data: Sequence[str] = ()
    open: str = ""
    models: Sequence[Model] = ()
    promote: Sequence[str] = ()
    """Metrics that decide which row is better, compared in turn; with a `-`, lower is better."""


def read(
    meta: object, where: str, folder: str, outs: Sequence[str], project: str = ""
) -> tuple[Settings, list[str]]:
    """Return the settings in a stage's `meta`, and what is wrong with them.

    `where` names the stage for messages. Paths are relative to `folder`, the stage's working
    directory, and may lead out of the project, which is the repository's folder `project`. `outs`
    are the outputs that can be a model, relative to the project.
    """
    problems: list[str] = []
    given = meta.get("mlflow") if isinstance(meta, Mapping) else None
    if given is None:
        return Settings(), problems
    where = f"{where}.meta.mlflow"
    if not isinstance(given, Mapping):
        return Settings(), [_problem(where, "must be a mapping", given)]
    values = _checked(given, _SETTINGS, where, problems)
    _refuse_unknown(given, [*_SETTINGS, "model"], where, problems)
    if "data" in values:
        values["data"] = _inside(values["data"], folder, f"{where}.data", problems, project)
    if "model" in given:
        values["models"] = tuple(
            _model(given["model"], f"{where}.model", folder, outs, problems, project)
        )
    return Settings(**values), problems


def read_artifacts(
    artifacts: Mapping[str, Any], file: str, folder: str, project: str = ""
) -> tuple[list[Model], list[str]]:
    """Return the models among the `artifacts` of a dvc.yaml, and what is wrong with them."""
    models: list[Model] = []
    problems: list[str] = []
    for name, artifact in artifacts.items():
        if isinstance(artifact, Mapping) and artifact.get("type") == "model":
            where = f"{file}: artifacts.{name}"
            meta = artifact.get("meta")
            meta = meta if isinstance(meta, Mapping) else {}
            for key in meta:  # other keys are the user's own
                near = difflib.get_close_matches(str(key), _MODEL, 1, 0.8)
                if near and key not in _MODEL:
                    problems.append(f"{where}.meta.{key}: unknown key; did you mean {near[0]}?")
            own = {key: value for key, value in meta.items() if key in _MODEL}
            given = {**own, "path": artifact.get("path")}
            models += _model(given, where, folder, None, problems, project, within=".meta")
    return models, problems


def _model(
    given: object,
    where: str,
    folder: str,
    outs: Sequence[str] | None,
    problems: list[str],
    project: str,
    within: str = "",
) -> list[Model]:
    if not isinstance(given, Mapping):
        problems.append(_problem(where, "must be a mapping", given))
        return []
    _refuse_unknown(given, ["path", *_MODEL], where, problems)
    found: Sequence[str] = outs or ()
    if outs is None:
        found = _inside([str(given["path"])], folder, f"{where}.path", problems, project)
    elif "path" in given:
        found = [posixpath.normpath(posixpath.join(folder, str(given["path"])))]
    if outs is not None and not (len(found) == 1 and found[0] in outs):
        rule = "must be an output of the stage"
        problems.append(_problem(f"{where}.path", rule, given.get("path")))
        return []
    before = len(problems)
    where += within
    values = _checked(given, _MODEL, where, problems)
    values["code_paths"] = _inside(
        values.get("code_paths", ()), folder, f"{where}.code_paths", problems, project
    )
    requirements = values.get("pip_requirements")
    if isinstance(requirements, str):
        kept_file = _inside([requirements], folder, f"{where}.pip_requirements", problems, project)
        values["pip_requirements"] = kept_file[0] if kept_file else ()
    if values.get("loader_module") and "pip_requirements" not in given:
        rule = "must list the packages that loading the model needs"
        problems.append(_problem(f"{where}.pip_requirements", rule, None))
    if len(problems) > before:  # it would be served wrongly
        values = {}
    return [Model(path, **values) for path in found]


def _inside(
    paths: Sequence[str], folder: str, where: str, problems: list[str], project: str
) -> tuple[str, ...]:
    """Return paths relative to the project, without those that lead out of the repository."""
    found = []
    for path in paths:
        joined = posixpath.normpath(posixpath.join(project, folder, path))
        if joined.startswith(("../", "/")) or joined == "..":
            problems.append(_problem(where, "must be in the repository", path))
        else:
            found.append(posixpath.relpath(joined, project or "."))
    return tuple(found)


def _checked(
    given: Mapping[str, Any],
    rules: Mapping[str, tuple[str, Callable[[Any], bool]]],
    where: str,
    problems: list[str],
) -> dict[str, Any]:
    found = {}
    for key, (rule, holds) in rules.items():
        if key in given:
            if holds(given[key]):
                found[key] = given[key]
            else:
                problems.append(_problem(f"{where}.{key}", f"must be {rule}", given[key]))
    return found


def _refuse_unknown(
    given: Mapping[str, Any], known: Sequence[str], where: str, problems: list[str]
) -> None:
    for key in given:
        if key not in known:
            name = key if f"{key}".isprintable() else repr(key)
            problems.append(f"{where}.{name}: unknown key; known are {', '.join(known)}")


def _problem(where: str, rule: str, value: object) -> str:
    return f"{where}: {rule}; received {value!r:.100}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_columns(value: Any) -> bool:
    kinds = ("metrics.", "params.", "tags.", "attributes.")
    return _is_list(value) and all(name.removeprefix("-").startswith(kinds) for name in value)


def _is_metrics(value: Any) -> bool:
    return _is_list(value) and not any(name.startswith(("metrics.", "-metrics.")) for name in value)


def _is_requirements(value: Any) -> bool:
    # An option such as `-r file` would make MLflow read a file on this machine.
    lines = [line for each in value for line in each.splitlines()] if _is_list(value) else []
    return _is_text(value) or (_is_list(value) and not any(v.lstrip()[:1] == "-" for v in lines))


def _is_signature(value: Any) -> bool:
    known = {"inputs", "outputs", "params"}
    return (
        isinstance(value, Mapping)
        and {*value} <= known
        and all(isinstance(part, list) for part in value.values())
    )


_SETTINGS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "experiment": ("a name", lambda value: _is_text(value) and len(value) <= 500),
    "prefix": ("text, or empty for no prefix", lambda value: isinstance(value, str)),
    "columns": ("a list such as [-metrics.test/loss, params.train.rate]", _is_columns),
    "data": ("a list of paths", _is_list),
    "open": ("`first`", lambda value: value == "first"),
    "promote": ("a list of metrics such as [test/score, -test/loss]", _is_metrics),
}
_MODEL: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "loader_module": ("the name of a module", _is_text),
    "code_paths": ("a list of paths", _is_list),
    "pip_requirements": ("a list of requirements without options, or a path", _is_requirements),
    "signature": ("a mapping with lists `inputs`, `outputs` and `params`", _is_signature),
}

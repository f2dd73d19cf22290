"""Read the tool's settings in dvc.yaml: `meta.mlflow` of a stage, and `artifacts` that are models.

All are optional. What is wrong is reported, one line each, and left out.
"""

import difflib
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

import voluptuous as vol

from ..pipeline.stages import Model, Settings, leads_out

_Rules = Mapping[str, vol.Msg]


def settings_of(
    meta: object, where: str, folder: str, project: str = ""
) -> tuple[Settings, list[str]]:
    """Return the settings in a stage's `meta`, and what is wrong with them.

    `where` names the stage for messages. Paths are relative to `folder`, the stage's working
    directory, and may lead out of the project, which is the repository's folder `project`.
    """
    reader = _Reader(folder, project)
    own = meta if isinstance(meta, Mapping) and meta.get("mlflow") is not None else {}
    section = reader.valid({"mlflow": _MAPPING}, own, f"{where}.meta").get("mlflow", {})
    where = f"{where}.meta.mlflow"
    for key in section:
        if key not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            reader.problems.append(f"{where}.{key}: unknown key; known are {known}")
    values = reader.valid(_SETTINGS, section, where)
    values["data"] = reader.inside(values.get("data", ()), f"{where}.data")
    return Settings(**values), reader.problems


def models_in(
    artifacts: Mapping[str, Any], file: str, project: str = ""
) -> tuple[list[Model], list[str]]:
    """Return the models among the `artifacts` of a dvc.yaml, and what is wrong with them.

    `file` is the dvc.yaml in the project, which is the repository's folder `project`.
    """
    folder = posixpath.dirname(file)
    reader, models = _Reader(folder, project), []
    for name, artifact in artifacts.items():
        if isinstance(artifact, Mapping) and artifact.get("type") == "model":
            where = f"{file}: artifacts.{name}"
            paths = reader.inside([f"{artifact.get('path')}"], f"{where}.path")
            meta = artifact.get("meta")
            meta, where = meta if isinstance(meta, Mapping) else {}, f"{where}.meta"
            for key in meta:  # other keys are the user's own
                near = difflib.get_close_matches(f"{key}", _MODEL, 1, 0.8)
                if near and key not in _MODEL:
                    reader.problems.append(f"{where}.{key}: unknown key; did you mean {near[0]}?")
            served = reader.served(meta, where)
            start = posixpath.join(project, folder).rstrip("/")
            key = f"{start}:{name}" if start else f"{name}"
            models += [Model(path, **served, name=key) for path in paths]
    return models, reader.problems


class _Reader:
    """Reads mappings of a dvc.yaml, and collects what is wrong with them, one line each."""

    def __init__(self, folder: str, project: str) -> None:
        self._folder, self._project = folder, project
        self.problems: list[str] = []

    def valid(self, rules: _Rules, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the values that keep their rules, and report the others."""
        accepted = {}
        for key, rule in rules.items():
            if key in values:
                try:
                    accepted[key] = rule(values[key])
                except vol.Invalid as broken:
                    self.report(f"{where}.{key}", broken.msg, values[key])
        return accepted

    def served(self, meta: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return what a model is served with: nothing if it would be served wrongly."""
        n_problems = len(self.problems)
        values = self.valid(_MODEL, meta, where)
        values["code_paths"] = self.inside(values.get("code_paths", ()), f"{where}.code_paths")
        where = f"{where}.pip_requirements"
        if isinstance(file := values.get("pip_requirements"), str):
            values["pip_requirements"] = "".join(self.inside([file], where))
        if "loader_module" in values and "pip_requirements" not in meta:
            self.report(where, "must list the packages that loading the model needs", None)
        return values if len(self.problems) == n_problems else {}

    def inside(self, paths: Iterable[str], where: str) -> tuple[str, ...]:
        """Return paths relative to the project, without those that lead out of the repository."""
        relative = []
        for path in paths:
            joined = posixpath.normpath(posixpath.join(self._project, self._folder, path))
            if leads_out(joined):
                self.report(where, "must be in the repository", path)
            else:
                relative.append(posixpath.relpath(joined, self._project or "."))
        return tuple(relative)

    def report(self, where: str, rule: str, value: object) -> None:
        self.problems.append(f"{where}: {rule}; received {value!r:.100}")


def _requirement(text: str) -> str:
    # An option such as `-r file` would make MLflow read a file on this machine.
    if any(line.lstrip().startswith("-") for line in text.splitlines()):
        raise vol.Invalid("must not be an option")
    return text


_TEXT = vol.Match(r"\s*\S")
_COLUMN = vol.Match(r"-?(metrics|params|tags|attributes)\.")
_METRIC = vol.Match(r"(?!-?metrics\.)\s*\S")
_PATHS = vol.Msg([_TEXT], "must be a list of paths")
_MAPPING = vol.Msg(dict, "must be a mapping")
_SETTINGS: _Rules = {
    "experiment": vol.Msg(vol.All(_TEXT, vol.Length(max=500)), "must be a name"),
    "prefix": vol.Msg(str, "must be text, or empty for no prefix"),
    "columns": vol.Msg([_COLUMN], "must be a list such as [-metrics.test/loss, params.train.rate]"),
    "data": _PATHS,
    "record": vol.Msg(bool, "must be true or false"),
    "promote": vol.Msg([_METRIC], "must be a list of metrics such as [test/score, -test/loss]"),
}
_MODEL: _Rules = {
    "loader_module": vol.Msg(_TEXT, "must be the name of a module"),
    "code_paths": _PATHS,
    "pip_requirements": vol.Msg(
        vol.Any(_TEXT, [vol.All(_TEXT, _requirement)]),
        "must be a list of requirements without options, or a path",
    ),
    "signature": vol.Msg(
        {vol.Any("inputs", "outputs", "params"): list},
        "must be a mapping with lists `inputs`, `outputs` and `params`",
    ),
}

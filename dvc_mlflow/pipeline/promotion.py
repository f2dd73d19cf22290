"""A row that competes to be the champion, and what dvc.yaml has to say before it can."""

import json
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from .keys import labels, md5_tag, prefix
from .measures import after_model, evaluating, way
from .row import DIGITS, UNCOMMITTED
from .row_stages import RowStages, divided, recorded
from .stages import Model, Pipeline
from .tags import CHANGE, COMMIT, DATA

_MODELS = (".pkl", ".pickle", ".joblib", ".keras", ".h5", ".pt", ".pth", ".onnx", ".safetensors")
_CODE = (".py", ".sh", ".R", ".jl", ".ipynb")


@dataclass(frozen=True)
class Contender:
    """A row by its metrics and tags, and what dvc.yaml says of its stages now."""

    pipeline: Pipeline
    """With a model of these stages, also if dvc.yaml declares none."""
    row_stages: RowStages
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, pipeline: Pipeline, metrics: Mapping[str, float], tags: Mapping[str, str]) -> Self:
        """Return a row as a contender; its outputs say which stages it is of."""

        def n_common(row_stages: RowStages) -> int:
            outs = {md5_tag(out.path) for stage in row_stages.scope() for out in stage.outs}
            return len(outs & tags.keys())

        every = divided(pipeline, recorded(pipeline))
        row_stages = max(every, key=n_common, default=RowStages({}, {}, {}))
        if not any(any(pipeline.models_of(stage)) for stage in row_stages.scope()):
            pipeline = replace(
                pipeline, models=[*pipeline.models, *_likely_model(pipeline, row_stages)]
            )
        return cls(pipeline, row_stages, metrics, tags)

    @property
    def promote(self) -> dict[str, str]:
        """The metrics of `meta.mlflow.promote`, each with `-` if lower is better, else ""."""
        found = (metric for each in self.row_stages.scope() for metric in each.settings.promote)
        return {metric.removeprefix("-"): "-" * metric.startswith("-") for metric in found}

    @property
    def missing(self) -> list[str]:
        """The metrics that it lacks of those that decide."""
        return [key for key in self.promote if math.isnan(self.metrics.get(key, math.nan))]

    @property
    def commit(self) -> str:
        """The commit that has its result; "" if nobody, and no experiment of DVC's, has it."""
        commit = self.tags.get(COMMIT, "")
        is_before = self.tags.get(CHANGE, "").startswith(f"{UNCOMMITTED}{commit[:DIGITS]}")
        return commit if re.fullmatch("[0-9a-f]{40,64}", commit) and not is_before else ""

    def data(self, tags: Mapping[str, str]) -> str:
        """Return the data that a row with these tags was measured on.

        A row that was recorded before dvc.yaml declared its model counts that as data.
        """
        members = self.row_stages.members
        measuring = [members[name] for name in evaluating(self.pipeline, self.row_stages)]
        after = {name for stage in measuring for name in after_model(self.pipeline, stage)}
        made = {out.path for name in after for out in self.pipeline.stages[name].outs}
        found = tags.get(DATA, "").split(", ")
        return ", ".join(each for each in found if each.partition(" ")[2] not in made)

    def defeat(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
        """Return why it must not replace a champion with these metrics and tags; "" if it may.

        On the same data, the first metric that differs decides.
        """
        if (data := self.data(self.tags)) != (other := self.data(tags)):
            return f"its data is {data}, the champion's is {other or 'not known'}"
        ties = []
        for key, sign in self.promote.items():
            mine, best = self.metrics[key], metrics.get(key, math.nan)
            if math.isnan(best):
                return f"the champion's row has no {key}"
            ties.append(f"{key} {mine} is not better than the champion's {best}")
            if mine != best:
                return "" if (mine < best) == bool(sign) else ties[-1]
        return ties[0]

    def lines_to_add(self, read: Callable[[str], str | None], *, is_loaded: bool) -> list[str]:
        """Return the lines that dvc.yaml lacks, also for the model unless it `is_loaded`.

        `read` returns the text of a file, if there is one: the code and requirements.txt say what
        can load the model.
        """
        if not self.row_stages.members:
            return ["stages:  # one that has metrics or a model"]
        lines = [] if self.promote and self.data(self.tags) else [*self._settings()]
        return lines if is_loaded else [*lines, *self._artifact(read)]

    def _settings(self) -> Iterator[str]:
        members = self.row_stages.members
        names = [*evaluating(self.pipeline, self.row_stages), *members]
        stage = next((members[n] for n in names if members[n].command), members[names[0]])
        folder, name = posixpath.split(stage.group)
        yield f"stages:  # in {posixpath.join(folder, 'dvc.yaml')}"
        yield f"  {_text(name)}:{'  # below its `do`, in a foreach' if stage.item else ''}"
        yield "    meta:"
        yield "      mlflow:"
        if not self.promote:
            start = prefix(stage, labels(self.row_stages)[stage.name])
            own = [key for key in self.metrics if key.startswith(start)] or [*self.metrics]
            best = min(own, key=lambda key: way(key) or "?", default="score")
            metric = f"-{best}" if way(best) == "-" else best
            yield f"        promote: [{_text(metric)}]  # with a -, lower is better"
        if not self.data(self.tags):
            read = [dep.path for dep in stage.deps if not (dep.makers or dep.path.endswith(_CODE))]
            paths = ", ".join(_text(posixpath.relpath(path, folder or ".")) for path in read)
            yield f"        data: [{paths}]  # what it measures on, if git keeps that"

    def _artifact(self, read: Callable[[str], str | None]) -> Iterator[str]:
        scope = [stage for stage in self.row_stages.scope() if stage.command]
        models = [(stage, model) for stage in scope for model, _ in self.pipeline.models_of(stage)]
        for stage, model in models[:1]:
            folder = posixpath.dirname(stage.group) or "."
            yield f"artifacts:  # in {posixpath.normpath(f'{folder}/dvc.yaml')}"
            yield f"  {_text(model.name.rpartition(':')[2])}:"
            yield f"    path: {_text(posixpath.relpath(model.path, folder))}"
            yield "    type: model"
            yield "    meta:"
            deps = {dep.path for each in scope for dep in each.deps if dep.path.endswith(_CODE)}
            code, needed = "".join(read(path) or "" for path in deps), read("requirements.txt")
            is_pickle = model.path.endswith((".pkl", ".pickle")) and "joblib.dump" not in code
            if is_pickle and re.search("sklearn|scikit-learn", f"{needed}{code}"):
                yield "      loader_module: mlflow.sklearn  # it loads a pickle of scikit-learn"
                packages = "[scikit-learn]"
            else:
                yield "      loader_module: serving  # yours; MLflow calls its _load_pyfunc(path)"
                yield "      code_paths: [serving.py]"
                packages = "[]  # what loading it needs"
            file = posixpath.relpath("requirements.txt", folder)
            yield f"      pip_requirements: {packages if needed is None else file}"
        if not models:
            yield "artifacts:  # no stage of the row writes a file that could be its model"


def _likely_model(pipeline: Pipeline, row_stages: RowStages) -> list[Model]:
    """Return the output that is most likely a model, if there is one."""
    stages = [stage for stage in row_stages.scope() if stage.command]
    read = {dep.path for stage in stages for dep in stage.deps}

    def likeness(path: str) -> tuple[bool, bool, bool]:
        name = posixpath.basename(path).lower()
        return name.endswith(_MODELS), "model" in name, path in read

    made = [out.path for stage in reversed(stages) for out in stage.outs]
    outs = [path for path in made if path not in pipeline.metrics]
    stem = posixpath.splitext(posixpath.basename(path := max(outs, key=likeness, default="")))[0]
    name = re.sub("[^a-zA-Z0-9]+", "-", stem).strip("-")
    return [Model(path, name=name or "model")] if path else []


def _text(text: str) -> str:
    """Return a text in YAML."""
    return text if re.fullmatch(r"[\w-][\w./-]*", text) else json.dumps(text)

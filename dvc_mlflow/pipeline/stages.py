"""A pipeline and its results as plain values: what dvc.yaml and dvc.lock say, and nothing else.

All paths are relative to the root of the DVC project, with `/` between their parts.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

_TEMPLATES_WITH_LINES = ("", "linear", "simple", "smooth")
"""Those of DVC's that draw lines; a plot need not name one."""
_METRICS = re.compile(r"(?i)(?<![a-z])(metric|score|eval|report|result).*\.(json|yaml|yml)$")
_LARGEST = 64_000
"""What files that may be metrics are called where none are declared, and their most bytes."""
_PREFIX = re.compile(r"(^|[\s;&|(/])dvc-mlflow\s+run\s")
"""What is before a command that records its stage, or before one of its parts."""


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
    name: str = ""
    """Its key in `artifacts`, after the folder of that dvc.yaml in the repository: `folder:key`."""


@dataclass(frozen=True)
class Settings:
    """A stage's `meta.mlflow`."""

    experiment: str = ""
    prefix: str | None = None
    columns: Sequence[str] = ()
    data: Sequence[str] = ()
    promote: Sequence[str] = ()
    """Metrics that decide which row is better, compared in turn; with a `-`, lower is better."""
    record: bool = False
    """Whether dvc.yaml chooses the stage to be recorded."""


@dataclass(frozen=True)
class Output:
    """A file or a folder that a stage writes."""

    path: str
    md5: str
    """As in dvc.lock; "" if the stage has no result. A folder's ends in `.dir`."""
    size: int
    cached: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Dependency:
    """A file or a folder that a stage reads, and where it comes from."""

    path: str
    md5: str
    """As in dvc.lock: the content that the stage has read."""
    makers: Sequence[str] = ()
    """The stages that write it, or a part of it."""
    outdated: bool = False
    """Whether the makers have written other content since, according to dvc.lock."""
    is_data: bool = False
    """Whether it is tracked by a .dvc file."""


@dataclass(frozen=True)
class Params:
    """What a stage reads of one params file."""

    file: str
    declared: Sequence[str]
    """Keys or sections, as in dvc.yaml; empty for the whole file."""
    values: Mapping[str, Any]
    """By dotted key, as in dvc.lock."""


@dataclass(frozen=True)
class Plot:
    """A file or a folder of plots, as dvc.yaml declares it."""

    path: str
    x: str = ""
    template: str = ""
    header: bool = True
    """Whether the first line of a table has the names of its columns."""

    @property
    def draws_lines(self) -> bool:
        """Whether it is a table, or a folder with tables, that DVC draws as lines."""
        is_folder = "." not in posixpath.basename(self.path)
        return self.template in _TEMPLATES_WITH_LINES and (is_folder or is_table(self.path))


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, or one item of a foreach or a matrix."""

    name: str
    """Unique in the project: `train`, `train@item`, or `folder/train` in a folder's dvc.yaml."""
    group: str
    """The name that the items of a foreach or a matrix share."""
    item: str
    command: str
    frozen: bool
    has_result: bool
    """Whether dvc.lock has an entry for it."""
    params: Sequence[Params]
    item_values: Mapping[str, Any]
    """Values of a foreach or a matrix by dvc.yaml's names, such as `item.model`."""
    deps: Sequence[Dependency]
    outs: Sequence[Output]
    settings: Settings = field(default_factory=Settings)
    variables: Sequence[Params] = ()
    """Values that dvc.yaml puts into the command, as in `--rate ${rate}`: only shown."""

    @property
    def label(self) -> str:
        """Return the name with `/` for `@`, which MLflow does not allow in a key."""
        return f"{self.group}/{self.item}" if self.item else self.group

    @property
    def is_prefixed(self) -> bool:
        """Whether `dvc-mlflow run` is anywhere in its command."""
        return bool(_PREFIX.search(f"{self.command} "))

    @property
    def is_chosen(self) -> bool:
        """Whether dvc.yaml chooses it to be recorded."""
        return self.settings.record or self.is_prefixed

    @cached_property
    def content(self) -> str:
        """Return what decides which result it has, but for the stages upstream, as JSON."""
        content = [
            self.name,
            {params.file: normal(dict(params.values)) for params in self.params},
            {out.path: out.md5 for out in self.outs},
            {dep.path: dep.md5 for dep in self.deps if dep.is_data or leads_out(dep.path)},
        ]
        return json.dumps(content, sort_keys=True, default=str)[1:-1]


def normal(value: Any) -> Any:
    """Return a value in one form for all YAML readers: 25.0 becomes 25."""
    if isinstance(value, Mapping):
        return {str(key): normal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [normal(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Pipeline:
    """The stages of a DVC project, and what the top of its dvc.yaml files declares."""

    folder: str
    """Of a nested project, relative to the root of the checkout; else ""."""
    stages: Mapping[str, Stage]
    """Each stage after those that it depends on."""
    metrics: frozenset[str] = frozenset()
    """The files and folders that stages and the tops of dvc.yaml files declare."""
    plots: Sequence[Plot] = ()
    models: Sequence[Model] = ()
    problems: Sequence[str] = ()
    """What is wrong in dvc.yaml, one line each; the rest is recorded."""
    are_likely: bool = False
    """Whether no metrics are declared, and `metrics` are outputs whose names say that they are."""

    def set_as(self, now: "Pipeline | None") -> "Pipeline":
        """Return it with the settings that today's stages of the same names have, if there are."""
        today = {stage.group: stage.settings for stage in (now.stages.values() if now else ())}
        stages = self.stages.items()
        own = {n: replace(s, settings=today.get(s.group, s.settings)) for n, s in stages}
        return replace(self, stages=own)

    def with_likely_metrics(self, stages: Sequence[Stage]) -> "Pipeline":
        """Return it with metrics that these stages are likely to have, if it declares none."""
        if any(map(self.metrics_paths, self.stages.values())):
            return self
        outs = [out for stage in stages for out in stage.outs if 0 < out.size <= _LARGEST]
        found = frozenset(out.path for out in outs if _METRICS.search(posixpath.basename(out.path)))
        return replace(self, metrics=found, are_likely=bool(found))

    @cached_property
    def _above(self) -> Mapping[str, frozenset[str]]:
        above: dict[str, frozenset[str]] = {}
        for stage in self.stages.values():
            makers = self.makers(stage)
            above[stage.name] = frozenset(makers).union(*(above[name] for name in makers))
        return above

    def above(self, name: str) -> frozenset[str]:
        """Return the names of all stages that a stage depends on."""
        return self._above[name]

    def makers(self, stage: Stage) -> list[str]:
        """Return the stages that a stage depends on directly; a frozen one depends on none."""
        deps = () if stage.frozen else stage.deps
        return list(dict.fromkeys(name for dep in deps for name in dep.makers))

    def scope(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return stages, and all that they depend on, each after those that it depends on."""
        names = {stage.name for stage in stages}.union(*(self._above[s.name] for s in stages))
        return [stage for stage in self.stages.values() if stage.name in names]

    def nearest(self, stage: Stage, among: Iterable[Stage]) -> list[Stage]:
        """Return those `among` that are upstream of a stage, with no other of them between."""
        own = self._above[stage.name]
        above = [s for s in among if s.name in own] if own else []
        return [s for s in above if not any(s.name in self._above[o.name] for o in above)]

    def metrics_paths(self, stage: Stage) -> set[str]:
        """Return the files and folders of a stage that are declared as metrics."""
        return {p for p in self.metrics if any(overlap(p, o.path) for o in stage.outs)}

    def metrics_path(self, path: str) -> str:
        """Return the file or folder that declares a file as metrics, or ""."""
        return max((each for each in self.metrics if is_below(each, path)), key=len, default="")

    def plot(self, path: str) -> Plot | None:
        """Return the nearest declaration of the plots in a file, if there is any."""
        found = [plot for plot in self.plots if is_below(plot.path, path)]
        return max(found, key=lambda plot: (len(plot.path), bool(plot.x)), default=None)

    def plots_of(self, stage: Stage) -> list[Plot]:
        """Return the plots that a stage writes."""
        return [p for p in self.plots if any(overlap(p.path, o.path) for o in stage.outs)]

    def models_of(self, stage: Stage) -> Iterator[tuple[Model, Output]]:
        """Yield the models that a stage makes."""
        for model in self.models:
            for output in stage.outs:
                if model.path == output.path:
                    yield model, output


def is_below(folder: str, path: str) -> bool:
    """Whether a path is that of a folder, or of something in it."""
    return path == folder or path.startswith(f"{folder}/")


def overlap(one: str, other: str) -> bool:
    """Whether one path is the other, or in it."""
    return is_below(one, other) or is_below(other, one)


def leads_out(path: str) -> bool:
    """Whether a path that anybody may have written can lead out of its folder, or is an address.

    "" is the folder itself.
    """
    return path.startswith("/") or ".." in path.split("/") or "://" in path or "\0" in path


def is_table(path: str) -> bool:
    """Whether a file can hold curves."""
    return path.endswith((".csv", ".tsv", ".jsonl"))

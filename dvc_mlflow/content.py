"""What a row holds of a stage: params, metrics, curves, files and data sets, from DVC alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .identity import Row, as_key, normal
from .keys import (
    LONGEST,
    allowed_key,
    base_of,
    file_prefixes,
    keyed_curves,
    labels,
    named_params,
    prefix,
    reads,
)
from .pipeline import Output, Pipeline, Plot, Stage, overlap
from .project import SMALL, File, Project, parse
from .tables import numbers

_LARGEST = 50_000_000  # bytes of a file of plots or metrics that is read
_LONGEST_VALUE = 6000  # characters, in MLflow


class Point(NamedTuple):
    """A value of a metric."""

    key: str
    value: float
    step: int
    is_final: bool = False
    """Whether it comes from a metrics file, so that the table shows it."""


class Input(NamedTuple):
    """A data set that a stage reads."""

    path: str
    md5: str
    stage: str


@dataclass
class Content:
    """What a row gets from one stage."""

    points: list[Point] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    """Files whose bytes are not here, without which the row is not complete."""
    notes: list[str] = field(default_factory=list)
    """What cannot be recorded, one line each."""


def params_of(row: Row, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the params of these members by MLflow's key, and what cannot be recorded of them.

    Keys are decided by dvc.yaml, so that no column moves when a value changes.
    """
    called = labels(row)
    found: dict[str, str] = {}
    notes: list[str] = []

    def add(key: str, stage: Stage, value: object) -> None:
        key, text = allowed_key(key), str(normal(value))
        if found.get(key, text[:_LONGEST_VALUE]) != text[:_LONGEST_VALUE]:
            key = allowed_key(f"{called[stage.name]}.{key}")
        if found.get(key, text[:_LONGEST_VALUE]) != text[:_LONGEST_VALUE]:
            notes.append(f"param {key!r} has two values; one is left out")
        elif len(text) > _LONGEST_VALUE:
            notes.append(f"param {key!r} has {len(text)} characters, cut to {_LONGEST_VALUE}")
        found.setdefault(key, text[:_LONGEST_VALUE])

    for name, stage, params, key in named_params(row, names):
        add(name, stage, params.values[key])
    declared = [params for stage in row.scope() for params in stage.params]
    for name in names:
        stage = row.members[name]
        if stage.item and name == as_key(stage.group):  # else the item is in the name of the stage
            for key, value in stage.item_values.items():
                clash = any(reads(params, key) for params in declared)
                add(f"{called[stage.name]}.{key}" if clash else key, stage, value)
    return found, notes


def fetch(project: Project, pipeline: Pipeline, row: Row, names: Sequence[str]) -> list[str]:
    """Fetch those outputs of these members that a row shows or keeps and DVC's cache lacks.

    Returns what cannot be fetched, one line each.
    """
    notes = []
    for name in names:
        for stage in row.parts[name]:
            models = [output.path for _, output in pipeline.models_of(stage)]
            for out in stage.outs:
                if out.size <= SMALL or out.path in models or _is_shown(pipeline, out):
                    notes += project.fetch(out)
    return notes


def content_of(project: Project, pipeline: Pipeline, row: Row, name: str) -> Content:
    """Return what a row gets from the stage with this name in the row."""
    content, called = Content(), labels(row)
    for stage in row.parts[name]:
        label = called[stage.name]
        content.tags |= {f"md5.{out.path}": out.md5 for out in stage.outs}
        for dep in stage.deps:
            if dep.md5 and (dep.makers or dep.is_data):
                content.inputs.append(Input(dep.path, dep.md5, label))
        _read(project, pipeline, stage, label, stage is row.members[name], content)
    for key in [key for key in content.tags if len(key) > LONGEST]:
        content.notes.append(f"tag {key[:60]!r} is too long")
    content.tags = {allowed_key(key): value for key, value in content.tags.items()}
    return content


def _read(
    project: Project,
    pipeline: Pipeline,
    stage: Stage,
    label: str,
    keeps_files: bool,
    content: Content,
) -> None:
    """Add the metrics, curves and files of a stage to a row's content."""
    start, stems = prefix(stage, label), file_prefixes(pipeline, stage)
    metrics: dict[str, float] = {}
    last: dict[str, int] = {}  # where in content.points each curve ends
    for output, file, body in _files(project, pipeline, stage, keeps_files, content):
        plot = pipeline.plot(file.path)
        drawn = plot is not None and _add_curves(plot, file, body, start, stems, content, last)
        if declared := pipeline.metrics_path(output, file.path):
            inner = "" if file.path == declared else f"{base_of(file.path, declared)}/"
            before = f"{start}{stems.get(declared, '')}{inner}"
            _add_metrics(file, body, before, content, metrics)
        small = keeps_files and output.size <= SMALL and len(body) <= SMALL
        is_inside = "://" not in file.path and not file.path.startswith("../")
        if is_inside and (small or (plot and not drawn)):
            content.files[file.path] = body
    for key, value in metrics.items():
        end = content.points[last[key]] if key in last else Point(key, value, 0)
        point = Point(key, value, end.step, is_final=True)
        if key in last and end.value == value:
            content.points[last[key]] = point
        else:
            content.points.append(point)


def _files(
    project: Project, pipeline: Pipeline, stage: Stage, keeps_files: bool, content: Content
) -> Iterator[tuple[Output, File, bytes]]:
    """Yield what a row shows or keeps of a stage's outputs, and note what is not here."""
    for output in stage.outs:
        small = keeps_files and output.size <= SMALL
        files = project.files(output) if small or _is_shown(pipeline, output) else []
        if files is None:
            if _is_shown(pipeline, output):
                content.lacking.append(output.path)
            continue
        for file in files:
            shown = pipeline.plot(file.path) or pipeline.metrics_path(output, file.path)
            if not (small or shown):
                continue
            if file.size > _LARGEST:
                content.notes.append(f"{file.path} has more than 50 MB; it is left out")
            elif (body := project.read(output, file)) is not None:
                yield output, file, body
            elif shown:
                content.lacking.append(file.path)


def _add_curves(
    plot: Plot,
    file: File,
    body: bytes,
    start: str,
    stems: Mapping[str, str],
    content: Content,
    last: dict[str, int],
) -> bool:
    """Add the curves in a file of plots; return whether it has any."""
    text = body.decode("utf-8-sig", errors="replace")
    found = keyed_curves(plot, file.path, text, start, stems)
    for key, curve in found:
        if key in last:
            content.notes.append(f"curve {key!r} of {file.path} is there twice; one is left out")
            continue
        content.points += [Point(key, value, step) for step, value in curve.points]
        last[key] = len(content.points) - 1
    return bool(found)


def _add_metrics(
    file: File, body: bytes, start: str, content: Content, metrics: dict[str, float]
) -> None:
    try:
        found, others = numbers(parse(body.decode("utf-8-sig"), file.path), file.path)
    except ValueError as error:
        content.notes.append(f"metrics {file.path} cannot be read: {error}")
        return
    for key, value in found:
        allowed = allowed_key(f"{start}{key}")
        if allowed in metrics:
            taken = f"the key {allowed!r} is taken; it is left out"
            content.notes.append(f"metric {key!r} of {file.path}: {taken}")
        metrics.setdefault(allowed, value)
        if value in (float("inf"), float("-inf")):
            content.notes.append(
                f"metric {key!r} of {file.path} is infinite; MLflow shows ±1.8e308"
            )
    if others:
        content.notes.append(f"metrics {others[:5]} of {file.path} are not numbers")


def _is_shown(pipeline: Pipeline, output: Output) -> bool:
    """Whether MLflow shows something in an output as metrics, curves or plots."""
    shown = [*pipeline.metrics, *(plot.path for plot in pipeline.plots)]
    return output.metric or any(overlap(path, output.path) for path in shown)

"""What a row holds of a stage: params, metrics, curves, files and data sets, from DVC alone."""

from collections.abc import Collection, Iterator, Sequence

from ..errors import ProjectError, one_line
from ..pipeline.keys import (
    base_of,
    file_prefixes,
    keyed_curves,
    labels,
    named_params,
    prefix,
    reads,
)
from ..pipeline.numbers import Curve, numbers
from ..pipeline.row import Input, Part, Point, RowKey, allowed_key
from ..pipeline.row_stages import RowStages, as_key
from ..pipeline.stages import Output, Pipeline, Stage, leads_out, normal, overlap
from ..project import files
from ..project.dvc_errors import parse
from ..project.files import SMALL, File
from .result import Result
from .served_models import add_models

_LARGEST, _LARGEST_YAML = 50, 5  # MB of a file of plots or metrics that is read
_LONGEST_VALUE = 6000  # characters, in MLflow


def params_of(
    result: Result, names: Collection[RowKey] | None = None, *, only: Stage | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return the params of a result by MLflow's key, and what cannot be recorded of them.

    They are those of these members of the row, by default of all that have a result, or of `only`
    one of their stages. Keys are decided by dvc.yaml, so that no column moves when a value changes.
    """
    row_stages, params, notes = result.row_stages, dict[str, str](), list[str]()
    names, called = [*(result.digests if names is None else names)], labels(row_stages)
    named = named_params(row_stages, names)
    every = [(name, stage, p.values[key]) for name, stage, p, key in named]
    for name, stage, value in (*every, *item_params(row_stages, names)):
        key, whole = allowed_key(name), str(normal(value))
        text = whole[:_LONGEST_VALUE]
        if only not in (None, stage):
            continue
        if params.get(key, text) != text:
            key = allowed_key(f"{called[stage.name]}.{key}")
        if params.setdefault(key, text) != text:
            notes.append(f"param {key!r} has two values; one is left out")
        elif text != whole:
            notes.append(f"param {key!r} has {len(whole)} characters, cut to {_LONGEST_VALUE}")
    return params, notes


def item_params(
    row_stages: RowStages, names: Collection[RowKey]
) -> Iterator[tuple[str, Stage, object]]:
    """Yield the values of a foreach or a matrix that these members are items of, with their keys.

    If the members of a row are several items, the item is in the names of its stages.
    """
    called = labels(row_stages)
    declared = [params for stage in row_stages.scope() for params in stage.params]
    for name in names:
        stage = row_stages.members[name]
        if stage.item and name == as_key(stage.group):
            for key, value in stage.item_values.items():
                clash = any(reads(params, key) for params in declared)
                yield (f"{called[stage.name]}.{key}" if clash else key), stage, value


def fetch(result: Result) -> list[str]:
    """Fetch those files of a result that a row shows or keeps and DVC's cache lacks.

    Returns what cannot be fetched, one line each.
    """
    notes, pipeline = [], result.pipeline
    models = {output.path for _, _, output in result.models()}
    for name in result.digests:
        for out in (out for stage in result.row_stages.parts[name] for out in stage.outs):
            whole = out.size <= SMALL or out.path in models

            def is_wanted(file: File, whole: bool = whole) -> bool:
                return whole or bool(pipeline.plot(file.path) or pipeline.metrics_path(file.path))

            if whole or _is_shown(pipeline, out):
                why = files.fetch_files(result.project, out, is_wanted)
                notes += [why] if why else []
    return notes


def part_of(result: Result, name: RowKey) -> Part:
    """Return what a row gets from the stage with this name in the row."""
    stages, called = result.row_stages.parts[name], labels(result.row_stages)
    part = Part(
        inputs=[
            Input(dep.path, dep.md5, called[stage.name])
            for stage in stages
            for dep in stage.deps
            if dep.md5 and (dep.makers or dep.is_data)
        ]
    )
    for stage in stages:
        label = called[stage.name]
        is_member = stage is result.row_stages.members[name]
        _read(result, stage, label, is_member, part)
    add_models(result, name, part)
    return part


def _read(result: Result, stage: Stage, label: str, keeps_files: bool, part: Part) -> None:
    """Add the metrics, curves and files of a stage to a row's part."""
    pipeline = result.pipeline
    start, stems = prefix(stage, label), file_prefixes(pipeline, stage)
    metrics: dict[str, float] = {}
    last: dict[str, int] = {}  # where in part.points each curve ends
    for output, file, body in _files(result, stage, keeps_files, part):
        plot, drawn = pipeline.plot(file.path), list[tuple[str, Curve]]()
        try:
            with one_line(f"{file.path} cannot be read"):
                if plot is not None:
                    text = body.decode("utf-8-sig", errors="replace")
                    drawn = keyed_curves(plot, file.path, text, start, stems)
                    _add_curves(drawn, file.path, part, last)
                if declared := pipeline.metrics_path(file.path):
                    inner = "" if file.path == declared else f"{base_of(file.path, declared)}/"
                    before = f"{start}{stems.get(declared, '')}{inner}"
                    others = _add_metrics(file, body, before, part, metrics)
                    if others and not pipeline.are_likely:
                        part.notes.append(f"metrics {others[:5]} of {file.path} are not numbers")
        except ProjectError as error:
            part.notes.append(f"{error}")
        small = keeps_files and output.size <= SMALL and len(body) <= SMALL
        if not leads_out(file.path) and (small or (plot and not drawn)):
            part.files[file.path] = body
    for key, value in metrics.items():
        end = part.points[last[key]] if key in last else Point(key, value, 0)
        point = Point(key, value, end.step, is_final=True)
        if key in last and end.value == value:
            part.points[last[key]] = point
        else:
            part.points.append(point)


def _files(
    result: Result, stage: Stage, keeps_files: bool, part: Part
) -> Iterator[tuple[Output, File, bytes]]:
    """Yield what a row shows or keeps of a stage's outputs, and note what is not here."""
    project, pipeline = result.project, result.pipeline
    for output in stage.outs:
        small = keeps_files and output.size <= SMALL
        if files.is_outside(project, output):
            if _is_shown(pipeline, output):
                part.notes.append(f"{output.path} is not in the repository; it is left out")
            continue
        try:
            with one_line(f"{output.path} cannot be read"):
                is_read = small or _is_shown(pipeline, output)
                listed = files.files_of(project, output) if is_read else []
        except ProjectError as error:  # of a list of files that anybody can have written
            part.notes.append(f"{error}")
            continue
        if listed is None:
            if _is_shown(pipeline, output):
                part.unread[output.path] = files.cure_of(project, output)
            continue
        for file in listed:
            shown = bool(pipeline.plot(file.path) or pipeline.metrics_path(file.path))
            if not (small or shown):
                continue
            # DVC's parser of YAML takes five seconds for each MB.
            is_yaml = shown and file.path.endswith((".yaml", ".yml"))
            largest = _LARGEST_YAML if is_yaml else _LARGEST
            if file.size > largest * 1_000_000:
                part.notes.append(f"{file.path} has more than {largest} MB; it is left out")
            elif (body := files.content_of(project, output, file, is_shown=shown)) is not None:
                yield output, file, body
            elif shown:
                part.unread[file.path] = files.cure_of(project, output)


def _add_curves(
    drawn: Sequence[tuple[str, Curve]], path: str, part: Part, last: dict[str, int]
) -> None:
    """Add the curves in a file of plots."""
    for key, curve in drawn:
        if key in last:
            part.notes.append(f"curve {key!r} of {path} is there twice; one is left out")
            continue
        part.points += [Point(key, value, step) for step, value in curve.points]
        last[key] = len(part.points) - 1


def _add_metrics(
    file: File, body: bytes, start: str, part: Part, metrics: dict[str, float]
) -> list[str]:
    """Add the numbers of a file of metrics, and return the keys of what is none."""
    found, others = numbers(parse(body.decode("utf-8-sig"), file.path), file.path)
    for key, value in found:
        allowed = allowed_key(f"{start}{key}")
        if allowed in metrics:
            taken = f"the key {allowed!r} is taken; it is left out"
            part.notes.append(f"metric {key!r} of {file.path}: {taken}")
        metrics.setdefault(allowed, value)
        if value in (float("inf"), float("-inf")):
            part.notes.append(f"metric {key!r} of {file.path} is infinite; MLflow shows ±1.8e308")
    return others


def _is_shown(pipeline: Pipeline, output: Output) -> bool:
    """Whether MLflow shows something in an output as metrics, curves or plots."""
    shown = [*pipeline.metrics, *(plot.path for plot in pipeline.plots)]
    return any(overlap(path, output.path) for path in shown)

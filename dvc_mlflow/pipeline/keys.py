"""What params, metrics and curves are called in a row: decided by dvc.yaml, never by a value."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from .numbers import Curve, curves
from .row import RowKey, allowed_key
from .row_stages import RowStages
from .stages import Params, Pipeline, Plot, Stage, is_table
from .tags import MD5

_OF_DVCLIVE = {"images", "sklearn", "custom"}
"""DVCLive's folders of plots beside `metrics`, which alone has curves."""


def named_params(
    row_stages: RowStages, names: Sequence[RowKey]
) -> Iterator[tuple[str, Stage, Params, str]]:
    """Yield the params of these members: name in the row, stage, params file, key in the file.

    A key of params.yaml is its own name, as is one of what no stage makes. A key of another file
    has the file's stem before it, or the file's path if the stage reads this key from two files. A
    key that two stages read from different files has the stage's name before it.
    """
    called = labels(row_stages)
    declared = [(s, p) for s in row_stages.scope() if s.command for p in (*s.params, *s.variables)]
    for stage, params in (
        (s, p) for s in row_stages.scope(names) for p in (*s.params, *s.variables)
    ):
        others = [(s, p) for s, p in declared if p.file != params.file and stage.command]
        for key in params.values:
            name = f"{_start(params) if stage.command else ''}{key}"
            readers = [s for s, p in others if reads(p, name)]
            if stage in readers:
                name = f"{params.file}.{key}"
            if any(reader is not stage for reader in readers):
                name = f"{called[stage.name]}.{name}"
            yield name, stage, params, key


def keyed_curves(
    plot: Plot, path: str, text: str, start: str, stems: Mapping[str, str]
) -> list[tuple[str, Curve]]:
    """Return the curves in a file of plots with their keys in MLflow.

    `start` is the prefix of the stage's keys; `stems` has a further one for each file or folder.
    """
    can_draw = plot.draws_lines and is_table(path)
    columns = curves(path, text, plot.x, header=plot.header) if can_draw else []
    stem, base, keyed = stems.get(plot.path, ""), base_of(path, plot.path), []
    for curve in columns:
        if path == plot.path:
            inner = "" if stem == f"{curve.column}/" else stem
            key = f"{start}{inner}{curve.column}"
        else:  # in a folder, one file per metric
            one = len(columns) == 1 and posixpath.basename(base) == curve.column
            key = f"{start}{stem}{base}" if one else f"{start}{stem}{base}/{curve.column}"
        keyed.append((allowed_key(key), curve))
    return keyed


def prefix(stage: Stage, label: str) -> str:
    """Return the prefix of the keys of a stage's metrics and curves."""
    return f"{label}/" if stage.settings.prefix is None else stage.settings.prefix


def file_prefixes(pipeline: Pipeline, stage: Stage) -> dict[str, str]:
    """Return the prefix of each file's keys, if a stage has several files of metrics or curves.

    So has each folder of curves, if there are several, such as one for each fold.
    """
    plots = {plot.path for plot in pipeline.plots_of(stage)}
    tables = sorted(path for path in plots if is_table(path))
    folders = sorted(filter(_can_have_curves, plots))
    prefixes: dict[str, str] = {}
    for paths in (sorted(pipeline.metrics_paths(stage)), tables, folders):
        if len(paths) > 1:
            prefixes |= {path: f"{name}/" for path, name in _told_apart(paths).items()}
    return prefixes


def _can_have_curves(path: str) -> bool:
    """Whether a path is that of a folder in which there can be curves."""
    name = posixpath.basename(path)
    return not (posixpath.splitext(name)[1] or name in _OF_DVCLIVE)


def _told_apart(paths: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique name of each path: stem, path without extension, or path."""
    shortest = dict(zip(paths, paths, strict=True))
    for names in ([posixpath.splitext(path)[0] for path in paths], [*map(_stem, paths)]):
        pairs = zip(paths, names, strict=True)
        shortest |= {path: name for path, name in pairs if names.count(name) == 1}
    return shortest


def labels(row_stages: RowStages) -> dict[str, str]:
    """Return the names of a row's stages in keys: without the item, if the row has only one."""
    names: dict[str, str] = {stage.name: key for key, stage in row_stages.members.items()}
    scope = row_stages.scope()
    groups = [stage.group for stage in scope]
    for stage in scope:
        alone = groups.count(stage.group) == 1
        names.setdefault(stage.name, stage.group if alone else stage.label)
    return names


def _start(params: Params) -> str:
    name = posixpath.basename(params.file)
    return "" if name == "params.yaml" else f"{_stem(name)}."


def reads(params: Params, key: str) -> bool:
    """Whether these params include a key, given by its name in MLflow."""
    start = _start(params)
    if not params.declared:
        return key.startswith(start)
    names = [f"{start}{name}" for name in params.declared]
    return any(key == n or key.startswith(f"{n}.") or n.startswith(f"{key}.") for n in names)


def md5_tag(path: str) -> str:
    """Return the tag of a row that has the md5 of an output."""
    return allowed_key(f"{MD5}{path}")


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def base_of(path: str, folder: str) -> str:
    """Return a file's path in a folder, without its extension."""
    return posixpath.splitext(posixpath.relpath(path, folder))[0]


def tells(key: str, value: object) -> bool:
    """Whether a param can tell a person what differs.

    An element of a list that a template has read, such as `datasets.0`, cannot, nor can a list of
    lists or of mappings.
    """
    is_element = any(part.isdigit() for part in key.split("."))
    return not (is_element or f"{value}".startswith(("[[", "[{", "{")))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, or all of it where others end the same."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {k: e if ends.count(e) == 1 else k for k, e in zip(keys, ends, strict=True)}

"""What dvc.yaml and dvc.lock say, as the tool's plain values."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.output import Output as DvcOutput
from dvc.stage import Stage as DvcStage
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

from ..errors import ProjectError, one_line
from ..pipeline.numbers import flatten
from ..pipeline.stages import (
    Dependency,
    Model,
    Output,
    Params,
    Pipeline,
    Plot,
    Settings,
    Stage,
    is_below,
    leads_out,
    overlap,
)
from . import settings
from .dvc_errors import errors_reported, parse
from .files import code_below, content_md5, md5_of, tree_of
from .project import Project


def read_pipeline(project: Project) -> Pipeline:
    """Return the stages with what dvc.lock says of them; raises `ProjectError`."""
    with errors_reported():
        index, problems = project.repo.index, list[str]()
        _check_templates(project)
        dvc_stages = {project.name_of(s): s for s in index.stages if s.cmd}
        project.outs = {project.path_of(out): out for out in index.outs}
        stages = {n: _stage(project, s, index.outs_trie, problems) for n, s in dvc_stages.items()}
        plots = {file: [*_plots_at_top(project, file)] for file in index._plots}
        metrics = {f: [project.beside(f, p) for p in ps] for f, ps in index._metrics.items()}
        models: dict[str, list[Model]] = {}
        for file, artifacts in index._artifacts.items():
            name = project.relative(file)
            models[file], wrong = settings.models_in(artifacts, name, project.folder)
            problems += wrong
        made = [out.path for stage in stages.values() for out in stage.outs]
        for file in dict.fromkeys([*metrics, *plots]):
            shown = [*metrics.get(file, ()), *(plot.path for plot in plots.get(file, ()))]
            paths = [p for p in shown if not any(overlap(p, out) for out in made)]
            own_models = [m.path for m in models.get(file, ()) if m.path not in made]
            owners = {n: stages[n] for n, s in dvc_stages.items() if s.path == file}
            # In DVCLive's own dvc.yaml is no stage: then those that make some of it.
            owners = owners or {n: stages[n] for n in dvc_stages if _makes(stages[n], shown)}
            read = {m for stage in owners.values() for dep in stage.deps for m in dep.makers}
            last = [name for name in owners if name not in read]
            if paths and (rest := _unmade(project, file, paths, own_models, last)):
                stages[rest.name] = rest
        outs = [out.path for stage in stages.values() for out in stage.outs]
        problems += [
            f"metrics: {path!r} is not there, and no stage makes it"
            for path in sorted({*chain(*metrics.values())})
            if not any(overlap(path, out) for out in outs)
        ]
        problems += [
            f"artifacts: {model.path!r} is not an output of a stage"
            for model in chain(*models.values())
            if model.loader_module and model.path not in outs
        ]
        own_plots = [_plot(path, out.plot) for path, out in project.outs.items() if out.plot]
        own_metrics = [path for path, out in project.outs.items() if out.metric]
        makers = {n: {m for d in stages[n].deps for m in d.makers} for n in sorted(stages)}
        order = TopologicalSorter({n: sorted(own) for n, own in makers.items()}).static_order()
        return Pipeline(
            project.folder,
            {name: stages[name] for name in order},
            frozenset(chain(own_metrics, *metrics.values())),
            (*own_plots, *chain(*plots.values())),
            (*chain(*models.values()),),
            problems,
        )


def dvc_stage(project: Project, name: str) -> Any:
    """Return DVC's own object of a stage with a command, or None for what no stage makes."""
    found = (s for s in project.repo.index.stages if s.cmd and project.name_of(s) == name)
    return next(found, None)


def stages_with_locks(project: Project) -> Iterator[tuple[Any, str]]:
    """Yield DVC's stages in a dvc.yaml, each with the path of its lock."""
    for stage in project.repo.index.stages:
        if stage.cmd and hasattr(stage, "name"):
            yield stage, lock_of(project, stage)


def lock_of(project: Project, stage: Any) -> str:
    """Return the path of the lock beside the dvc.yaml of one of DVC's stages."""
    return f"{posixpath.splitext(project.relative(stage.path))[0]}.lock"


def locked_entry(project: Project, stage: Any) -> Any:
    """Return what dvc.lock has of one of DVC's stages, or None."""
    lock = lock_of(project, stage)
    return stages_in(project.text(lock) or "", lock).get(stage.name)


@lru_cache(64)
def stages_in(text: str, lock: str = "dvc.lock") -> dict[str, Any]:
    """Return the stages in a lock; raises `ProjectError`. Nobody may change what is returned."""
    with one_line(lock):
        content = parse(text, lock) or {}
        return dict(content.get("stages") or {})


def template_files(project: Project) -> Iterator[Path]:
    """Yield the files whose values dvc.yaml can insert, whether they exist or not."""
    for stage in project.repo.index.stages:
        if hasattr(stage, "name"):
            folder, file = Path(stage.path).parent, project.dvc_file(stage.path)
            definition = file.contents["stages"][stage.raw_data.generated_from or stage.name]
            stage_vars = definition.get("do", definition).get("vars", [])
            yield folder / "params.yaml"
            for entry in (*file.contents.get("vars", []), *stage_vars):
                if isinstance(entry, str):
                    path = entry.partition(":")[0]
                    yield from (folder / path, Path(stage.wdir, path))


def _check_templates(project: Project) -> None:
    """Raise `ProjectError` if dvc.yaml can insert values of a file outside the repository."""
    for path in () if project.commit else {*template_files(project)}:
        if path.exists() and not project.is_inside(path):
            name = project.relative(f"{path}")
            raise ProjectError(f"dvc.yaml: {name} is outside the repository, so it is not read")


def _stage(project: Project, stage: Any, trie: Any, problems: list[str]) -> Stage:
    folder = posixpath.dirname(project.relative(stage.path))
    own_name = getattr(stage, "name", None) or Path(stage.path).stem
    group = getattr(stage.raw_data, "generated_from", None) if hasattr(stage, "name") else None
    item = own_name[len(group) + 1 :] if group else ""
    every = [_output(project, out) for out in stage.outs]
    # An output that dvc.yaml has gained since the stage ran is not part of its result.
    outs = [out for out in every if out.md5] or every
    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    wanted = _settings(project, stage, group or own_name, problems)
    return Stage(
        name=project.name_of(stage),
        group=posixpath.join(folder, group or own_name),
        item=item,
        command=stage.cmd if isinstance(stage.cmd, str) else "\n".join(map(str, stage.cmd)),
        frozen=bool(stage.frozen),
        has_result=_is_locked(project, stage, outs),
        params=tuple(_params_of(project, dep) for dep in params),
        item_values=_item_values(project, stage, group, item) if group else {},
        deps=tuple(
            _dependency(project, dep, trie, wanted.data) for dep in stage.deps if dep not in params
        ),
        outs=tuple(outs),
        settings=wanted,
        variables=_variables(project, stage, {project.path_of(dep) for dep in params}),
    )


def _variables(project: Project, stage: Any, read: set[str]) -> tuple[Params, ...]:
    """Return the values in a stage's command, except from the params files that it `read`s.

    dvc.lock has only the command: while that is the same as in dvc.yaml, so are the values.
    """
    is_same = not getattr(stage, "cmd_changed", False)
    tracked = getattr(stage, "tracked_vars", {}) if is_same else {}
    found = ((project.relative(project.repo.fs.abspath(f)), tracked[f]) for f in tracked)
    return tuple(Params(path, tuple(v), flatten(v)) for path, v in found if path not in read)


def _output(project: Project, out: Any) -> Output:
    size = (out.meta and out.meta.size) or 0
    return Output(project.path_of(out), md5_of(out), size, bool(out.use_cache))


def _settings(project: Project, stage: Any, name: str, problems: list[str]) -> Settings:
    """Return a stage's `meta.mlflow`, and report what is wrong with it, once for all items."""
    where = f"{project.relative(stage.path)}: stages.{name}"
    wdir = project.relative(stage.wdir)
    declared, wrong = settings.settings_of(stage.meta, where, wdir, project.folder)
    read = [project.path_of(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    for path in declared.data:
        if not any(is_below(path, dep) for dep in read):
            wrong.append(f"{where}.meta.mlflow.data: {path!r} is not a dep of the stage")
    problems += [line for line in wrong if line not in problems]
    return declared


def _is_locked(project: Project, stage: Any, outs: Sequence[Output]) -> bool:
    """Whether dvc.lock has a stage, with some of the outputs that dvc.yaml declares."""
    if outs:  # DVC has read their md5s from there
        return any(out.md5 for out in outs)
    if not hasattr(stage, "name"):  # a .dvc file is its own lock
        return True
    return locked_entry(project, stage) is not None


def _item_values(project: Project, stage: Any, group: str, item: str) -> dict[str, Any]:
    value = project.dvc_file(stage.path).resolver.definitions[group].normalized_iterable[item]
    value = getattr(value, "value", value)
    found = flatten({"item": dict(value) if isinstance(value, Mapping) else value})
    # DVC names an item by its number in a list of mappings, and by its key in a mapping.
    return found if [*map(str, found.values())] == [item] else {"key": item, **found}


def _params_of(project: Project, dep: Any) -> Params:
    path = project.path_of(dep)
    with one_line(f"params {path}"):
        return Params(path, tuple(dep.params), flatten(dep.hash_info.value or {}))


def _dependency(project: Project, dep: Any, trie: Any, data: Sequence[str]) -> Dependency:
    path, md5 = project.path_of(dep), md5_of(dep)
    if leads_out(path):
        return Dependency(path, md5)
    key = dep.fs.parts(dep.fs_path)
    outs = [node.value for node in trie.prefixes(key)]
    outs += trie.values(prefix=key) if trie.has_subtrie(key) else []
    # The files of a frozen stage that never ran come from elsewhere, as with a .dvc file.
    made = [o for o in outs if o.stage.cmd and (o.hash_info or not o.stage.frozen)]
    return Dependency(
        path,
        md5,
        tuple(dict.fromkeys(project.name_of(out.stage) for out in made)),
        any(_is_outdated(project, dep, md5, out) for out in made),
        (bool(outs) and not made) or any(is_below(each, path) for each in data),
    )


def _is_outdated(project: Project, dep: Any, md5: str, out: Any) -> bool:
    """Whether an output in dvc.lock is known to differ from what a dependency has read."""
    if not out.hash_info:
        return True
    if dep.fs_path == out.fs_path:
        return bool(md5 != out.hash_info.value)
    if not dep.fs.isin(dep.fs_path, out.fs_path) or (tree := tree_of(project, out)) is None:
        return False  # a folder with outputs in it, or a list that is not here
    part = tree.get_obj(out.local_cache, dep.fs.relparts(dep.fs_path, out.fs_path))
    return part is None or bool(part.hash_info.value != md5)


def _makes(stage: Stage, paths: Sequence[str]) -> bool:
    """Whether a stage makes one of these paths, a part of it or what holds it."""
    return any(overlap(out.path, path) for out in stage.outs for path in paths)


def _plots_at_top(project: Project, file: str) -> Iterator[Plot]:
    """Yield the plots at the top of a dvc.yaml."""
    for entry in project.repo.index._plots.get(file, ()):
        for name, props in (entry if isinstance(entry, Mapping) else {entry: {}}).items():
            y, x = (props or {}).get("y"), (props or {}).get("x")
            for path in y if isinstance(y, Mapping) else [name]:
                axis = x.get(path) if isinstance(x, Mapping) else x
                yield _plot(project.beside(file, path), {**(props or {}), "x": axis})


def _plot(path: str, declared: object) -> Plot:
    """Return a plot as it is declared: with settings, or as `true`."""
    props = declared if isinstance(declared, Mapping) else {}
    x, template = (str(props.get(key) or "") for key in ("x", "template"))
    return Plot(path, x, template, bool(props.get("header", True)))


def _unmade(
    project: Project, file: str, paths: Sequence[str], models: Sequence[str], last: Sequence[str]
) -> Stage | None:
    """Return what one dvc.yaml declares and no stage makes; what git has of it joins `outs`.

    `paths` are those of its metrics and plots, and `models` of its models. It belongs to the `last`
    stages of the file, as if these had made it. Return None if there is nothing of it.
    """
    name, every = project.relative(file), (*paths, *models)
    tracked = {
        p: o for p, o in project.outs.items() if o.hash_info and any(overlap(p, e) for e in every)
    }
    kept, holder = [], DvcStage(project.repo, path=file, wdir=project.repo.fs.parent(file))
    files = {path: body for each in paths for path, body in code_below(project, each).items()}
    for path, body in sorted(files.items()):
        if not any(overlap(path, other) for other in tracked):
            own = posixpath.relpath(path, posixpath.dirname(name) or ".")
            out = DvcOutput(holder, own, cache=False)
            out.hash_info = HashInfo(out.hash_name, content_md5(body))
            out.meta = Meta(size=len(body))
            kept.append(out)
    if not (kept or any(overlap(path, own) for path in tracked for own in paths)):
        return None
    project.outs |= {project.path_of(out): out for out in kept}
    outs = [_output(project, out) for out in (*kept, *tracked.values())]
    deps = [Dependency("", "", (stage,)) for stage in last]
    params = [*_params_at_top(project, file)]
    return Stage(name, name, "", "", False, True, params, {}, deps, outs, Settings(prefix=""))


def _params_at_top(project: Project, file: str) -> Iterator[Params]:
    for own in project.repo.index._params.get(file, ()):
        path = project.beside(file, str(own))
        if (text := project.text(path)) is not None:
            with one_line(f"params {path}"):
                yield Params(path, (), flatten(parse(text, path) or {}))

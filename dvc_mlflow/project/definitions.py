"""What dvc.yaml and dvc.lock say, as plain values."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.dvcfile import load_file

from .. import settings
from ..errors import ProjectError
from ..pipeline import Dependency, Output, Params, Pipeline, Plot, Stage, is_below, overlap
from ..tables import flatten
from .files import Files
from .opened import errors_reported


class Definitions(Files):
    """A project's stages."""

    def pipeline(self) -> Pipeline:
        """Return the stages with what dvc.lock says of them; raises `ProjectError`."""
        with errors_reported():
            index = self._repo.index
            found = [s for s in index.stages if s.cmd]
            trie = index.outs_trie
            self._outs = {self._path(out): out for out in index.outs}
            problems: list[str] = []
            stages = {s.name: s for s in (self._stage(each, trie, problems) for each in found)}
            makers = {name: stages[name].deps for name in sorted(stages)}
            graph = {n: sorted({m for d in deps for m in d.makers}) for n, deps in makers.items()}
            metrics = {
                self._beside(file, path) for file, ps in index._metrics.items() for path in ps
            }
            problems += [
                f"metrics: {path!r} is not an output of a stage"
                for path in sorted(metrics)
                if not any(overlap(path, self._path(out)) for s in found for out in s.outs)
            ]
            plots = [p for s in found for o in s.outs if o.plot for p in [self._own_plot(o)]]
            for file, entries in index._plots.items():
                plots += self._top_level_plots(file, entries)
            models = []
            for file, artifacts in index._artifacts.items():
                name = self._relative(file)
                own, wrong = settings.read_artifacts(
                    artifacts, name, posixpath.dirname(name), self.folder
                )
                models += own
                problems += wrong
            ordered = {name: stages[name] for name in TopologicalSorter(graph).static_order()}
        for model in models:
            if model.loader_module and not any(
                model.path == out.path for stage in stages.values() for out in stage.outs
            ):
                problems.append(f"artifacts: {model.path!r} is not an output of a stage")
        return Pipeline(
            self.folder,
            ordered,
            frozenset(metrics),
            tuple(plots),
            tuple(models),
            tuple(problems),
        )

    def _stage(self, stage: Any, trie: Any, problems: list[str]) -> Stage:
        folder = posixpath.dirname(self._relative(stage.path))
        own = getattr(stage, "name", None) or Path(stage.path).stem
        group = getattr(stage.raw_data, "generated_from", None) if hasattr(stage, "name") else None
        item = own[len(group) + 1 :] if group else ""
        name, label = (posixpath.join(folder, part) for part in (own, group or own))
        outs = [self._output(out) for out in stage.outs]
        wdir = self._relative(stage.wdir)
        results = [out for out in stage.outs if not (out.metric or out.plot) and out.is_in_repo]
        where = f"{self._relative(stage.path)}: stages.{group or own}"
        paths = [*map(self._path, results)]
        wanted, wrong = settings.read(stage.meta, where, wdir, paths, self.folder)
        params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        others = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        deps = tuple(self._dependency(dep, trie, wanted.data) for dep in others)
        for path in wanted.data:
            if not any(is_below(path, dep.path) for dep in deps):
                wrong.append(f"{where}.meta.mlflow.data: {path!r} is not a dep of the stage")
        problems += [line for line in wrong if line not in problems]
        command = stage.cmd if isinstance(stage.cmd, str) else "\n".join(map(str, stage.cmd))
        return Stage(
            name,
            label,
            item,
            command,
            bool(stage.frozen),
            self._is_locked(stage, outs),
            tuple(self._params(dep) for dep in params),
            self._item_values(stage, group, item) if group else {},
            deps,
            tuple(outs),
            wanted,
            self._variables(stage, {self._path(dep) for dep in params}),
        )

    def _variables(self, stage: Any, read: set[str]) -> tuple[Params, ...]:
        """Return the values in a stage's command, except from the params files that it `read`s.

        dvc.lock has only the command: while that is the same as in dvc.yaml, so are the values.
        """
        if getattr(stage, "cmd_changed", False):
            return ()
        found = []
        for file, values in getattr(stage, "tracked_vars", {}).items():
            path = self._relative(self._repo.fs.abspath(file))
            if path not in read:
                found.append(Params(path, tuple(values), flatten(values)))
        return tuple(found)

    def _is_locked(self, stage: Any, outs: Sequence[Output]) -> bool:
        """Whether dvc.lock has a stage, with all its outputs."""
        if outs:  # DVC has read their md5s from there
            return all(out.md5 for out in outs)
        if self._has_finished and stage is self._running:
            return True
        if not hasattr(stage, "name"):  # a .dvc file is its own lock
            return True
        if self._locks is not None:
            lock = f"{posixpath.splitext(self._relative(stage.path))[0]}.lock"
            return stage.name in self._locks.get(lock, {})
        locked = self._file(stage.path).lockfile_contents
        return stage.name in (locked or {}).get("stages", {})

    def _file(self, path: str) -> Any:
        if path not in self._files:
            self._files[path] = load_file(self._repo, path)
        return self._files[path]

    def _item_values(self, stage: Any, group: str, item: str) -> dict[str, Any]:
        definition = self._file(stage.path).resolver.definitions[group]
        value = definition.normalized_iterable[item]
        value = getattr(value, "value", value)
        is_mapping = isinstance(value, Mapping)
        found = flatten({"item": dict(value) if is_mapping else value})
        # DVC names an item by its number in a list of mappings, and by its key in a mapping.
        return found if [*map(str, found.values())] == [item] else {"key": item, **found}

    def _params(self, dep: Any) -> Params:
        path = self._path(dep)
        try:
            return Params(path, tuple(dep.params), flatten(dep.hash_info.value or {}))
        except ValueError as error:
            raise ProjectError(f"params {path}: {error}") from None

    def _output(self, out: Any) -> Output:
        value = out.hash_info.value if out.hash_info else None
        size = (out.meta and out.meta.size) or 0
        return Output(
            self._path(out),
            value if isinstance(value, str) else "",
            size,
            bool(out.use_cache),
            bool(out.metric),
        )

    def _dependency(self, dep: Any, trie: Any, data: Sequence[str]) -> Dependency:
        path = self._path(dep)
        md5 = dep.hash_info.value if dep.hash_info else None
        md5 = md5 if isinstance(md5, str) else ""
        if not (dep.fs.protocol == "local" and dep.fs.isin(dep.fs_path, self._repo.root_dir)) and (
            not dep.is_in_repo
        ):
            return Dependency(path, md5, is_outside=True)
        key = dep.fs.parts(dep.fs_path)
        outs = [node.value for node in trie.prefixes(key)]
        outs += trie.values(prefix=key) if trie.has_subtrie(key) else []
        # The files of a frozen stage that never ran come from elsewhere, as with a .dvc file.
        made = [o for o in outs if o.stage.cmd and (o.hash_info or not o.stage.frozen)]
        return Dependency(
            path,
            md5,
            tuple(dict.fromkeys(self._name(out.stage) for out in made)),
            any(self._is_outdated(dep, md5, out) for out in made),
            (bool(outs) and not made) or any(is_below(each, path) for each in data),
        )

    def _is_outdated(self, dep: Any, md5: str, out: Any) -> bool:
        """Whether an output in dvc.lock is known to differ from what a dependency has read."""
        if not out.hash_info:
            return True
        if dep.fs_path == out.fs_path:
            return bool(md5 != out.hash_info.value)
        if not dep.fs.isin(dep.fs_path, out.fs_path) or (tree := self._tree(out)) is None:
            return False  # a folder with outputs in it, or a list that is not here
        part = tree.get_obj(out.local_cache, dep.fs.relparts(dep.fs_path, out.fs_path))
        return part is None or bool(part.hash_info.value != md5)

    def _own_plot(self, out: Any) -> Plot:
        given = out.plot if isinstance(out.plot, Mapping) else {}
        return _plot(self._path(out), given.get("x"), given)

    def _top_level_plots(self, file: str, entries: Sequence[Any]) -> Iterator[Plot]:
        for entry in entries:
            for name, given in (entry if isinstance(entry, Mapping) else {entry: {}}).items():
                y, x = (given or {}).get("y"), (given or {}).get("x")
                for path in y if isinstance(y, Mapping) else [name]:
                    axis = x.get(path) if isinstance(x, Mapping) else x
                    yield _plot(self._beside(file, path), axis, given or {})


def _plot(path: str, x: object, given: Mapping[str, Any]) -> Plot:
    template, header = str(given.get("template") or ""), given.get("header", True)
    return Plot(path, str(x or ""), template, bool(header))

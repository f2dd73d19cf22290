"""What dvc.yaml and dvc.lock say, as plain values."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc.dvcfile import load_file

from ..errors import ProjectError
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
from .dvc_repo import errors_reported
from .files import Files, md5_of
from .unmade_files import Unmade, of_file


class _Declared(NamedTuple):
    """What dvc.yaml says, whatever is in dvc.lock."""

    index: Any
    """DVC's, from which it was read."""
    found: Mapping[str, Any]
    """DVC's stages with a command, by name."""
    metrics: frozenset[str]
    plots: Sequence[Plot]
    models: Sequence[Model]
    problems: Sequence[str]
    unmade: Mapping[str, Unmade]
    """What no stage makes, by the name of the stage as which it is read."""


class Definitions(Files):
    """A project's stages."""

    def __init__(self, settings_of: Path | None = None, at: Path | None = None) -> None:
        super().__init__(settings_of, at)
        self._declared: _Declared | None = None
        self._stages: dict[str, Stage] = {}
        self._makers: dict[str, list[str]] = {}
        self._order: list[str] = []
        self._decided: dict[Any, Any] = {}

    def pipeline(self) -> Pipeline:
        """Return the stages with what dvc.lock says of them; raises `ProjectError`.

        Only stages whose entries have changed are read again.
        """
        with errors_reported():
            declared, trie = self._declared_now(), self._repo.index.outs_trie
            for name, each in declared.found.items():
                if name not in self._stages:
                    self._stages[name] = self._stage(each, trie, [])
            stages = {**self._stages, **{n: each.stage for n, each in declared.unmade.items()}}
            makers = {
                name: sorted({m for dep in stages[name].deps for m in dep.makers})
                for name in sorted(stages)
            }
            if makers != self._makers:
                self._makers, self._decided = makers, {}
                self._order = [*TopologicalSorter(makers).static_order()]
        return Pipeline(
            self.folder,
            {name: stages[name] for name in self._order},
            declared.metrics,
            declared.plots,
            declared.models,
            declared.problems,
            self._decided,
        )

    def _forget(self, stage: Any) -> None:
        """Read a stage, and those that read what it writes, again."""
        self._stages.pop(self._name(stage), None)  # it can be gone as a reader of another
        outs = [self._path(out) for out in stage.outs]
        for name, other in [*self._stages.items()]:
            if any(overlap(dep.path, out) for dep in other.deps for out in outs):
                del self._stages[name]

    def _dvc_stage(self, name: str) -> Any:
        """Return DVC's own object of a stage with a command, or None for what no stage makes."""
        return self._declared_now().found.get(name)

    def _unmade_outs(self) -> list[Any]:
        """Return DVC's objects for the files in git that no stage makes."""
        unmade = self._declared_now().unmade
        return [out for each in unmade.values() for out in each.kept_by_git]

    def _declared_now(self) -> _Declared:
        if self._declared is None or self._declared.index is not self._repo.index:
            self._declared = self._declare()
        return self._declared

    def _declare(self) -> _Declared:
        index = self._repo.index
        self._check_templates()
        found = {self._name(s): s for s in index.stages if s.cmd}
        trie = index.outs_trie
        self._outs = {self._path(out): out for out in index.outs}
        self._makers, self._order, self._decided = {}, [], {}
        problems: list[str] = []
        self._stages = {n: self._stage(s, trie, problems) for n, s in found.items()}
        outs = [self._path(out) for stage in found.values() for out in stage.outs]
        at_top = {file: [*_plots_at_top(self, file)] for file in index._plots}
        metrics = {
            file: [self._beside(file, path) for path in paths]
            for file, paths in index._metrics.items()
        }
        models: dict[str, list[Model]] = {}
        for file, artifacts in index._artifacts.items():
            name = self._relative(file)
            models[file], wrong = settings.read_artifacts(
                artifacts, name, posixpath.dirname(name), self.folder
            )
            problems += wrong
        unmade = {}
        for file in dict.fromkeys([*metrics, *at_top]):
            shown = [*metrics.get(file, ()), *(plot.path for plot in at_top.get(file, ()))]
            own_models = [model.path for model in models.get(file, ())]
            last = self._last_stages([n for n, s in found.items() if s.path == file])
            if each := of_file(self, file, shown, own_models, outs, last):
                unmade[each.stage.name] = each
                self._outs |= {self._path(out): out for out in each.kept_by_git}
        outs += [out.path for each in unmade.values() for out in each.stage.outs]
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
        own_plots = [_plot_of(self, o) for s in found.values() for o in s.outs if o.plot]
        return _Declared(
            index,
            found,
            frozenset(chain(*metrics.values())),
            (*own_plots, *chain(*at_top.values())),
            (*chain(*models.values()),),
            tuple(problems),
            unmade,
        )

    def _last_stages(self, names: Sequence[str]) -> list[str]:
        """Return those of these stages that none of them reads from."""
        read = {maker for name in names for dep in self._stages[name].deps for maker in dep.makers}
        return [name for name in names if name not in read]

    def _template_files(self) -> Iterator[Path]:
        """Yield the files whose values dvc.yaml can insert, whether they exist or not."""
        for stage in self._repo.index.stages:
            if hasattr(stage, "name"):
                folder, file = Path(stage.path).parent, self._file(stage.path)
                definition = file.contents["stages"][stage.raw_data.generated_from or stage.name]
                own = definition.get("do", definition).get("vars", [])
                yield folder / "params.yaml"
                for given in (*file.contents.get("vars", []), *own):
                    if isinstance(given, str):
                        path = given.partition(":")[0]
                        yield from (folder / path, Path(stage.wdir, path))

    def _check_templates(self) -> None:
        """Raise `ProjectError` if dvc.yaml can insert values of a file outside the repository."""
        for path in () if self._commit else dict.fromkeys(self._template_files()):
            if path.exists() and not self.is_inside(path):
                name = self._relative(f"{path}")
                raise ProjectError(f"dvc.yaml: {name} is outside the repository, so it is not read")

    def _stage(self, stage: Any, trie: Any, problems: list[str]) -> Stage:
        folder = posixpath.dirname(self._relative(stage.path))
        own = getattr(stage, "name", None) or Path(stage.path).stem
        group = getattr(stage.raw_data, "generated_from", None) if hasattr(stage, "name") else None
        item = own[len(group) + 1 :] if group else ""
        name, label = (posixpath.join(folder, part) for part in (own, group or own))
        every = [self._output(out) for out in stage.outs]
        # An output that dvc.yaml has gained since the stage ran is not part of its result.
        outs = [out for out in every if out.md5] or every
        params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        wanted = self._settings(stage, group or own, problems)
        return Stage(
            name=name,
            group=label,
            item=item,
            command=stage.cmd if isinstance(stage.cmd, str) else "\n".join(map(str, stage.cmd)),
            frozen=bool(stage.frozen),
            has_result=self._is_locked(stage, outs),
            params=tuple(self._params(dep) for dep in params),
            item_values=self._item_values(stage, group, item) if group else {},
            deps=tuple(
                self._dependency(dep, trie, wanted.data) for dep in stage.deps if dep not in params
            ),
            outs=tuple(outs),
            settings=wanted,
            variables=self._variables(stage, {self._path(dep) for dep in params}),
        )

    def _settings(self, stage: Any, own: str, problems: list[str]) -> Settings:
        """Return a stage's `meta.mlflow`, and report what is wrong with it, once for all items."""
        where = f"{self._relative(stage.path)}: stages.{own}"
        wdir = self._relative(stage.wdir)
        found, wrong = settings.read(stage.meta, where, wdir, self.folder)
        read = [self._path(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        for path in found.data:
            if not any(is_below(path, dep) for dep in read):
                wrong.append(f"{where}.meta.mlflow.data: {path!r} is not a dep of the stage")
        problems += [line for line in wrong if line not in problems]
        return found

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
        """Whether dvc.lock has a stage, with some of the outputs that dvc.yaml declares."""
        if outs:  # DVC has read their md5s from there
            return any(out.md5 for out in outs)
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
        if not hasattr(stage, "item_values"):  # it is the same object in many commits
            stage.item_values = self._read_item_values(stage, group, item)
        return dict(stage.item_values)

    def _read_item_values(self, stage: Any, group: str, item: str) -> dict[str, Any]:
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

    def _dependency(self, dep: Any, trie: Any, data: Sequence[str]) -> Dependency:
        path = self._path(dep)
        md5 = md5_of(dep)
        if leads_out(path):
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


def _plot_of(project: Definitions, out: Any) -> Plot:
    """Return the plot that an output of a stage is declared as."""
    given = out.plot if isinstance(out.plot, Mapping) else {}
    return _plot(project._path(out), given.get("x"), given)


def _plots_at_top(project: Definitions, file: str) -> Iterator[Plot]:
    """Yield the plots at the top of a dvc.yaml."""
    for entry in project._repo.index._plots.get(file, ()):
        for name, given in (entry if isinstance(entry, Mapping) else {entry: {}}).items():
            y, x = (given or {}).get("y"), (given or {}).get("x")
            for path in y if isinstance(y, Mapping) else [name]:
                axis = x.get(path) if isinstance(x, Mapping) else x
                yield _plot(project._beside(file, path), axis, given or {})


def _plot(path: str, x: object, given: Mapping[str, Any]) -> Plot:
    template, header = str(given.get("template") or ""), given.get("header", True)
    return Plot(path, str(x or ""), template, bool(header))

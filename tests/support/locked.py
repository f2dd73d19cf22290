"""DVC projects as `dvc repro` leaves them, written without DVC, and what a row gets from them.

To make one and to read it takes milliseconds, so a rule of the tool is tested on values. The tool's
own functions are called here only, so a test names none of them.
"""

import hashlib
import itertools
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.serialize import PARSERS

from dvc_mlflow.pipeline.row import StoredRun, match
from dvc_mlflow.pipeline.tags import DATA
from dvc_mlflow.project.project import Project
from dvc_mlflow.rows.result import Result, chosen_columns, experiment_of, read_state
from dvc_mlflow.rows.row_of import row_of
from support.pipelines import PARAMS, Repository, Stages

IGNORED = """\
# Add patterns of files dvc should ignore, which could improve
# the performance. Learn more at
# https://dvc.org/doc/user-guide/dvcignore
"""
INITIAL = {
    ".dvc/config": "",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvcignore": IGNORED,
}
"""What `dvc init` writes."""
GIT = {
    ".git/HEAD": "ref: refs/heads/main\n",
    ".git/config": "[core]\n\trepositoryformatversion = 0\n",
}
"""What `git init` has to write, beside two empty folders."""
NO_GIT = {".dvc/config": "[core]\n    no_scm = True\n"}
"""What `dvc init --no-scm` writes otherwise."""


class Locked(Repository):
    """A repository with a DVC project in which stages have run, though DVC never has."""

    def ran(self, *names: str) -> None:
        """Write dvc.lock as if these stages, by default all, had run and left the files as now.

        The dvc.yaml here and in folders are JSON; `foreach` and `matrix` are expanded, with values
        of the item and of params.yaml. DVC's cache and .gitignore get the outputs.
        """
        for file in [*self.path.glob("dvc.yaml"), *sorted(self.path.glob("*/dvc.yaml"))]:
            folder = file.parent.relative_to(self.path).as_posix()
            lock = file.with_suffix(".lock")
            text = lock.read_text() if lock.exists() else "stages: {}"
            known = yaml.load(text, yaml.CSafeLoader)["stages"]
            stages = json.loads(file.read_text()).get("stages", {})
            for name, stage in _expanded(stages, self._params(f"{folder}/params.yaml")):
                if not names or posixpath.normpath(posixpath.join(folder, name)) in names:
                    known[name] = self._entry(posixpath.join(folder, stage.get("wdir", ".")), stage)
            if known:
                found = {"schema": "2.0", "stages": known}
                text = yaml.dump(found, None, yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
                lock.write_text(text)

    def again(
        self, files: Mapping[str, str] = {}, params: Mapping[str, Any] = {}, *names: str
    ) -> None:
        """Run these stages, by default all, once more: with these params they write these files."""
        self.set(params)
        self.write(files)
        self.ran(*names)

    def track(self, path: str) -> None:
        """Write the .dvc file of an input and keep its content, as `dvc add` does."""
        found = self._hashed(".", path)
        self._keep(path)
        lines = [
            f"{key}: {found[key]}" for key in ("md5", "size", "nfiles", "hash") if key in found
        ]
        text = "\n  ".join([*lines, f"path: {posixpath.basename(path)}"])
        self.write({f"{path}.dvc": f"outs:\n- {text}\n"})

    def _entry(self, wdir: str, stage: Mapping[str, Any]) -> dict[str, Any]:
        """Return what dvc.lock says of a stage with this working directory."""
        outs: dict[str, Any] = {}
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, ()):
                outs |= out if isinstance(out, Mapping) else {out: {}}
        for path, given in outs.items():
            if given.get("cache", True):
                self._keep(posixpath.join(wdir, path))
        found = {
            "cmd": stage["cmd"],
            "deps": [self._hashed(wdir, path) for path in sorted(stage.get("deps", ()))],
            "params": self._read(wdir, stage.get("params", ())),
            "outs": [self._hashed(wdir, path) for path in sorted(outs)],
        }
        return {key: value for key, value in found.items() if value}

    def _hashed(self, wdir: str, path: str) -> dict[str, Any]:
        """Return the entry of a file or a folder, relative to a working directory."""
        place = self.path / wdir / path
        found: dict[str, Any] = {"path": path, "hash": "md5"}
        if place.is_dir():
            files = _files(place)
            sizes = [file.stat().st_size for file in files.values()]
            listed = _list(files)
            return found | {"md5": f"{_md5(listed)}.dir", "size": sum(sizes), "nfiles": len(sizes)}
        found |= {"md5": _md5(place.read_bytes()), "size": place.stat().st_size}
        return found | ({"isexec": True} if place.stat().st_mode & 0o100 else {})

    def _keep(self, path: str) -> None:
        """Copy an output or an input into DVC's cache, and let git ignore it."""
        place = self.path / path
        files = _files(place) if place.is_dir() else {"": place}
        kept = {_md5(file.read_bytes()): file.read_bytes() for file in files.values()}
        if place.is_dir():
            listed = _list(files)
            kept[f"{_md5(listed)}.dir"] = listed
        for md5, content in kept.items():
            file = self.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        ignore, line = place.parent / ".gitignore", f"/{place.name}"
        text = ignore.read_text() if ignore.exists() else ""
        if line not in text.splitlines():
            ignore.write_text(f"{text}{line}\n")

    def _params(self, path: str) -> dict[str, Any]:
        """Return the content of a params file as DVC reads it, or {} if there is none."""
        file = self.path / path
        return _parsed(file.read_text(), file.suffix) if file.exists() else {}

    def _read(self, wdir: str, declared: Iterable[Any]) -> dict[str, dict[str, Any]]:
        """Return the values of a stage's params by file: params.yaml first, keys in order."""
        keys: dict[str, list[str]] = {}
        for each in declared:
            given = each if isinstance(each, Mapping) else {"params.yaml": [each]}
            for file, own in given.items():
                keys.setdefault(file, []).extend(own or ())
        found = {}
        for file in sorted(keys, key=lambda file: (file != "params.yaml", file)):
            values = self._params(f"{wdir}/{file}")
            own = {key: _value(values, key) for key in keys[file]} or values
            found[file] = {key: own[key] for key in sorted(own)}
        return found


def locked(
    path: Path,
    stages: Stages,
    params: Mapping[str, Any] = PARAMS,
    files: Mapping[str, str] = {},
    *,
    only: Sequence[str] = (),
    tracked: Sequence[str] = (),
    git: bool = True,
    **top: Any,
) -> Locked:
    """Make a project in which these stages have run, or `only` some; `top` is the rest of dvc.yaml.

    `files` are what stages read and what they have written; `tracked` have a .dvc file. With `git`,
    it is a git repository without commits.
    """
    made = Locked(path)
    if git:
        for folder in ("objects", "refs"):
            (path / ".git" / folder).mkdir(parents=True)
    made.write(
        {**INITIAL, **(GIT if git else NO_GIT), ".gitignore": "/mlflow.db*\n/mlartifacts/\n"}
    )
    given = {"params.yaml": "".join(f"{key}: {json.dumps(v)}\n" for key, v in params.items())}
    made.write({"raw.txt": "1\n", **given, **files})
    made.write({"dvc.yaml": json.dumps({"stages": stages, **top})})
    for name in tracked:
        made.track(name)
    made.ran(*only)
    return made


def trained(rate: object = 1, data: str = "1\n") -> dict[str, str]:
    """Return what the stage `train` writes with this param and these data."""
    curve = "step,loss\n1,0.5\n2,0.25\n"
    return {"model.txt": f"{data}rate: {rate}\n", "curve.csv": curve}


def evaluated(rate: object = 1, **scores: object) -> dict[str, str]:
    """Return what the stages of `TWO_EVALUATIONS` write with these params."""
    both = {"a": 1, "b": 1} | scores
    files = {f"{name}.json": f'{{"score": {score}}}\n' for name, score in both.items()}
    return {"data.txt": "1\n", **trained(rate), **files}


@dataclass(frozen=True)
class RowContent:
    """What a row gets, whatever is in the store."""

    name: str
    """With its digits, which no other row has."""
    words: str
    """The name without its digits."""
    digests: Mapping[Any, str]
    """The digests of its results, by the stages' names in the row."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """What the table shows: of curves the last points."""
    curves: Mapping[str, Sequence[tuple[int, float]]]
    """All points (step, value) by key, in order."""
    files: Mapping[str, bytes]
    inputs: Mapping[str, str]
    """The md5s of the data sets by path."""
    tags: Mapping[str, str]
    time: int
    """Milliseconds since 1970."""
    experiment: str
    """As dvc.yaml names it; "" is the default."""
    chosen: Sequence[str]
    """The columns that dvc.yaml chooses, best first."""
    measures: Sequence[str]
    """The metrics that say how good it is, best first, with signs."""
    data: str
    """On what it was measured."""
    notes: Sequence[str]
    """What cannot be recorded, one line each."""
    complete: frozenset[str]
    """The results of which nothing is lacking, by the stages' names in the row."""


@dataclass(frozen=True)
class Read:
    """What the tool reads of a project."""

    rows: Sequence[RowContent]
    problems: Sequence[str]
    """What is wrong with dvc.yaml, one line each."""
    reasons: Mapping[str, str]
    """Why recorded stages have no result, by stage."""


def read(project: Repository, rev: str = "") -> Read:
    """Read a project's checkout, or a commit."""
    with chdir(project.path), Project() as opened, opened.at(rev) as commit:
        state = read_state(opened, commit)
        rows = [row_content(result) for result in state.results()]
        names = [stage.name for stage in state.stages]
        reasons = {name: why for name, why in state.reasons.items() if name in names}
        return Read(rows, [*state.pipeline.problems], reasons)


def row(project: Repository, rev: str = "") -> RowContent:
    """Return the content of a project's only row."""
    (found,) = read(project, rev).rows
    return found


def row_content(result: Result) -> RowContent:
    """Return what a row gets of a result, while its project is open and the working directory."""
    found = row_of(result)
    parts = found.parts.values()
    last = sorted(found.points, key=lambda point: (point.step, point.is_final))
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in found.points:
        curves.setdefault(point.key, []).append((point.step, point.value))
    more = [note for part in parts for note in (*part.notes, *part.notes_unread())]
    return RowContent(
        name=found.name,
        words=found.words,
        digests=found.wanted.digests,
        params=found.params,
        metrics={point.key: point.value for point in last},
        curves={key: sorted(points) for key, points in curves.items()},
        files={path: body for part in parts for path, body in part.files.items()},
        inputs={given.path: given.md5 for part in parts for given in part.inputs},
        tags={**found.origin, **{k: v for part in parts for k, v in part.tags.items()}},
        time=found.time,
        experiment=experiment_of(result.row_stages),
        chosen=chosen_columns(result.row_stages),
        measures=found.measures,
        data=found.tags.get(DATA, ""),
        notes=[*found.notes, *more],
        complete=frozenset(name for name, part in found.parts.items() if not part.unread),
    )


class Table:
    """The rows that a store comes to have, by the tool's rule for where a result goes."""

    def __init__(self) -> None:
        self._known: dict[str, StoredRun] = {}
        self._rows: dict[str, RowContent] = {}

    @property
    def rows(self) -> list[RowContent]:
        """What the rows have, oldest first."""
        return [*self._rows.values()]

    def record(self, project: Repository, rev: str = "") -> None:
        """Record what a project has now, or at a commit."""
        for found in read(project, rev).rows:
            there = match(found.digests, [*self._known.values()])
            if there.has is None:
                run_id = there.joins.run_id if there.joins else f"{len(self._rows)}"
                self._known[run_id] = StoredRun(run_id, found.name, found.digests)
                self._rows[run_id] = found


def _expanded(
    stages: Mapping[str, Any], params: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all stages by name, each item of a foreach or a matrix as one."""
    for name, stage in stages.items():
        for key, item in _items(_filled(stage.get("foreach"), params), stage.get("matrix")):
            own = {**params, "item": item, "key": key} if key else params
            yield f"{name}@{key}" if key else name, _filled(stage.get("do", stage), own)


def _items(foreach: Any, matrix: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items of a foreach or a matrix by key, as DVC calls them; ("", None) if neither."""
    if isinstance(foreach, Mapping):
        yield from foreach.items()
    elif foreach:
        are_simple = not any(isinstance(item, Mapping | list) for item in foreach)
        yield from ((f"{item if are_simple else i}", item) for i, item in enumerate(foreach))
    elif matrix:
        for chosen in itertools.product(*(enumerate(values) for values in matrix.values())):
            parts = [
                f"{name}{i}" if isinstance(value, Mapping | list) else f"{value}"
                for name, (i, value) in zip(matrix, chosen, strict=True)
            ]
            yield "-".join(parts), dict(zip(matrix, map(itemgetter(1), chosen), strict=True))
    else:
        yield "", None


def _filled(given: Any, values: Mapping[str, Any]) -> Any:
    """Return a part of dvc.yaml with these values for `${...}`."""
    if isinstance(given, Mapping):
        return {_filled(key, values): _filled(value, values) for key, value in given.items()}
    if isinstance(given, list):
        return [_filled(value, values) for value in given]
    if not isinstance(given, str):
        return given
    if whole := re.fullmatch(r"\$\{([\w.]+)\}", given):
        found = _value(values, whole[1])
        return found if isinstance(found, Mapping | list) else f"{found}"
    return re.sub(r"\$\{([\w.]+)\}", lambda name: f"{_value(values, name[1])}", given)


@cache
def _parsed(text: str, suffix: str) -> dict[str, Any]:
    found = PARSERS[suffix](text, "")
    assert isinstance(found, dict)
    return found


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _files(folder: Path) -> dict[str, Path]:
    """Return the files in a folder by their paths in it, in DVC's order."""
    found = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    return dict(sorted(found.items()))


def _list(files: Mapping[str, Path]) -> bytes:
    """Return DVC's list of the files in a folder."""
    found = [{"md5": _md5(f.read_bytes()), "relpath": path} for path, f in files.items()]
    return json.dumps(found).encode()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

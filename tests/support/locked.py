"""DVC projects as `dvc repro` leaves them, in which nothing ran, and what a row gets from them.

To make one and to read it takes a tenth of a second, so a rule of the tool is tested on values. The
tool's own functions are called here only, so a test names none of them.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc_data.hashfile.state import StateNoop

from dvc_mlflow.pipeline.row import StoredRun, match
from dvc_mlflow.pipeline.tags import DATA
from dvc_mlflow.project.project import Project
from dvc_mlflow.rows.result import Result, read_state, table_of
from dvc_mlflow.rows.row_of import row_of
from support.pipelines import PARAMS, Repository, Stages, initialized


class Locked(Repository):
    """A repository with a DVC project in which no stage has run, though dvc.lock says so."""

    def ran(self, *names: str) -> None:
        """Let DVC write what it would if these stages, by default all, had left the files as now.

        That is dvc.lock, and in DVC's cache and .gitignore the outputs.
        """
        without_state = patch("dvc_data.hashfile.state.State", lambda *_: StateNoop())
        with without_state, Repo(f"{self.path}") as repo:
            for stage in repo.index.stages:
                if isinstance(stage, PipelineStage) and (not names or stage.name in names):
                    stage.save(run_cache=False)
                    for out in stage.outs:
                        out.commit(relink=False)
                    stage.dump(update_pipeline=False)

    def again(
        self, files: Mapping[str, str] = {}, params: Mapping[str, Any] = {}, *names: str
    ) -> None:
        """Run these stages, by default all, once more: with these params they write these files."""
        self.set(params)
        self.write(files)
        self.ran(*names)

    def track(self, path: str) -> None:
        """Write the .dvc file of an input and keep its content."""
        self.dvc("add", "-q", path)


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
    made = Locked(shutil.copytree(initialized(), path) if git else path)
    if not git:
        made.write({".dvc/config": ""})
    made.write({".gitignore": "/mlflow.db*\n/mlartifacts/\n"})
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
    parts, (experiment, chosen) = found.parts.values(), table_of(result.row_stages)
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
        tags={**found.origin, **found.tags},
        time=found.time,
        experiment=experiment,
        chosen=chosen,
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

"""`dvc-mlflow promote ROW`: make a row's model the champion, if it is better on the same data.

The registry is git's tags, made by GTO: a version at the commit that has the row's result, and a
stage, such as `champion`. MLflow shows them.
"""

import argparse
import shlex
from pathlib import Path

from mlflow.entities import Run

from ..errors import ModelError, say, warn
from ..git import common_folder, is_published
from ..pipeline.keys import md5_tag
from ..pipeline.promotion import Contender
from ..place import main_repository
from ..processes import Locked
from ..project import gto_tags
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..registry.committed_models import CommittedModel, logged, models_at, row_with_model
from ..registry.show import show
from ..store.models import is_alias
from ..store.runs import read_run
from ..store.store import Store


class _RefusedError(Exception):
    """The row is not promoted: the first line says why, further ones what dvc.yaml lacks."""


def run(arguments: argparse.Namespace) -> int:
    """Promote the row that the command line names, or say why not; return the exit status."""
    root, status = main_repository(), 0
    with Project() as project:
        row = read_run(root, arguments.run)
        try:
            with Locked(common_folder(root)):  # another `promote` waits, and finds this champion
                lines = _promote(project, root, row, arguments)
        except _RefusedError as refused:
            why, *lines = f"{refused}".splitlines()
            warn(f"{arguments.run}: not promoted; {why}")
            status = 1
    for line in lines:
        say(line)
    return status


def _promote(project: Project, root: Path, row: Run, arguments: argparse.Namespace) -> list[str]:
    """Promote a row, and return what was done; raises `_RefusedError`."""
    store, stage = Store.existing(root), arguments.stage
    mine = Contender.of(read_pipeline(project), row.data.metrics, row.data.tags)
    if not is_alias(stage):
        raise _RefusedError(f"MLflow allows no alias {stage!r}; choose another --stage")
    with store.errors_reported():
        committed = _checked(project, store, row, mine)
        artifact, commit = committed.model.name, committed.commit
        gto_tags.check_names(project.top, artifact, stage)
        _compare(project, store, row, mine, artifact, stage)
    if arguments.dry_run:
        return [f"would promote row {arguments.run}: {artifact} at commit {commit[:7]}, {stage}"]
    scores = ", ".join(f"{key} {row.data.metrics[key]}" for key in mine.promote)
    message = f"{row.info.run_name}: {scores}"
    tags = gto_tags.promote(project.top, artifact, stage, commit, message)
    done, notes = show(project, root)
    for note in notes:
        warn(note)
    made = f"{' and '.join(tags)}: at commit {commit[:7]}, the model of row {arguments.run}"
    share = f"git push origin {shlex.join(tags)} && dvc push --all-tags"
    return [made, *done, f"to share it: {share}"]


def _checked(project: Project, store: Store, row: Run, mine: Contender) -> CommittedModel:
    """Return the model of a row.

    Raises `_RefusedError` with all that stands in its way, whatever it is compared with.
    """
    commit, why = mine.commit, [f"it has no {key}" for key in mine.missing]
    if row.info.lifecycle_stage == "deleted":
        why.append("it is in MLflow's trash")
    if row.info.status != "FINISHED":
        why.append(f"it is {row.info.status}, not FINISHED")
    if not (commit and is_published(commit, project.top)):
        why.append("git has no commit of its result; commit dvc.lock, then `dvc-mlflow record`")
        commit = ""
    every = models_at(project, commit)
    models = [each for each in every if md5_tag(each.output.path) in mine.tags]
    # A folder can be a model as MLflow saves it, which says itself how it is loaded.
    loadable = [each for each in models if each.model.loader_module or each.output.is_folder]
    if len(loadable) > 1:
        why.append(f"it has {len(loadable)} models: {', '.join(m.model.name for m in loadable)}")
    for committed in loadable:
        try:
            logged(project, store, row, committed, dry=True)
        except ModelError as error:
            why.append(f"{committed.output.path}: {error}")
    if lines := mine.lines_to_add(project.text, is_loaded=bool(loadable)):
        why += [*mine.pipeline.problems, "dvc.yaml lacks these lines:"]
    if why:
        raise _RefusedError("\n".join(["; ".join(why), *lines]))
    return loadable[0]


def _compare(
    project: Project, store: Store, row: Run, mine: Contender, artifact: str, stage: str
) -> None:
    """Raise `_RefusedError` unless a row is better than the champion, if git has one."""
    said = gto_tags.read_artifacts(project.top).get(artifact)
    if not (said and stage in said.stages):
        return
    version, tag = said.stages[stage]
    every = models_at(project, version.commit)
    rows = [row_with_model(store, each) for each in every if each.model.name == artifact]
    if not (champion := next(iter(rows), None)):
        raise _RefusedError(f"MLflow has no row of the {stage}, {tag}; `dvc-mlflow record --all`")
    if champion.info.run_id == row.info.run_id:
        raise _RefusedError(f"it is the {stage} already ({tag})")
    if why := mine.defeat(champion.data.metrics, champion.data.tags):
        raise _RefusedError(f"{why} ({tag})")

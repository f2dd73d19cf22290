"""`dvc-mlflow promote RUN`: make a row's model the champion, if it is better on the same data.

The registry is git's tags, made by GTO: a version at the commit that has the row's result, and a
stage, such as `champion`. MLflow shows them.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow.entities import Run

from ..errors import say, warn
from ..git import ask, common_folder
from ..pipeline.tags import COMPLETE, GTO_COMMIT, ROW, tagged
from ..place import main_repository
from ..processes import Locked
from ..project import Project, gto_tags
from ..project.gto_tags import Artifact
from ..registry import registered_models, row_commit
from ..registry.promotion_rule import PromotionRule, defeat, flaws, model_md5s, rule_of, scores
from ..registry.registered_models import RegisteredModel, is_alias
from ..registry.row_commit import RowCommit
from ..registry.show import is_somebodys, show, tags_shown
from ..store.named_row import read_run
from ..store.store import Store


class _RefusedError(Exception):
    """The row is not promoted; the message says why."""


@dataclass(frozen=True)
class _Outcome:
    """What has become of a promotion, as `--json` prints it."""

    run_id: str
    alias: str
    promoted: bool = False
    why: str = ""
    model: str = ""
    version: str = ""
    """Of the model in MLflow that has the alias now."""
    commit: str = ""
    tags: Sequence[str] = ()
    """In git: what registers the version, and what assigns the stage."""


class _Registered(NamedTuple):
    """What is registered under one name."""

    artifact: str
    in_git: Artifact
    in_mlflow: RegisteredModel


class _Champion(NamedTuple):
    """What a row must defeat."""

    run_id: str
    called: str
    """What people call its version."""
    cure: str
    """How to choose anew."""


def run(given: argparse.Namespace) -> int:
    """Promote the row that the command line names, or say why not; return the exit status."""
    root = main_repository()
    with Project() as project:
        pipeline = project.pipeline()
        row = read_run(root, given.run)
        try:
            with Locked(
                common_folder(root)
            ):  # another `promote` waits, and then finds this champion
                outcome = _promote(project, root, row, rule_of(pipeline, row), given)
        except _RefusedError as refused:
            outcome = _Outcome(row.info.run_id, given.stage, why=f"{refused}")
    if given.json:
        say(json.dumps(asdict(outcome)))
    elif outcome.why:
        warn(f"{given.run}: not promoted; {outcome.why}")
    return bool(outcome.why)


def _promote(
    project: Project,
    root: Path,
    row: Run,
    rules: PromotionRule,
    given: argparse.Namespace,
) -> _Outcome:
    """Promote a row, or return why not; raises `_RefusedError` where it can have no version."""
    store, stage = Store.existing(root), given.stage
    with store.errors_reported():
        for flaw in flaws(store, row, rules):
            raise _RefusedError(flaw)
    digests, md5s = tagged(row.data.tags, COMPLETE), {*model_md5s(row, rules).values()}
    found = row_commit.find(project, digests, rules, md5s)
    artifact = _name(found, rules)
    if not is_alias(stage):
        raise _RefusedError(f"MLflow allows no alias {stage!r}; choose another --stage")
    gto_tags.check_names(project.top, artifact, stage)
    show(project, root, dry=given.dry_run)
    with store.errors_reported():
        known = _registered(project, store, artifact)
        name, there = known.in_mlflow.name, known.in_mlflow.aliases.get(stage, "")
        outcome = _Outcome(row.info.run_id, stage, model=name, version=there)
        try:
            if champion := _champion(known, stage):
                _compare(store, row, rules, champion)
            commit = _commit(row, found, known)
        except _RefusedError as refused:
            return replace(outcome, why=f"{refused}")
    outcome = replace(outcome, commit=commit)
    if given.dry_run:
        _say(given, f"would promote row {given.run}: {artifact} at commit {commit[:7]}, {stage}")
        return outcome
    message = f"{row.info.run_name}: {scores(row, rules)}"
    tags = gto_tags.promote(project.top, artifact, stage, commit, message)
    _say(given, f"{' and '.join(tags)}: at commit {commit[:7]}, the model of row {given.run}")
    with store.errors_reported():
        if stage not in known.in_git.stages and is_somebodys(known.in_mlflow, stage):
            store.client.delete_registered_model_alias(name, stage)  # it was defeated
    notes = show(project, root).notes
    with store.errors_reported():
        number = registered_models.read(store.client, artifact).aliases.get(stage, "")
    if number:
        _say(given, f"models:/{name}@{stage} is version {number}")
    is_here = ask("rev-parse", "HEAD", cwd=project.top) == commit
    push = "dvc push" if is_here else "dvc push --all-tags"
    _say(given, f"to share it: git push origin {shlex.join(tags)} && {push}")
    for line in notes:
        warn(line)
    return replace(outcome, promoted=True, tags=tags, version=number)


def _name(found: RowCommit | None, rules: PromotionRule) -> str:
    """Return what git's tags call the row's model, by its commit or else by dvc.yaml as it is."""
    names = (found.names if found else ()) or rules.names
    if len(names) == 1:
        return names[0]
    cure = "name it in `artifacts` of dvc.yaml, or by `name` in meta.mlflow.model of its stage"
    has = f"{len(names)} names" if names else "no name"
    raise _RefusedError(f"the row's model has {has}; {cure}")


def _registered(project: Project, store: Store, artifact: str) -> _Registered:
    """Return what is registered under a name, unless this clone is behind MLflow."""
    in_git = gto_tags.read(project.top).get(artifact) or Artifact((), {}, ())
    if in_git.problem:
        raise _RefusedError(in_git.problem)
    there = registered_models.read(store.client, artifact)
    if behind := tags_shown(there) - {*in_git.tags}:
        what = f"MLflow shows git's tag {min(behind)}, which git here lacks; run `git fetch --tags`"
        raise _RefusedError(f"{what}, or delete what it shows in MLflow")
    return _Registered(artifact, in_git, there)


def _champion(known: _Registered, stage: str) -> _Champion | None:
    """Return the champion: by git's tags, else by an alias that somebody has given in MLflow."""
    there = known.in_mlflow
    if assigned := known.in_git.stages.get(stage):
        version = there.with_tag(GTO_COMMIT, assigned.commit)
        if version is None:
            cure = "`dvc-mlflow record --all` shows it, or says why not"
            raise _RefusedError(f"MLflow does not show the {stage}, {assigned.tag}; {cure}")
        cure = f"`gto deprecate {known.artifact} {assigned.version} {stage}`"
        return _Champion(version.tags.get(ROW, ""), assigned.version, cure)
    if not is_somebodys(there, stage):
        return None
    version = there.versions[there.aliases[stage]]
    run_id, cure = version.tags.get(ROW) or version.run_id or "", f"delete the alias {stage}"
    return _Champion(run_id, f"version {version.version}", cure)


def _compare(store: Store, row: Run, rules: PromotionRule, champion: _Champion) -> None:
    """Raise `_RefusedError` unless a row is better than the champion."""
    run_id, called, cure = champion
    if run_id == row.info.run_id:
        raise _RefusedError(f"it is the champion already ({called})")
    try:
        other = store.client.get_run(run_id or "none")
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        gone = f"the champion's row {run_id} is gone"
        raise _RefusedError(f"{gone}; {cure} to choose anew ({called})") from None
    if why := defeat(row, other, rules):
        raise _RefusedError(f"{why} ({called})")


def _commit(row: Run, found: RowCommit | None, known: _Registered) -> str:
    """Return the commit to register: one has one version of an artifact, as GTO rules."""
    for version in known.in_mlflow.versions.values():
        commit = f"{version.tags.get(GTO_COMMIT, '')}"
        if version.tags.get(ROW) == row.info.run_id and known.in_git.at(commit):
            return commit  # it is registered, and only the stage is new
    if found is None:
        rule = "no branch, tag or experiment in git has its result"
        cure = "`git commit` its dvc.lock, or `dvc exp branch` its experiment"
        raise _RefusedError(f"{rule}; {cure}")
    if other := known.in_git.at(found.commit):
        rule = "a commit has one version of an artifact"
        raise _RefusedError(
            f"{other.tag} is another row's, of the same commit {found.commit[:7]}; {rule}"
        )
    return found.commit


def _say(given: argparse.Namespace, line: str) -> None:
    if not given.json:
        say(line)

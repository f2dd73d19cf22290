"""`dvc-mlflow record`: make the rows that MLflow lacks, from git and DVC alone."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..content import fetch
from ..errors import say, warn
from ..past_rows import record_past
from ..project import Project
from ..repository import check_git, main_repository
from ..rows import AT_MOST, Written, write
from ..state import State, columns, experiment, read
from ..store import Store, exists


def run(given: argparse.Namespace) -> int:
    """Record the results of the workspace, of a commit or of many; return the exit status."""
    chosen = [name.strip() for name in given.stages.split(",") if name.strip()]
    check_git()
    root = main_repository()
    with Project() as project:
        if given.all or given.experiments or ".." in given.rev:
            return record_past(project, root, chosen, given)
        with project.at(given.rev) as commit:
            return _record(read(project, commit, given.rev, chosen), root, given)


def _record(state: State, root: Path, given: argparse.Namespace) -> int:
    stores: dict[str, Store] = {}
    for problem in _problems(state):
        warn(problem)
    folder, written = state.project.folder, []
    for row in state.rows():
        name = experiment(row)
        if name not in stores:
            stores[name] = Store(root, name, columns(row), folder=folder, create=not given.dry_run)
        store = stores[name]
        if given.fetch:
            for note in fetch(state.project, state.pipeline, row, [*state.wanted(row)]):
                warn(note)
        with store.lock(), store.errors_reported(AT_MOST):
            written.append(write(store, state, row, dry=given.dry_run, undelete=given.deleted))
            if shown := written[-1].columns:
                store.show(shown)
        _report(written[-1], store, dry=given.dry_run)
    if not stores and not given.dry_run and exists(root):
        Store(root, folder=folder)  # it ends the rows of dead processes
    if written and not any(each.verb or each.notes for each in written):
        these = "this result" if len(written) == 1 else f"these {len(written)} results"
        say(f"nothing to do: MLflow has {these}")
    return 0


def _problems(state: State) -> Iterator[str]:
    yield from state.pipeline.problems
    for stage in state.stages:
        if reason := state.reasons.get(stage.name):
            yield f"stage {stage.name} is not recorded: {reason}; run `dvc repro`"
    if not state.stages:
        some = ",".join([*state.pipeline.stages][:3]) or "train"
        rule = "dvc.yaml has no metrics, curves or models"
        yield f"{rule}; name the stages to record: --stages {some}"


def _report(written: Written, store: Store, *, dry: bool) -> None:
    """Say what was done for a row."""
    stages = ", ".join(written.stages)
    if written.verb == "deleted":
        say(f"left in MLflow's trash: run {written.run_id} ({stages}); --deleted restores it")
    elif written.verb == "restored":
        say(f"{'would restore' if dry else 'restored'} run {written.run_id} ({stages})")
    elif written.verb:
        would = {"added": "would add", "completed": "would complete"}
        verb = would[written.verb] if dry else written.verb
        say(f"{store.experiment}: {verb} {written.name!r} ({stages})")
        if not dry:
            say(f"  {store.url(written.run_id)}")
    for note in written.notes:
        warn(note)

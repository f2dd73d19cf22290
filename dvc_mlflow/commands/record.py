"""`dvc-mlflow record`: make the rows that MLflow lacks, from git and DVC alone."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import ProjectError, say, say_lines, warn
from ..follow.barrier import wait_for_follower
from ..git import check_git
from ..pipeline.row_stages import declares_nothing
from ..place import main_repository
from ..project import Project
from ..record.passes import record_everything
from ..record.recording import Options, Recording
from ..registry.show import show
from ..rows.commits import between
from ..rows.result import State, read_state
from ..store.store import Store, exists
from ..store.upsert import Written

_NOTHING = "nothing to do: MLflow has all results that can be read"


def run(given: argparse.Namespace) -> int:
    """Record the results of the workspace, of a commit or of many; return the exit status."""
    options = Options(given.dry_run, given.fetch)
    check_git()
    root = main_repository()
    with Project() as project:
        if not options.dry_run and (why := wait_for_follower(root)):
            warn(why)
        if given.all or ".." in given.rev:
            changed = _record_many(project, root, options, given)
        else:
            changed = _record_one(project, root, options, given.rev)
        try:
            done, notes = show(project, root, dry=options.dry_run)
        except ProjectError as error:
            done, notes = [], [f"{error}"]
    for line in done:
        say(line)
    for line in (*notes, *changed):
        warn(line)
    return 1 if changed else 0


def _record_one(project: Project, root: Path, options: Options, rev: str) -> Sequence[str]:
    """Record the results of the workspace or of a commit, and say which rows they have."""
    with project.at(rev) as commit:
        state = read_state(project, commit)
    for problem in (*_problems(state), *_without_result(state)):
        warn(problem)
    recording = Recording(project, root, options)
    recording.record_state(state)
    for store, written in recording.written:
        _report(written, store, dry=options.dry_run)
    if len(recording.rows) == 1:
        say_lines(json.dumps(recording.rows[0].summary(), indent=2, ensure_ascii=False))
    for note in recording.notes:
        warn(note)
    for hint in filter(None, recording.hints.values()):
        say(hint)
    results = state.results()
    left = [written for _, written in recording.written if written.verb == "deleted"]
    n = len(results) - len(left) - len(recording.changed)
    if not n and not options.dry_run and exists(root):
        Store.open(root, folder=project.folder)  # it ends the rows of dead processes
    if n > 0 and not any(written.verb or written.notes for _, written in recording.written):
        say(f"nothing to do: MLflow has {'this result' if n == 1 else f'these {n} results'}")
    if not options.dry_run:
        said = {written.run_id for _, written in recording.written if written.verb}
        for store, row in recording.rows_of(results):
            if row.run_id not in said:
                say(f"{store.experiment}: {store.row_line(row.name, row.run_id)}")
    return [*recording.changed]


def _record_many(
    project: Project, root: Path, options: Options, given: argparse.Namespace
) -> Sequence[str]:
    """Record the results of many commits."""
    if given.all:
        recording = record_everything(project, root, options)
        if recording is None:
            say(_NOTHING)
            _report_checkout(project, Recording(project, root, options), is_known=True)
            return []
    else:
        recording = Recording(project, root, options)
        recording.record_commits(between(project.top, given.rev))
    _report_notes(recording.left_out)
    report(recording, dry=options.dry_run)
    written = [store for store, done in recording.written if done.verb not in ("", "deleted")]
    if not recording.digests:
        warn("0 rows: no commit has a result of a recorded stage in its dvc.lock")
    elif not written:
        say(_NOTHING)
    if given.all:
        _report_checkout(project, recording)
    for hint in filter(None, recording.hints.values()):
        say(hint)
    for store in dict.fromkeys(written):
        if not options.dry_run:
            say(store.table_line())
    return [*recording.changed]


def report(recording: Recording, *, dry: bool = False) -> None:
    """Say what could not be read, and how many rows were written in each experiment."""
    _report_notes(recording.notes)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for store, done in recording.written:
        if done.verb == "deleted":
            _report(done, store, dry=dry)
        elif done.verb:
            counts[store.experiment][done.verb] += 1
    for name, verbs in counts.items():
        for verb, n in verbs.items():
            say(f"{name}: {n} row{'s' if n > 1 else ''} {'would be ' if dry else ''}{verb}")


def _report_notes(notes: Mapping[str, Sequence[str]]) -> None:
    for text, commits in notes.items():
        others = f" and {len(commits) - 1} more" if len(commits) > 1 else ""
        warn(f"{commits[0][:7]}{others}: {text}")


def _report_checkout(project: Project, recording: Recording, *, is_known: bool = False) -> None:
    """Say of the checkout what `record` says of it, once all commits are recorded."""
    try:
        state = read_state(project)
    except ProjectError as error:
        if not (recording.digests or is_known):
            warn(f"{error}")
        return
    results = state.results()
    lacking = [] if recording.left_out or results else [*_without_result(state)]
    for line in (*_problems(state), *lacking):
        warn(line)
    new = [each for each in results if not {*each.digests.values()} <= recording.digests]
    if any(recording.is_new(each) for each in new):
        say("the result in dvc.lock is not committed; `dvc-mlflow record` adds its row")


def _without_result(state: State) -> Iterator[str]:
    for stage in state.stages:
        if reason := state.reasons.get(stage.name):
            yield f"stage {stage.name} is not recorded: {reason}; run `dvc repro`"


def _problems(state: State) -> Iterator[str]:
    """Yield what is wrong in dvc.yaml."""
    pipeline = state.pipeline
    yield from pipeline.problems
    if not pipeline.stages:
        yield "no dvc.yaml has a stage, nor metrics or plots that are there; see `dvc stage add`"
    elif pipeline.are_likely:
        yield (
            f"dvc.yaml declares no metrics, so the numbers in {', '.join(sorted(pipeline.metrics))}"
            " count as such; list files of numbers under `metrics:` of their stage"
        )
    elif declares_nothing(pipeline):
        yield (
            "dvc.yaml declares no metrics, curves or models, so the last stages are recorded; list "
            "files of numbers under `metrics:` of their stage, or choose stages by "
            "`meta: {mlflow: {record: true}}`"
        )


def _report(written: Written, store: Store, *, dry: bool) -> None:
    """Say what was done for a row."""
    stages = ", ".join(written.stages)
    if written.verb == "deleted":
        say(f"left in MLflow's trash: run {written.run_id} ({stages}); MLflow restores it")
    elif written.verb:
        would = {"added": "would add", "completed": "would complete"}
        verb = would[written.verb] if dry else written.verb
        say(f"{store.experiment}: {verb} {written.name!r} ({stages})")
        if not dry:
            say(f"  {store.url(written.run_id) if store.is_served else 'run `dvc-mlflow ui`'}")

"""`dvc-mlflow record`: make the rows that MLflow lacks, from git and DVC alone."""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ProjectError, say, warn
from ..git import ask, glob
from ..pipeline.row import DIGITS, NO_MODEL, NOT_HERE
from ..pipeline.row_stages import declares_nothing
from ..pipeline.tags import UNREAD
from ..place import main_repository, project_root
from ..project.project import Project
from ..record.passes import record_everything
from ..record.recording import Recording
from ..registry.show import show
from ..rows.commits import between
from ..rows.history import other_numbers
from ..rows.result import State, pipeline_now, read_state
from ..store.store import Store, exists
from ..store.upsert import Written
from .follow import end_dead_rows

_NOTHING = "nothing to do: MLflow has all results that can be read"
_NAMES = re.compile(
    rf".*(?=: {NOT_HERE})|'[^']*'|(?<=stage )[^\s:,]+|(?<=different )\S+|(?<=than )\S+"
    r"|[^\s\[]*[/.]\S*\w"
)
"""The names in a line, without which it is of a kind."""


def run(arguments: argparse.Namespace) -> int:
    """Record the results of the workspace, of a commit or of many; return the exit status."""
    root = main_repository()
    with _project(root) as project:
        recording = Recording(project, root, dry_run=arguments.dry_run, fetch=arguments.fetch)
        if arguments.all or ".." in arguments.rev:
            _record_many(recording, arguments.rev)
        else:
            _record_one(recording, arguments.rev)
        if not arguments.dry_run and exists(root):
            end_dead_rows(project, root)
        try:
            done, notes = show(project, root, dry=arguments.dry_run)
        except ProjectError as error:
            done, notes = [], [f"{error}"]
    for line in done:
        say(line)
    for line in notes:
        warn(line)
    return 0


def _project(root: Path) -> Project:
    """Return the project that is here; if none is, the error says which commit has one."""
    try:
        return Project()
    except ProjectError as error:
        if project_root():
            raise
        form, lock = "--format=; commit %h of %S has results", glob("", "**/dvc.lock")
        hint = ask("log", "--all", "-1", "--diff-filter=AM", form, "--", lock, cwd=root)
        if ask("ls-files", "--", lock, cwd=root):
            hint = "; git has a dvc.lock here, but no .dvc, which `dvc init` makes"
        raise ProjectError(f"{error}{hint}") from None


def _record_one(recording: Recording, rev: str) -> None:
    """Record the results of the workspace or of a commit, and say which rows they have."""
    project = recording.project
    now = pipeline_now(project)
    with project.at(rev) as commit:
        state = read_state(project, commit, now)
    _report_problems(state)
    recording.record_state(state)
    for store, written in recording.written:
        _report(written, store, dry=recording.dry_run)
    for note in recording.notes:
        warn(note)
    _report_hints(recording, state)
    rows = [*recording.rows_of(state.results())]
    for why, file in other_numbers(state, state.commit):
        if not (file in recording.unread or any(file[1] in r.unread.split("; ") for _, r in rows)):
            warn(why)
    said, start = {written.run_id for _, written in recording.written if written.verb}, ""
    if not any(written.verb or written.notes for _, written in recording.written):
        start = "nothing to do: MLflow has this result: "
    for store, row in rows:
        if row.run_id not in said:
            say(f"{start or f'{store.experiment}: '}{store.row_line(row.name, row.run_id)}")


def _record_many(recording: Recording, range_: str) -> None:
    """Record the results of a range of commits, or of all if it is ""."""
    if range_:
        recording.record_commits(between(recording.project.top, range_))
    elif not record_everything(recording):
        say(_NOTHING)
        _report_unread(recording)
        _report_checkout(recording)
        return
    _report_notes(recording.left_out)
    report(recording, lists_unread=True)
    written = [store for store, done in recording.written if done.verb not in ("", "deleted")]
    if not recording.digests:
        warn("0 rows: no commit has a result of a recorded stage in its dvc.lock")
    elif not written:
        say(_NOTHING)
    if not range_:
        _report_checkout(recording)
    for store in dict.fromkeys(written):
        if not recording.dry_run:
            say(f"all rows: {store.url() if store.is_served else 'run `dvc-mlflow ui`'}")


def report(recording: Recording, *, lists_unread: bool = False) -> None:
    """Say what could not be read, and how many rows were written in each experiment.

    If files are not here, it says of which, or only how many rows lack some.
    """
    lost = {t for t in recording.notes if (NOT_HERE in t or NO_MODEL in t) and not lists_unread}
    _report_notes({t: at for t, at in recording.notes.items() if t not in lost})
    if lacking := [done for _, done in recording.written if lost.intersection(done.notes)]:
        warn(f"rows that lack files: {len(lacking)}; `dvc-mlflow record --all` lists them")
    counts = Counter[tuple[str, str]]()
    for store, done in recording.written:
        if done.verb == "deleted":
            _report(done, store, dry=recording.dry_run)
        elif done.verb:
            counts[store.experiment, done.verb] += 1
    would = "would be " if recording.dry_run else ""
    for (name, verb), n in counts.items():
        say(f"{name}: {n} row{'s' if n > 1 else ''} {would}{verb}")


def _report_notes(notes: Mapping[str, Sequence[str]]) -> None:
    """Say of each kind of line the first one, in how many commits it is so, and the other names."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for text in notes:
        kinds[_NAMES.sub("", text)].append(text)
    for first, *others in kinds.values():
        commits = [*dict.fromkeys(commit for text in (first, *others) for commit in notes[text])]
        where = f"{commits[0][:DIGITS]}{f' and {len(commits) - 1} more' if commits[1:] else ''}"
        names = dict.fromkeys(", ".join([*_NAMES.findall(t), t][0] for t in others).split(", "))
        more = f" (and {len(names)} more: {', '.join(names)})" if others else ""
        warn(f"{where}: {first}{more}")


def _report_unread(recording: Recording) -> None:
    """Say which files rows lack, by the digits of the rows."""
    store = Store.existing(recording.root, folder=recording.project.folder)
    notes = defaultdict[str, list[str]](list)
    with store.errors_reported():
        every = store.experiments() if store.is_shared else store.all_experiments()
        for run in store.runs(f"tags.`{UNREAD}` != ''", experiments=every):
            for path in run.data.tags[UNREAD].split("; "):
                notes[f"{path}: {NOT_HERE}"].append(run.info.run_name or "")
    _report_notes(notes)


def _report_hints(recording: Recording, state: State) -> None:
    """Say with the first rows of a table what dvc.yaml could declare, so that it says more."""
    why, pipeline = "", state.pipeline
    if pipeline.are_likely:
        files = ", ".join(sorted(pipeline.metrics))
        why = f"dvc.yaml declares no metrics, so the numbers in {files} count as such"
    elif pipeline.stages and declares_nothing(pipeline):
        why = "dvc.yaml declares no metrics, curves or models, so the last stages are recorded"
    if why and (recording.dry_run or any(store.has_new_table for store in recording.stores)):
        warn(f"{why}; list files of numbers under `metrics:` of their stage")


def _report_checkout(recording: Recording) -> None:
    """Say of the checkout what `record` says of it, once all commits are recorded."""
    try:
        state = read_state(recording.project)
    except ProjectError as error:
        if not recording.digests:
            warn(f"{error}")
        return
    results = state.results()
    _report_problems(state, has_rows=bool(recording.left_out or results))
    _report_hints(recording, state)
    new = [each for each in results if not {*each.digests.values()} <= recording.digests]
    if any(recording.is_new(each) for each in new):
        say("the result in dvc.lock is not committed; `dvc-mlflow record` adds its row")


def _report_problems(state: State, *, has_rows: bool = False) -> None:
    """Say what is wrong in dvc.yaml, and unless it `has_rows` why stages have no result."""
    for line in state.pipeline.problems:
        warn(line)
    if not state.pipeline.stages:
        warn("no dvc.yaml has a stage, nor metrics or plots that are there; see `dvc stage add`")
    for stage in () if has_rows else state.stages:
        if reason := state.reasons.get(stage.name):
            warn(f"stage {stage.name} is not recorded: {reason}; run `dvc repro`")


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

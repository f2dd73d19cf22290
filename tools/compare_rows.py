"""Compare the rows that the tool makes of public repositories with those of an earlier version.

The golden file has those rows. By repository (owner/name), it has its `head` and its `rows`: each
has a name, the commit's first seven digits, whether it is `complete`, the outputs' md5s, params,
last metrics, and of each curve the number of points and a digest.

For each repository, `dvc-mlflow record --all` runs in a fresh clone, without a network, and no code
of the repository runs. A golden row is found by its outputs. Each needs a row that has at least the
same params, metrics and curves: its own, or one that another golden row has become, which is noted.
What is more, or is no longer complete, is only noted, too.

    python tools/compare_rows.py rows.json.gz clones --jobs 2

The folder `clones` has a git clone of each repository in `<owner>+<name>`: bare or not, with all
refs, as `git clone --mirror` makes it. It stays as it is. The exit status is 1 if a golden row is
missing or differs, or if the tool does not end or there is nothing to compare.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

STORE = "mlflow.db"
MD5, COMMIT = "md5.", "commit"
COMPLETE, UNREAD = "dvc-mlflow.lock.", "dvc-mlflow.unread"
"""The tags that are read, or how their keys begin: see the tool's `pipeline/tags.py`."""
TIMEOUT = 600  # seconds for one repository
SHOWN = 5  # new rows of a repository that are listed
CLONE = "repo"  # as the clones of the golden rows were called: the experiment has this name
SETTINGS = ("MLFLOW_", "DVC_", "GIT_", "PYTHON")
NOWHERE = "http://127.0.0.1:9"  # nothing listens there, so what asks for a network fails at once
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Row(NamedTuple):
    """A row, as far as it is compared."""

    name: str
    commit: str
    """The commit's first seven digits; text with a space if the result was not committed."""
    complete: bool
    """Whether the tool had the whole result of a stage."""
    outputs: Mapping[str, str]
    """The md5s of the outputs, by path."""
    params: Mapping[str, str]
    metrics: Mapping[str, float | str]
    """The last values, by key; "nan" for one that is no number."""
    curves: Mapping[str, tuple[int, str]]
    """The number of points and a digest of each curve with more than one point, by key."""

    @property
    def title(self) -> str:
        """By what people find the row."""
        return f"[{self.commit}: {self.name}]"

    @property
    def results(self) -> dict[tuple[str, str], object]:
        """What the row must keep, by kind and key."""
        return {
            (kind, key): value
            for kind in ("params", "metrics", "curves")
            for key, value in getattr(self, kind).items()
        }


class Match(NamedTuple):
    """A golden row and the row of now that has the same result."""

    golden: Row
    now: Row

    @property
    def differences(self) -> list[str]:
        """What the row of now lacks or has otherwise: key, golden value, value now."""
        now = self.now.results
        return [
            f"{kind} {key}: {value!r}, now {repr(now[kind, key]) if (kind, key) in now else 'none'}"
            for (kind, key), value in self.golden.results.items()
            if now.get((kind, key)) != value
        ]

    @property
    def more(self) -> list[str]:
        """What only the row of now has."""
        golden = self.golden.results
        return [" ".join(key) for key in self.now.results if key not in golden]


class Comparison(NamedTuple):
    """What came of one repository."""

    golden: int
    """How many golden rows there are."""
    now: int
    missing: Sequence[str]
    """A line for each golden row that is missing."""
    differing: Sequence[Match]
    new: int
    """How many rows are not golden."""
    failure: str | None
    """Why the tool did not end."""
    notes: Sequence[str]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether something is not as it was."""
        return bool(self.missing or self.differing or self.failure)


class Outcome(NamedTuple):
    """What the tool made of a clone."""

    rows: Sequence[Row]
    failure: str | None
    notes: Sequence[str]
    seconds: float


def main() -> int:
    """Compare the repositories that are there, and print what differs."""
    given = parse()
    golden: dict[str, Any] = json.loads(gzip.decompress(given.golden.read_bytes()))
    begun = time.monotonic()
    wanted: list[str] = given.only or [*golden]
    if unknown := [name for name in wanted if name not in golden]:
        sys.exit(f"--only: {given.golden} has no {unknown[0]}")
    places = {name: given.clones / name.replace("/", "+", 1) for name in wanted}
    there = [name for name, clone in places.items() if clone.is_dir()]
    for name in wanted:
        if name not in there:
            print(f"{name}: left out, as there is no {places[name]}")

    def compared(name: str) -> Comparison:
        rows = [golden_row(row) for row in golden[name]["rows"]]
        outcome = record(places[name], golden[name]["head"], given.tool, given.timeout)
        return compare(rows, outcome, places[name])

    done = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for name, comparison in zip(there, pool.map(compared, there), strict=True):
            print(*(f"{name}: {line}" for line in report(comparison)), sep="\n", flush=True)
            done.append(comparison)
    print(summary(done, time.monotonic() - begun))
    return int(not done or any(each.failed for each in done))


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("golden", type=Path, help="the golden file, .json.gz")
    parser.add_argument("clones", type=Path, help="the folder with a clone in each <owner>+<name>")
    parser.add_argument("--tool", default="dvc-mlflow", help="the command of the tool, or its path")
    parser.add_argument("--only", action="append", metavar="OWNER/NAME", help="may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="how many repositories at a time")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for a repository")
    given = parser.parse_args()
    found = shutil.which(given.tool)
    if not found:
        parser.error(f"--tool: there is no command {given.tool}")
    given.tool = Path(found).absolute()
    return given


def golden_row(given: Mapping[str, Any]) -> Row:
    """Return a row as the golden file has it."""
    curves = {key: (count, digest) for key, (count, digest) in given["curves"].items()}
    return Row(**{key: given[key] for key in Row._fields if key != "curves"}, curves=curves)


def compare(golden: Sequence[Row], outcome: Outcome, clone: Path) -> Comparison:
    """Compare golden rows with what the tool has made now of the clone's history."""
    matches = match(golden, outcome.rows)
    others = [golden[i] for i in range(len(golden)) if i not in matches]
    joined = [row for row in others if has_joined(row, outcome.rows)]
    unmatched = [row for row in others if row not in joined]
    new = [row for j, row in enumerate(outcome.rows) if j not in matches.values()]
    pairs = [Match(golden[i], outcome.rows[j]) for i, j in matches.items()]
    return Comparison(
        golden=len(golden),
        now=len(outcome.rows),
        missing=[
            f"{row.title} missing: {described(row, golden, outcome.rows)}"
            for row in unmatched
            if has_commit(clone, row.commit)
        ],
        differing=[pair for pair in pairs if pair.differences],
        new=len(new),
        failure=outcome.failure,
        notes=[
            *outcome.notes,
            *(
                f"{row.title} not compared, as the clone lacks the commit"
                for row in unmatched
                if not has_commit(clone, row.commit)
            ),
            *(f"{row.title} has joined another row" for row in joined),
            *noted(pairs),
            *(f"{row.title} new: {some_outputs(row)}" for row in new[:SHOWN]),
            *([f"{len(new) - SHOWN} more rows are new"] if len(new) > SHOWN else []),
        ],
        seconds=outcome.seconds,
    )


def match(golden: Sequence[Row], now: Sequence[Row]) -> dict[int, int]:
    """Return which row of now each golden row has become, both by their indices.

    It has all the outputs of the golden row, or better no others. Several rows can have the same
    outputs, so the pairs that differ least are taken first, and no row is taken twice.
    """
    pairs = []
    for i, old in enumerate(golden):
        for j, row in enumerate(now):
            if not old.outputs.items() <= row.outputs.items():
                continue
            pair, same = Match(old, row), old.outputs == row.outputs
            differ = len(pair.differences)
            if not same and not old.outputs and differ:  # any row has all of no outputs
                continue
            more = len(pair.more), old.commit != row.commit, old.name != row.name
            pairs.append((not same, differ, more, i, j))
    chosen: dict[int, int] = {}
    for *_, i, j in sorted(pairs):
        if i not in chosen and j not in chosen.values():
            chosen[i] = j
    return dict(sorted(chosen.items()))


def has_joined(golden: Row, now: Sequence[Row]) -> bool:
    """Whether a row has all of a golden one; it is of the same commit if that has no outputs."""
    return any(
        (golden.outputs or golden.commit == row.commit)
        and golden.outputs.items() <= row.outputs.items()
        and not Match(golden, row).differences
        for row in now
    )


def noted(pairs: Sequence[Match]) -> Iterator[str]:
    """Yield what else has changed in the rows that both have."""
    more = Counter(key for pair in pairs for key in pair.more)
    yield from (f"{key}: new in {count} rows" for key, count in more.items())
    for golden, now in pairs:
        if golden.complete and not now.complete:
            yield f"{golden.title} no longer complete"


def described(row: Row, golden: Sequence[Row], now: Sequence[Row]) -> str:
    """Return the outputs of a missing row, and how many rows have the same."""
    was, left = (sum(row.outputs == each.outputs for each in rows) for rows in (golden, now))
    return f"{some_outputs(row)} (rows with these outputs: {was}, now {left})"


def some_outputs(row: Row) -> str:
    """Return some outputs of a row with the first digits of their md5s."""
    first = [f"{path}={md5[:7]}" for path, md5 in sorted(row.outputs.items())[:3]]
    rest = len(row.outputs) - len(first)
    return (" ".join(first) or "no outputs") + (f" and {rest} more" if rest else "")


def report(comparison: Comparison) -> Iterator[str]:
    """Yield the lines on one repository."""
    if comparison.failure:
        yield comparison.failure
    yield from comparison.missing
    for pair in comparison.differing:
        yield from (f"{pair.golden.title} {difference}" for difference in pair.differences)
    yield from (f"note: {note}" for note in comparison.notes)
    result = "differs" if comparison.failed else "as it was"
    counts = f"{comparison.golden} golden rows, {comparison.now} now"
    yield f"{result} ({counts}, {comparison.seconds:.1f} s)"


def summary(done: Sequence[Comparison], seconds: float) -> str:
    """Return a line on all repositories."""
    failed, golden, new = (
        sum(getattr(each, key) for each in done) for key in ("failed", "golden", "new")
    )
    missing, differing = (
        sum(len(getattr(each, key)) for each in done) for key in ("missing", "differing")
    )
    return (
        f"{len(done)} repositories, {failed} of them differ; {golden} golden rows, {missing} of "
        f"them missing, {differing} otherwise; {new} rows are new; {seconds:.0f} s"
    )


def record(clone: Path, head: str, tool: Path, timeout: float) -> Outcome:
    """Let the tool record everything in a fresh clone, at `head` if git has it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        top, home = Path(folder, CLONE), Path(folder, "home")
        env = environment(home, tool)
        notes = check_out(clone, top, head, env)
        begun = time.monotonic()
        status, errors = run([tool, "record", "--all"], top, env, timeout)
        seconds = time.monotonic() - begun
        if status:
            last = errors.strip().rpartition("\n")[2]
            notes.append(f"the tool ended with status {status}: {last}")
        failure = f"the tool did not end in {timeout:g} s" if status is None else None
        rows = read_rows(top / STORE) if (top / STORE).exists() else []
        return Outcome(rows, failure, notes, seconds)


def environment(home: Path, tool: Path) -> dict[str, str]:
    """Return an environment without the user's settings, in which nothing reaches a network."""
    home.mkdir()
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)},
        **dict.fromkeys(PROXIES, NOWHERE),
        "NO_PROXY": "",
        "no_proxy": "",
        "HOME": str(home),
        "PATH": f"{tool.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-cache"),
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def check_out(clone: Path, top: Path, head: str, env: Mapping[str, str]) -> list[str]:
    """Clone all refs, but no settings, and check `head` out; return what is to be noted."""

    def git(*command: str | Path) -> str:
        done = subprocess.run(["git", *command], env=env, check=True, stdout=subprocess.PIPE)
        return os.fsdecode(done.stdout).strip()

    git("clone", "-q", "--mirror", clone, top / ".git")
    git("-C", top, "config", "core.bare", "false")
    git("-C", top, "config", "--remove-section", "remote.origin")
    own = git("-C", top, "rev-parse", "HEAD")
    has_head = has_commit(clone, head)
    branch_or_commit = ["--detach", head] if has_head and own != head else []
    git("-C", top, "checkout", "-q", "-f", *branch_or_commit)
    return [] if has_head else [f"compared at {own[:7]}, as the clone lacks {head[:7]}"]


def has_commit(clone: Path, commit: str) -> bool:
    """Whether git has a commit; True for a result that was not committed."""
    if not commit or " " in commit:
        return True
    command: list[str | Path] = ["git", "-C", clone, "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def run(
    command: Sequence[str | Path], folder: Path, env: Mapping[str, str], timeout: float
) -> tuple[int | None, str]:
    """Return the status of a command and its stderr; no status if it did not end in time."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.wait()
        errors.seek(0)
        return status, errors.read()


def read_rows(store: Path) -> list[Row]:
    """Return the rows of a store."""
    with closing(sqlite3.connect(store)) as database:  # a tool that was ended can leave a journal
        query = "SELECT run_uuid, name FROM runs WHERE lifecycle_stage = 'active' ORDER BY rowid"
        names = database.execute(query).fetchall()
        tags = by_run(database, "SELECT run_uuid, key, value FROM tags")
        params = by_run(database, "SELECT run_uuid, key, value FROM params")
        value = "CASE WHEN is_nan THEN 'nan' ELSE value END"
        metrics = by_run(database, f"SELECT run_uuid, key, {value} FROM latest_metrics")  # noqa: S608
        curves = read_curves(database)
    return [
        Row(
            name=name,
            commit=tags[run_id].get(COMMIT, "")[:7],
            complete=any(k.startswith(COMPLETE) for k in tags[run_id])
            and not tags[run_id].get(UNREAD),
            outputs={
                key.removeprefix(MD5): md5
                for key, md5 in tags[run_id].items()
                if key.startswith(MD5)
            },
            params=params[run_id],
            metrics=metrics[run_id],
            curves=curves[run_id],
        )
        for run_id, name in names
    ]


def by_run(database: sqlite3.Connection, query: str) -> dict[str, dict[str, Any]]:
    """Return the values that a query finds, by run and key."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for run_id, key, value in database.execute(query):
        found[run_id][key] = value
    return found


def read_curves(database: sqlite3.Connection) -> dict[str, dict[str, tuple[int, str]]]:
    """Return the curves, by run and key."""
    points: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    query = "SELECT run_uuid, key, step, value FROM metrics ORDER BY step, timestamp, value"
    for run_id, key, step, value in database.execute(query):
        points[run_id, key].append((step, value))
    found: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for (run_id, key), curve in points.items():
        if len(curve) > 1:
            digest = hashlib.md5(json.dumps(curve).encode(), usedforsecurity=False).hexdigest()
            found[run_id][key] = len(curve), digest[:10]
    return found


if __name__ == "__main__":
    sys.exit(main())

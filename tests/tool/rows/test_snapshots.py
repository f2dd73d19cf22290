"""The states of git's history: of any commits, files and paths; written by git alone."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from dvc_mlflow.git import Blobs, own_head
from dvc_mlflow.project.definitions import stages_in
from dvc_mlflow.project.dvc_errors import parse
from dvc_mlflow.rows.commits import Snapshot, committed, snapshots
from support.clone import Clone

LOCK = "dvc.lock"
RUNNING, NAMED = "refs/exps/exec/EXEC_BASELINE", f"refs/exps/ab/{38 * 'c'}/wide"


class History(Clone):
    """A git repository whose commits are written by `git fast-import`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        self._marks = 0

    def add(
        self,
        files: Mapping[str, str | None],
        *parents: str,
        ref: str = "refs/heads/main",
        time: int = 0,
    ) -> str:
        """Add a commit with these changes of files, and return it; None removes one."""
        self._marks += 1
        quoted = {name: json.dumps(name, ensure_ascii=False) for name in files}
        lines = [
            f"commit {ref}\ncommitter C <c@example.org> {time or self._marks} +0000\ndata 0\n",
            *(f"{'merge' if i else 'from'} {each}\n" for i, each in enumerate(parents)),
        ]
        for name, text in files.items():
            body = f"M 100644 inline {quoted[name]}\ndata {len(text or '')}\n{text}\n"
            lines.append(f"D {quoted[name]}\n" if text is None else body)
        stream = self.path / ".git/stream"
        stream.write_text("".join(lines))
        self.run("sh", "-c", f"git fast-import --quiet --force < '{stream}'")
        return self.git("rev-parse", ref)

    def states(self, folder: str = "") -> list[Snapshot]:
        """Return the states of all commits."""
        with closing(Blobs(self.path)) as blobs:
            return snapshots(self.path, folder, blobs, committed(self.path, rows=True))


@pytest.fixture
def made(tmp_path: Path) -> History:
    """An empty repository."""
    return History(tmp_path / "made")


def commits(states: Sequence[Snapshot]) -> list[str]:
    """Return the commits of states."""
    return [state.commit for state in states]


def test_oldest_commit(made: History) -> None:
    """Of commits with the same state, the oldest one is named, whatever a clock said."""
    first = made.add({"dvc.yaml": "{}", LOCK: "1"}, time=100)
    made.add({"README.md": "More"}, first, time=10)
    second = made.add({LOCK: "2"}, made.git("rev-parse", "main"), time=5)
    third = made.add({LOCK: "1", "README.md": "Back"}, second, time=1)
    made.git("tag", "v1", third)
    found = made.states()
    assert commits(found) == [first, second]


def test_merges(made: History) -> None:
    """A merge has the files of its own tree, from either parent or from neither."""
    start = made.add({"dvc.yaml": "{}", LOCK: "1"})
    left = made.add({LOCK: "2"}, start)
    right = made.add({"sub/dvc.lock": "3"}, start, ref="refs/heads/side")
    merge = made.add({"sub/dvc.lock": "3", "new/dvc.lock": "4"}, left, right)
    found = {state.commit: {*state.locks} for state in made.states()}
    assert found == {
        start: {LOCK},
        left: {LOCK},
        right: {LOCK, "sub/dvc.lock"},
        merge: {LOCK, "sub/dvc.lock", "new/dvc.lock"},
    }
    theirs = made.add({LOCK: "1", "sub/dvc.lock": "3"}, left, right)
    having = {state.commit: [*state.commits] for state in made.states()}
    assert having == {start: [start], left: [left], right: [right, theirs]}


def test_moved_file(made: History) -> None:
    """A file that a commit has moved is where that has it."""
    start = made.add({"one/dvc.lock": "The same text"})
    moved = made.add({"one/dvc.lock": None, "two/dvc.lock": "The same text"}, start)
    found = {state.commit: [*state.locks] for state in made.states()}
    assert found == {start: ["one/dvc.lock"], moved: ["two/dvc.lock"]}


def test_rows_and_projects(made: History) -> None:
    """Rows' own commits come last, and a nested project has its own files only."""
    start = made.add({LOCK: "1", "sub/dvc.lock": "1"}, time=50)
    row = made.add({LOCK: "2"}, start, ref="refs/rows/one", time=1)
    later = made.add({LOCK: "3"}, start, time=60)
    assert commits(made.states()) == [start, later, row]
    (nested,) = made.states("sub")
    assert (nested.commit, [*nested.locks]) == (start, ["sub/dvc.lock"])


HEADS: dict[str, tuple[list[str], list[tuple[int, str]]]] = {
    "a person's": ([], [(2, "")]),
    "named later": ([RUNNING], []),
    "named": ([RUNNING, NAMED], [(1, "wide")]),
    "not yet put back": ([NAMED], [(1, "wide")]),
}


@pytest.mark.parametrize("case", HEADS)
def test_head_of_an_experiment(made: History, case: str) -> None:
    """A commit that `dvc exp run` makes on its own HEAD is nobody's, with or without its name."""
    refs, expected = HEADS[case]
    base = made.add({LOCK: "1"})
    ran = made.add({LOCK: "2"}, base, ref="refs/new")
    made.git("update-ref", "--no-deref", "HEAD", ran)
    for ref in refs:
        made.git("update-ref", ref, ran if ref == NAMED else base)
    assert own_head(made.path)[0] == (base if RUNNING in refs else ran)
    first, *others = made.states()
    assert (first.commit, first.origin.rank) == (base, 2)
    assert [(each.origin.rank, each.origin.experiment) for each in others] == expected


FILES: list[tuple[str, dict[str, str], str, bool]] = [
    ("a .dvc file", {}, "data/x.csv.dvc", False),
    ("params", {}, "params.yaml", False),
    ("inserted params", {"dvc.yaml": "x: ${y}"}, "params.yaml", True),
    ("variables", {"dvc.yaml": 'vars: ["c/v.json:a"]\nx: ${y}'}, "c/v.json", True),
    ("metrics of no stage", {"s/dvc.yaml": "metrics: [m.json]"}, "s/m.json", True),
    ("metrics of a stage", {"dvc.yaml": "{metrics: [m], stages: {a: {outs: [m]}}}"}, "m", True),
    ("plots of a stage", {"dvc.yaml": "stages: {a: {plots: [p], metrics: [m]}}"}, "p", False),
    ("a folder of plots", {"dvc.yaml": "plots: [live/plots]"}, "live/plots/x/y.tsv", True),
]


@pytest.mark.parametrize(("files", "path", "counts"), [each[1:] for each in FILES])
def test_what_is_a_state(made: History, files: dict[str, str], path: str, counts: bool) -> None:
    """A change of metrics or of what decides what DVC reads is another state; no other is."""
    start = made.add({"dvc.yaml": "{}", LOCK: "1", **files, path: "1"})
    changed = made.add({path: "2"}, start)
    removed = made.add({path: None}, changed)
    assert commits(made.states()) == ([start, changed, removed] if counts else [start])


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\tb", "a b", "ä", "*", "[x]", ":(top)"])
def test_paths(made: History, name: str) -> None:
    """Any path is read, as a project's folder, too."""
    yaml = "metrics: [m.json]\nx: ${y}"
    start = made.add({f"{name}/dvc.yaml": yaml, f"{name}/dvc.lock": "1"})
    second = made.add({f"{name}/dvc.lock": "2"}, start)
    third = made.add({f"{name}/m.json": "3"}, second)
    for folder in ("", name):
        assert commits(made.states(folder)) == [start, second, third]
        assert {*made.states(folder)[0].locks} == {f"{name}/dvc.lock"}


VALUES = ["1e-3", "1.0E+2", "yes", "on", "010", "0o10", "1_000", "1:30", "~", "'1'", "2020-01-01"]


def lock(*entries: str) -> str:
    """Return a dvc.lock in DVC's own layout."""
    return "schema: '2.0'\nstages:\n" + "".join(entries)


def entry(name: str, value: object = 1) -> str:
    """Return a stage's entry."""
    return f"  {name}:\n    cmd: x\n    params:\n      params.yaml:\n        v: {value}\n"


LOCKS = [
    *(lock(entry("a", value)) for value in VALUES),
    lock(entry("a"), "\n", entry("b@1")),
    lock(entry("a"), "  # by hand\n", entry("b")),
    lock("  a: &one\n    cmd: x\n", "  b: *one\n"),
    f"# by hand\n{lock(entry('a'))}",
    lock("    a:\n        cmd: x\n"),
    json.dumps({"schema": "2.0", "stages": {"a": {"cmd": "x"}}}),
]


@pytest.mark.parametrize("text", LOCKS)
def test_locks_as_dvc_reads_them(text: str) -> None:
    """An entry has the values that DVC reads, whatever a person has changed in the lock."""
    assert stages_in(text) == parse(text, LOCK)["stages"]

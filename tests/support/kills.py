"""Kill the pipeline at seeded random moments and check that nothing is lost.

    python tests/support/kills.py [number of kills] [seed]

Each time, the results of some stages are deleted and `dvc repro` begins to make them again. Then
`dvc`, any process below it (a script, say), or the whole group is
killed. After that, `make repro` must give the results of an undisturbed run, and one row. In half
of the kills DVC's cache is kept, so DVC may take from it what the killed stage was making.

Every other kill is aimed: the whole group is killed while `dvc` writes one of its own files in
place.
"""

import os
import random
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import psutil
import pytest
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it runs as a program

from support.clone import ROOT, Clone, Done, environment, make_clone


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount an empty disk at a folder until the block ends."""
    path.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount") or "false"
    options = ["-t", "tmpfs", "-o", f"size={size}", "none"]
    if subprocess.run([mount, *options, path], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let nobody, not even root, write to a file or a folder."""
    chattr = shutil.which("chattr") or "false"
    if subprocess.run([chattr, "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("needs chattr")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", path], check=True)


SCRIPT = ROOT / "tools/heal.py"


def run_heal(project: Clone, *folders: str) -> Done:
    """Run tools/heal.py in this process: it spares the second in which that imports DVC."""
    command, out, error = [f"{SCRIPT}", *folders], StringIO(), ""
    with (
        patch("sys.argv", command),
        patch.dict(os.environ, environment(), clear=True),
        chdir(project.path),
        redirect_stdout(out),
    ):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as exit_:  # Python prints its reason
            error = f"{exit_}\n"
    return Done(command, int(bool(error)), out.getvalue(), error)


def heal(project: Clone, *folders: str) -> list[str]:
    """Run tools/heal.py without an error, and return what it says."""
    done = run_heal(project, *folders)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def healed(project: Clone, *folders: str) -> list[str]:
    """Return the files that tools/heal.py names."""
    paths = [line.split(": ")[0] for line in heal(project, *folders)]
    return [path.removeprefix(f"{project.path}/") for path in paths]


OUTPUTS = {
    "generate-train-data": ["train.npz"],
    "train": ["model.keras", "model_summary.txt", "training.csv"],
    "generate-test-data": ["test.npz"],
    "evaluate": ["metrics.json", "predictions.csv", "confusion_matrix.html"],
}
STARTS = {stage: [stage] for stage in OUTPUTS} | {"nothing": list(OUTPUTS)}
SHARES = {"generate-train-data": 0.1, "train": 0.4, "generate-test-data": 0.1, "evaluate": 0.4}
"""The rough share of each stage in the time of an undisturbed run."""
CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "n_steps")
METRICS = {
    *(f"train/{name}" for name in CURVES),
    *(f"test/{name}" for name in ("loss", "accuracy", "correctly_classified", "n_samples")),
}


class Kill(NamedTuple):
    """The kill of one `dvc repro`."""

    start: str
    """The stage whose results are deleted, or `nothing` if the pipeline has never run."""
    target: str
    """`dvc`, a `process` below it, or the whole `group`."""
    signal: signal.Signals
    moment: float
    """When, as a share of the stages' time or of DVC's writes, from 0 to 1.1."""
    cache: bool
    """Whether DVC's cache is kept."""
    aimed: bool
    """Whether it is the group's, at one of DVC's writes."""


KILLED_AT_A_WRITE = """
import os, signal, sys, time
from dvc.cli import main

left = int(sys.argv.pop(1))

def kill_at_the_last(event, arguments):
    global left
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if writes and os.path.basename(str(arguments[0])) in ("rwlock", "dvc.lock"):
        left -= 1
        if left == 0 and os.fork() == 0:
            until = time.monotonic() + 0.01  # if it is too late, the file is whole again
            while os.path.getsize(arguments[0]) and time.monotonic() < until:
                pass
            os.killpg(0, signal.SIGKILL)

sys.addaudithook(kill_at_the_last)
code = main(sys.argv[1:])
print(-left)
sys.exit(code)
"""
"""A `dvc` that is killed when it opens one of its own files for the nth time to write."""


def draw(n: int, seed: int) -> list[Kill]:
    """Draw kills that use every start, target and signal equally often, combined at random."""
    rng = random.Random(seed)  # noqa: S311

    def in_turn(values: list[str]) -> list[str]:
        return [value for _ in range(n) for value in rng.sample(values, len(values))][:n]

    starts, targets = in_turn(list(STARTS)), in_turn(["process", "dvc", "group"])
    signals = in_turn(["SIGKILL", "SIGTERM"])
    return [
        Kill(
            start, target, signal.Signals[name], rng.uniform(0, 1.1), rng.random() < 0.5, i % 2 > 0
        )
        for i, (start, target, name) in enumerate(zip(starts, targets, signals, strict=True))
    ]


class Ledger:
    """A clone, and the results of an undisturbed run, which every kill must end with, too."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        self.data = clone.path / "data"
        started = time.monotonic()
        clone.dvc("repro")
        self.seconds = time.monotonic() - started
        self.lock = self.locked()
        self.files = self.contents()
        clone.commit("The results")
        self._forget("nothing", cache=True)
        done = clone.run(sys.executable, "-c", KILLED_AT_A_WRITE, "0", "repro")
        self.writes = int(done.stdout.split()[-1])

    def contents(self) -> dict[str, bytes]:
        """Return the content of every output."""
        names = [name for stage in OUTPUTS.values() for name in stage]
        return {name: (self.data / name).read_bytes() for name in names}

    def locked(self) -> dict[str, Any]:
        """Return dvc.lock as a mapping: the order of stages in a new file is DVC's choice."""
        return dict(YAML(typ="safe").load(self.clone.lock))

    def survive(self, kill: Kill) -> str:
        """Kill one `dvc repro`, run `make repro` and check everything; return what happened."""
        self._forget(kill.start, kill.cache)
        work = sum(SHARES[stage] for stage in STARTS[kill.start]) * self.seconds
        nth = 1 + int(kill.moment * self.writes / 1.1)
        program = [sys.executable, "-c", KILLED_AT_A_WRITE, str(nth)] if kill.aimed else ["dvc"]
        with subprocess.Popen(
            [*program, "repro"],
            cwd=self.clone.path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as dvc:
            with suppress(subprocess.TimeoutExpired):
                dvc.wait(None if kill.aimed else kill.moment * work)
            family = _family(dvc.pid)
            hit = f"write {nth} of {self.writes}" if kill.aimed else _kill(kill, dvc.pid, family)
        done = self.clone.run("make", "-s", "-o", ".venv/run", "repro", check=False)
        assert done.returncode == 0, f"{kill}: {done.stdout}{done.stderr}"
        psutil.wait_procs(family, 60)
        assert not any(process.is_running() for process in family), f"{kill}: it still runs"
        assert self.locked() == self.lock, f"{kill}: dvc.lock differs"
        assert self.contents() == self.files, f"{kill}: data/ differs"
        self._check_rows(kill)
        healed = [Path(path).name for path in re.findall(r"^(\S+): was .* kill", done.stdout, re.M)]
        cured = "".join(f", {name} healed" for name in healed)
        return f"{hit} after {kill.moment * work:.1f} s of {kill.start}{cured}"

    def _check_rows(self, kill: Kill) -> None:
        """Assert that MLflow has the result once and complete, and that no row is RUNNING."""
        with closing(sqlite3.connect(self.clone.path / "mlflow.db")) as store:
            active = "FROM runs WHERE lifecycle_stage = 'active'"
            rows = dict(store.execute(f"SELECT run_uuid, status {active}").fetchall())
            values = store.execute("SELECT DISTINCT run_uuid, key FROM latest_metrics").fetchall()
        assert "RUNNING" not in rows.values(), f"{kill}: a row stays RUNNING"
        finished = [run_id for run_id, status in rows.items() if status == "FINISHED"]
        assert len(finished) == 1, f"{kill}: {len(finished)} rows are FINISHED"
        logged = {key for run_id, key in values if run_id == finished[0]}
        assert logged == METRICS, f"{kill}: the row has {sorted(logged)}"

    def _forget(self, start: str, cache: bool) -> None:
        """Delete some stages' results; `dvc repro` then makes them, or finds them in its cache."""
        if not cache:
            shutil.rmtree(self.clone.path / ".dvc" / "cache", ignore_errors=True)
        for stage in STARTS[start]:
            for name in OUTPUTS[stage]:
                (self.data / name).unlink()
        if start == "nothing":
            (self.clone.path / "dvc.lock").unlink()
            (self.clone.path / "mlflow.db").unlink(missing_ok=True)
        (self.clone.path / "dvc.lock.damaged").unlink(missing_ok=True)


def _family(pid: int) -> list[psutil.Process]:
    """Return all processes below a process."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(kill: Kill, dvc: int, family: list[psutil.Process]) -> str:
    """Send the signal; if it is for a process below `dvc` and there is none, `dvc` gets it."""
    target = "dvc" if kill.target == "process" and not family else kill.target
    try:
        if target == "group":
            os.killpg(dvc, kill.signal)
        elif target == "dvc":
            os.kill(dvc, kill.signal)
        else:
            process = family[int(kill.moment * 1000) % len(family)]
            target = " ".join(Path(word).name for word in process.cmdline()[1:4])
            process.send_signal(kill.signal)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return "nothing killed, it had ended,"
    return f"{kill.signal.name} to {target}"


def main(n: str = "100", seed: str = "0") -> None:
    """Report every kill; stop at the first that loses something."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(make_clone(Path(folder, "clone")))
        print(f"an undisturbed run takes {ledger.seconds:.0f} s", flush=True)
        for i, kill in enumerate(draw(int(n), int(seed)), start=1):
            print(f"{i}: {ledger.survive(kill)}", flush=True)
    print("nothing was lost")


if __name__ == "__main__":
    main(*sys.argv[1:])

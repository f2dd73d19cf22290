"""Kill the pipeline at seeded random moments and see whether anything is lost.

    python tests/kills.py [number of kills] [seed] [aimed]

Each time, the results of some stages are forgotten, `dvc repro` begins to make them again, and
something is killed: a stage, `dvc`, or the whole process group. Then the steps of `make repro` run
and must give the results of an undisturbed run. In half of the kills DVC's cache is kept, so DVC
may take from it what the killed stage was making.

With `aimed`, the whole group is killed while `dvc` writes one of its own files in place.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from ruamel.yaml import YAML

from clone import Clone, environment, make_clone

OUTPUTS = {
    "generate-train-data": ["train.npz"],
    "train": ["model.keras", "training.csv"],
    "generate-test-data": ["test.npz"],
    "evaluate": ["metrics.json", "predictions.csv"],
}
STARTS = {stage: [stage] for stage in OUTPUTS} | {"nothing": list(OUTPUTS)}
SHARES = {"generate-train-data": 0.1, "train": 0.4, "generate-test-data": 0.1, "evaluate": 0.4}
"""Roughly each stage's share of an undisturbed run; a kill may come a little later."""


class Kill(NamedTuple):
    """The kill of one `dvc repro`."""

    start: str
    """The stage that it has to run, or `nothing` if the pipeline has never run."""
    target: str
    signal: signal.Signals
    moment: float
    """When, as a share of the stages' time or of DVC's writes."""
    cache: bool
    """Whether DVC's cache is kept."""


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
            until = time.monotonic() + 0.01  # whole again, if it comes too late
            while os.path.getsize(arguments[0]) and time.monotonic() < until:
                pass
            os.killpg(0, signal.SIGKILL)

sys.addaudithook(kill_at_the_last)
code = main(sys.argv[1:])
print(-left)
sys.exit(code)
"""
"""A `dvc` that is killed when it opens one of its files for the nth time."""


def draw(n: int, seed: int) -> list[Kill]:
    """Draw kills in which every start, target and signal takes its turn, combined at random."""
    rng = random.Random(seed)  # noqa: S311

    def in_turn(values: list[str]) -> list[str]:
        return [value for _ in range(n) for value in rng.sample(values, len(values))][:n]

    starts, targets = in_turn(list(STARTS)), in_turn(["stage", "dvc", "group"])
    signals = in_turn(["SIGKILL", "SIGTERM"])
    return [
        Kill(start, target, signal.Signals[name], rng.uniform(0, 1.1), rng.random() < 0.5)
        for start, target, name in zip(starts, targets, signals, strict=True)
    ]


class Ledger:
    """A clone, and the results of an undisturbed run, which must also follow every kill."""

    def __init__(self, clone: Clone, aimed: bool = False) -> None:
        self.clone = clone
        self.aimed = aimed
        self.data = clone.path / "data"
        started = time.monotonic()
        clone.dvc("repro")
        self.seconds = time.monotonic() - started
        self.lock = self.locked()
        self.files = self.contents()
        clone.commit("The results")
        self.writes = 0
        if aimed:
            self._forget("nothing", cache=True)
            done = clone.run(sys.executable, "-c", KILLED_AT_A_WRITE, "0", "repro")
            self.writes = int(done.stdout.split()[-1])

    def contents(self) -> dict[str, bytes]:
        """Return the content of every output that exists."""
        return {
            name: (self.data / name).read_bytes()
            for names in OUTPUTS.values()
            for name in names
            if (self.data / name).exists()
        }

    def locked(self) -> dict[str, Any]:
        """Return dvc.lock as a mapping, as DVC chooses the order of the stages in a new file."""
        return dict(YAML(typ="safe").load(self.clone.lock))

    def survive(self, kill: Kill) -> str:
        """Kill one `dvc repro`, run the next one, check everything; return what happened."""
        self._forget(kill.start, kill.cache)
        work = sum(SHARES[stage] for stage in STARTS[kill.start]) * self.seconds
        nth = 1 + int(kill.moment * self.writes / 1.1)
        program = [sys.executable, "-c", KILLED_AT_A_WRITE, str(nth)] if self.aimed else ["dvc"]
        with subprocess.Popen(
            [*program, "repro"],
            cwd=self.clone.path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as dvc:
            with suppress(subprocess.TimeoutExpired):
                dvc.wait(None if self.aimed else kill.moment * work)
            family = _family(dvc.pid)
            hit = f"write {nth} of {self.writes}" if self.aimed else _kill(kill, dvc.pid, family)
        for name, content in self.contents().items():
            assert content == self.files[name], f"{kill}: {name} is not whole"
        # The steps of `make repro`. Only DVC's and git's own files may have been truncated.
        healed = self.clone.run(sys.executable, "tools/heal.py").stdout
        cured = "".join(
            f", {Path(line.split(': ')[0]).name} healed" for line in healed.splitlines()
        )
        done = self.clone.dvc("repro", check=False)
        assert done.returncode == 0, f"{kill}: {healed}{done.stdout}{done.stderr}"
        self.clone.run(sys.executable, "tools/results.py")
        assert not self.running(), f"{kill}: a row stays RUNNING"
        psutil.wait_procs(family, 60)
        assert not any(process.is_running() for process in family), f"{kill}: it still runs"
        assert self.locked() == self.lock, f"{kill}: dvc.lock differs"
        assert self.contents() == self.files, f"{kill}: data/ differs"
        assert not list(self.data.glob(".*.partial")), f"{kill}: a half-written file stays"
        return f"{hit} after {kill.moment * work:.1f} s of {kill.start}{cured}"

    def running(self) -> int:
        """Return how many rows are RUNNING."""
        path = self.clone.path / "mlflow.db"
        with closing(sqlite3.connect(path)) as store:
            running = "SELECT count(*) FROM runs WHERE status = 'RUNNING'"
            return int(store.execute(running).fetchone()[0])

    def _forget(self, start: str, cache: bool) -> None:
        """Delete some stages' results; `dvc repro` then makes them again, or finds them cached."""
        if not cache:
            shutil.rmtree(self.clone.path / ".dvc" / "cache", ignore_errors=True)
        for stage in STARTS[start]:
            for name in OUTPUTS[stage]:
                (self.data / name).unlink()
        if start == "nothing":
            (self.clone.path / "dvc.lock").unlink()
            (self.clone.path / "mlflow.db").unlink(missing_ok=True)
        (self.clone.path / "dvc.lock.damaged").unlink(missing_ok=True)

    def check_store(self) -> None:
        """Assert that MLflow has the result once, and that no row is RUNNING."""
        if "does not have" in self.clone.run(sys.executable, "tools/results.py").stderr:
            self.clone.dvc("repro", "-f", "-s", "train", "evaluate")  # as it says
        assert self.locked() == self.lock
        assert not self.running()
        with closing(sqlite3.connect(self.clone.path / "mlflow.db")) as store:
            results = """
                SELECT count(*) FROM runs JOIN tags USING (run_uuid)
                WHERE key = 'model.md5' AND status = 'FINISHED' AND lifecycle_stage = 'active'
            """
            assert store.execute(results).fetchone() == (1,)
            measured = """
                SELECT count(*) FROM runs JOIN latest_metrics USING (run_uuid)
                WHERE key = 'test/accuracy' AND lifecycle_stage = 'active'
            """
            assert store.execute(measured).fetchone() == (1,)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(kill: Kill, dvc: int, family: list[psutil.Process]) -> str:
    """Send the signal; if it was meant for a stage and none runs, `dvc` gets it."""
    target = "dvc" if kill.target == "stage" and not family else kill.target
    try:
        if target == "group":
            os.killpg(dvc, kill.signal)
        elif target == "dvc":
            os.kill(dvc, kill.signal)
        else:
            family[0].send_signal(kill.signal)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return "nothing killed, it had ended,"
    return f"{kill.signal.name} to {target}"


def main(n: str = "100", seed: str = "0", *aimed: str) -> None:
    """Report every kill; stop at the first that does harm."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(make_clone(Path(folder, "clone")), aimed == ("aimed",))
        print(f"an undisturbed run takes {ledger.seconds:.0f} s", flush=True)
        for i, kill in enumerate(draw(int(n), int(seed)), start=1):
            print(f"{i}: {ledger.survive(kill)}", flush=True)
        ledger.check_store()
    print("nothing was lost")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measure what a sweep costs beyond its trials: `python benchmarks/cluster.py`.

Everything is measured in one run on one machine, with the tests' tiny params. Prints a table and
writes it to RESULTS-cluster.md. The git and DVC remotes are folders; the tracking server is MLflow
on SQLite.
"""

import argparse
import datetime
import itertools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "stages")]

from support.clone import environment, make_clone  # noqa: E402
from support.pipelines import Repository  # noqa: E402
from support.processor import processor  # noqa: E402
from support.servers import serving  # noqa: E402

SLEEPING = """
import os, sys, time
if "dvc_mlflow.sweep.trial" in sys.orig_argv:
    time.sleep(0.1)
    os._exit(0)
"""
"""sitecustomize.py, which Python runs first: with it a thousand trials end within minutes."""

SECONDS = re.compile(r"^sweep-\S+ .* done on \S+ in ([\d.]+) s", re.M)


def repository(folder: Path) -> Repository:
    """Make a repository with a git remote, which has its commit, and a DVC remote for results."""
    subprocess.run(["git", "init", "-q", "--bare", folder / "git"], check=True)
    (folder / "files").mkdir()
    clone = Repository(make_clone(folder / "repository").path)
    clone.git("remote", "set-url", "origin", f"{folder}/git")
    clone.dvc("remote", "add", "-d", "team", f"{folder}/files")
    clone.commit("A remote")
    clone.git("checkout", "-q", "-B", "main")
    clone.git("push", "-q", "origin", "main")
    return clone


class Bench:
    """The measurements, in the order of the table."""

    def __init__(self, folder: Path, repeats: int, trials: int, large: int) -> None:
        self.folder, self.repeats, self.trials, self.large = folder, repeats, trials, large
        self.rows: list[tuple[str, str, str]] = []
        self.store: dict[str, Any] = {}
        self._seeds = itertools.count(1)
        self.megabytes = 0.0
        self.clone = repository(folder)

    def row(self, what: str, value: str, target: str = "") -> None:
        """Add a row to the table and print it."""
        self.rows.append((what, value, target))
        print(f"{what:66} {value:>22}   {target}", flush=True)

    def everything(self) -> None:
        """Measure everything."""
        with serving(self.clone, "server", "--workers", "1") as address:
            self.store["MLFLOW_TRACKING_URI"] = address
            self.overhead()
            self.throughput()
            self.growth()
        self.sleeping()

    def seeds(self, n: int) -> str:
        """Return an override with `n` seeds that no trial has used."""
        return f"train.seed={','.join(str(next(self._seeds)) for _ in range(n))}"

    def sweep(self, override: str, cpus: int = 1) -> tuple[float, list[float]]:
        """Run a sweep; return its seconds and those of its trials, and note its peak memory."""
        started = time.perf_counter()
        command = ["dvc-mlflow", "sweep", "-S", override, "--cpus", str(cpus)]
        with (self.folder / "said").open("w+") as said:
            driver = subprocess.Popen(
                [*command, "--clones", f"{self.folder}/clones"],
                cwd=self.clone.path,
                env=environment(**self.store),
                stdout=said,
            )
            _, status, used = os.wait4(driver.pid, 0)
            driver.returncode = os.waitstatus_to_exitcode(status)
            assert not driver.returncode or "PYTHONPATH" in self.store  # then nothing is pushed
            said.seek(0)
            seconds = [float(found) for found in SECONDS.findall(said.read())]
        self.megabytes = used.ru_maxrss / 1024  # of the driver, or of a larger process it started
        return time.perf_counter() - started, seconds

    def trial(self) -> tuple[float, float]:
        """Run a sweep of one trial; return the trial's seconds and the rest of the sweep's."""
        wall, (seconds,) = self.sweep(self.seeds(1), os.cpu_count() or 1)
        return seconds, wall - seconds

    def plain(self) -> float:
        """Return the seconds that `dvc exp run` takes in the repository itself."""
        started = time.perf_counter()
        self.clone.dvc("exp", "run", "-S", self.seeds(1), **self.store)
        seconds = time.perf_counter() - started
        self.clone.git("checkout", "-q", "--force", "main")
        return seconds

    def overhead(self) -> None:
        """Measure a trial and the same `dvc exp run` in turn, under the same load."""
        self.plain(), self.trial()  # makes the data of both and the trial's clone
        both = [(self.plain(), *self.trial()) for _ in range(self.repeats)]
        plain, trial, beyond = map(statistics.median, zip(*both, strict=True))
        self.row("`dvc exp run`", f"{plain:.1f} s")
        self.row("the same as a trial", f"{trial:.1f} s")
        share = (trial - plain) / plain
        self.row("  its overhead", f"{trial - plain:.1f} s, {share:.0%}", "at most 1 s")
        self.row("start and end of a sweep, with Ray", f"{beyond:.1f} s")

    def throughput(self) -> None:
        """Compare two trials at a time with DVC's own queue."""
        seeds, started = self.seeds(self.trials), time.perf_counter()
        self.clone.dvc("exp", "run", "--queue", "-S", seeds)
        self.clone.dvc("queue", "start", "-j", "2", **self.store)
        self.clone.wait_for_queue()
        queue = time.perf_counter() - started
        wall, _ = self.sweep(self.seeds(self.trials))
        self.row(f"{self.trials} experiments by `dvc queue start -j 2`", f"{queue:.0f} s")
        self.row(f"{self.trials} trials by a sweep on two workers", f"{wall:.0f} s")
        self.row("  sweep / queue", f"{wall / queue:.2f}")

    def growth(self) -> None:
        """Measure a trial when the remotes hold few others and when they hold many."""
        for full in (False, True):
            if full:
                self.fill()
            there = len(self.clone.git("ls-remote", "origin", "refs/exps/*").splitlines())
            both = [self.trial() for _ in range(self.repeats)]
            trial, beyond = map(statistics.median, zip(*both, strict=True))
            what = f"a trial, {there:,} others in the remotes"
            self.row(what, f"{trial:.1f} s + {beyond:.1f} s for start and end")

    def fill(self) -> None:
        """Add to the remotes what many trials would have: a ref and a model."""
        refs = self.clone.git("ls-remote", "origin", "refs/exps/*").splitlines()
        sha, _, ref = refs[0].partition("\t")
        lines = []
        for _ in range(self.large):
            name = uuid.uuid4().hex
            lines.append(f"create {ref.rpartition('/')[0]}/sweep-{name} {sha}\n")
            (self.folder / "files" / "files" / "md5" / name[:2]).mkdir(exist_ok=True)
            (self.folder / "files" / "files" / "md5" / name[:2] / name[2:]).touch()
        update = ["git", "-C", f"{self.folder}/git", "update-ref", "--stdin"]
        subprocess.run(update, input="".join(lines), text=True, check=True)

    def sleeping(self) -> None:
        """Measure what the driver, Ray and the clones cost for trials that do nothing."""
        (self.folder / "sitecustomize.py").write_text(SLEEPING)
        self.store = {"PYTHONPATH": f"{self.folder}"}
        for n in (10, 100, self.large):
            wall, times = self.sweep(self.seeds(n))
            assert len(times) == n
            each = f"{statistics.median(times):.1f} s a trial, driver {self.megabytes:.0f} MB"
            self.row(f"{n:,} trials that sleep 0.1 s, on two workers", f"{wall:.0f} s, {each}")

    def text(self) -> str:
        """Return the table and a description of the machine."""
        packages = ("ray", "dvc", "mlflow", "tensorflow")
        lines = [
            "# Results of benchmarks/cluster.py",
            "",
            f"- {datetime.datetime.now(tz=datetime.UTC).date()}, medians of {self.repeats}",
            f"- {processor()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
            f"- Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in packages),
            "",
            "| what | measured | target |",
            "|---|---:|---|",
            *(f"| {what.strip()} | {value} | {target} |" for what, value, target in self.rows),
        ]
        return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything, and write RESULTS-cluster.md unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="once and small: is it in order?")
    options = parser.parse_args()
    numbers = (1, 2, 20) if options.quick else (3, 6, 1000)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), *numbers)
        bench.everything()
    if not options.quick:
        (HERE / "RESULTS-cluster.md").write_text(bench.text())


if __name__ == "__main__":
    main()

"""Compare the pipeline's speed with the post's script, PyTorch and JAX: `make bench`.

Everything is measured in one run on one machine; each number is the median of several. Prints the
table and writes it to RESULTS.md. PyTorch and JAX are not dependencies: their rows need an
environment that has them:

    python3 -m venv /tmp/others && /tmp/others/bin/pip install torch jax optax
    make bench OTHERS=/tmp/others/bin/python
"""

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "stages")]

from process import Run, run  # noqa: E402
from support.clone import Clone, make_clone  # noqa: E402
from support.processor import processor  # noqa: E402
from vanilla_lstm.task.sequences import generate  # noqa: E402

PREFIX = "dvc-mlflow run "
WAYS = {"recorded": PREFIX, "bare": ""}
"""The prefix in dvc.yaml, by way."""


def empty_project(path: Path) -> Clone:
    """Make a DVC project of four stages that do nothing and run it."""
    path.mkdir()
    project = Clone(path)
    project.git("init", "-q")
    project.dvc("init", "-q")
    stages = [f"  s{i}:\n    cmd: touch out{i}\n    outs: [out{i}]\n" for i in range(4)]
    (path / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    project.dvc("repro", "-q")
    project.commit()
    return project


class Bench:
    """The measurements, in the order of the table."""

    def __init__(self, folder: Path, others: str, repeats: int, epochs: int, scale: int) -> None:
        self.folder, self.others = folder, others
        self.repeats, self.epochs, self.scale = repeats, epochs, scale
        self.rows: list[tuple[str, str, str]] = []

    def median(self, measure: Callable[[], float]) -> float:
        """Return the median of several measurements."""
        return statistics.median(measure() for _ in range(self.repeats))

    @staticmethod
    def wall_of(clone: Clone, script: str) -> float:
        """Return the seconds that a stage's process takes."""
        return run(sys.executable, script, cwd=clone.path).wall

    def row(self, what: str, value: str, target: str = "") -> None:
        """Add a row to the table and print it."""
        self.rows.append((what, value, target))
        print(f"{what:66} {value:>22}   {target}", flush=True)

    def everything(self) -> None:
        """Measure everything."""
        python, epochs = sys.executable, str(self.epochs)
        measured: dict[str, list[Run]] = {}
        programs: dict[str, list[str | Path]] = {
            "post": [python, HERE / "post.py", epochs],
            "ours": [python, HERE / "ours.py", epochs],
        }
        for name, module in [("pytorch", "torch"), ("jax", "optax")]:
            if subprocess.run(
                [self.others, "-c", f"import {module}"], capture_output=True, check=False
            ).returncode:
                print(f"no {name} row: {self.others} has no {module}; see the head of {__file__}")
            else:
                programs[name] = [self.others, HERE / f"in_{name}.py", epochs]
        for _ in range(self.repeats):  # in turn, so that all run under the same load
            for name, command in programs.items():
                measured.setdefault(name, []).append(run(*command))
        fit = {k: statistics.median(r.value for r in runs) for k, runs in measured.items()}
        script = statistics.median(r.wall for r in measured["post"])
        self.row("the post's script", f"{script:.1f} s")
        self.row("the post's `model.fit`", f"{fit['post']:.1f} s")
        self.row("our `fit`, compilation included", f"{fit['ours']:.2f} s")
        self.row("  the post's `fit` / ours", f"{fit['post'] / fit['ours']:.1f}", "at least 12")
        for name, label in [("pytorch", "PyTorch"), ("jax", "JAX")]:
            if name in fit:
                self.row(f"training in {label}", f"{fit[name]:.2f} s")
                self.row(f"  ours / {label}'s", f"{fit['ours'] / fit[name]:.2f}", "at most 1.0")
        self.pipeline(script)
        self.scaling()
        self.large()

    def pipeline(self, post: float) -> None:
        """Measure the stages as processes, and DVC itself."""
        clones = {
            name: make_clone(self.folder / name, {"train.epochs": self.epochs}) for name in WAYS
        }
        runs: dict[str, list[Run]] = {name: [] for name in WAYS}
        for name, clone in clones.items():
            file = clone.path / "dvc.yaml"
            file.write_text(file.read_text().replace(PREFIX, WAYS[name]))
        options = ("repro", "-f", "--no-run-cache")
        clone, first = clones["recorded"], []
        for _ in range(self.repeats):
            clone.remove_store()
            first.append(run("dvc", *options, cwd=clone.path).wall)
        for _ in range(self.repeats):  # in turn, so that all run under the same load
            for name in WAYS:
                runs[name].append(run("dvc", *options, cwd=clones[name].path))
        walls = {name: statistics.median(r.wall for r in runs[name]) for name in WAYS}
        recorded, bare = walls.values()
        self.row("`dvc repro` of all stages, recorded", f"{recorded:.1f} s")
        self.row("  the same without recording", f"{bare:.1f} s")
        self.row("  recorded / without", f"{recorded / bare:.2f}", "at most 1.05")
        self.row("  recorded / the post's script", f"{recorded / post:.2f}", "at most 0.22")
        self.row("  its peak memory", f"{max(r.peak for r in runs['recorded']):.2f} GB")
        self.row("  the first time, which makes the store", f"{statistics.median(first):.1f} s")
        for stage in ("train", "evaluate"):
            script = f"stages/{stage}.py"
            wall = self.median(partial(self.wall_of, clone, script))
            self.row(f"the {stage} stage as a process", f"{wall:.1f} s")
        empty = empty_project(self.folder / "empty")
        noop: dict[str, list[float]] = {"ours": [], "empty": []}
        run("dvc", "repro", cwd=clone.path)
        for _ in range(3 * self.repeats):
            noop["ours"].append(run("dvc", "repro", cwd=clone.path).wall)
            noop["empty"].append(run("dvc", "repro", cwd=empty.path).wall)
        ours, empties = map(statistics.median, noop.values())
        self.row("`dvc repro` with nothing to do", f"{ours:.2f} s")
        self.row(
            "  / that of an empty project of four stages", f"{ours / empties:.2f}", "at most 1.2"
        )

    def scaling(self) -> None:
        """Measure how the cost of an epoch grows, and how fast digits are drawn."""
        base: float | None = None
        cases = [(1, 1), (10, 1), (100, 1), (1, 10), (1, 100), (1, 200)]
        for samples, steps in cases:
            n_samples, n_steps = 1000 * samples, 10 * steps
            epochs = max(5, self.epochs // (samples * steps))
            seconds = self.median(partial(self.cpu_of_an_epoch, epochs, n_samples, n_steps))
            base = base or seconds
            factor = seconds / base / samples / steps
            self.row(
                f"an epoch of {n_samples:,} samples of {n_steps:,} steps",
                f"{seconds:.4f} CPU-s, {factor:.2f} of linear",
                "at most 1.20" if samples == 1 else "",
            )
        for insert in (0, 5):
            what = f"digits drawn a second, {insert} of {10 + insert} inserted"
            speed = self.median(partial(self.speed_of_drawing, insert))
            self.row(what, f"{speed:.0f} million", "at least 20 million")

    @staticmethod
    def cpu_of_an_epoch(epochs: int, n_samples: int, n_steps: int) -> float:
        """Return the CPU-seconds of an epoch."""
        command = [sys.executable, HERE / "ours.py", epochs, n_samples, n_steps]
        return float(run(*map(str, command)).printed[-2])

    def speed_of_drawing(self, insert: int) -> float:
        """Return how many million digits are drawn per second."""
        started = time.perf_counter()
        x, _ = generate(self.scale, 1, n_max=5, n_steps=10, targets=[1], insert=insert)
        return x.size / (time.perf_counter() - started) / 1e6

    def large(self) -> None:
        """Measure the memory that many samples need, in an epoch of large batches."""
        params: dict[str, Any] = {
            "train_data.n_samples": self.scale,
            "train.epochs": 1,
            "train.batch_size": 8192,
        }
        clone = make_clone(self.folder / "large", params)
        for command, target in [(["generate_data.py", "train"], 0.5), (["train.py"], 1.5)]:
            script, *arguments = command
            result = run(sys.executable, f"stages/{script}", *arguments, cwd=clone.path)
            self.row(
                f"peak memory of {script} with {self.scale:,} samples",
                f"{result.peak:.2f} GB",
                f"below {target}",
            )

    def text(self) -> str:
        """Return the table and a description of the machine."""
        packages = ("tensorflow", "keras", "mlflow", "dvc", "numpy")
        lines = [
            "# Results of `make bench`",
            "",
            f"- {datetime.datetime.now(tz=datetime.UTC).date()}, medians of {self.repeats}, "
            f"{self.epochs} epochs",
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
    """Measure everything, and write RESULTS.md unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--others", default=os.environ.get("OTHERS") or sys.executable)
    parser.add_argument("--quick", action="store_true", help="once and small: is it in order?")
    options = parser.parse_args()
    numbers = (1, 20, 100_000) if options.quick else (3, 250, 10_000_000)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.others, *numbers)
        bench.everything()
    if not options.quick:
        (HERE / "RESULTS.md").write_text(bench.text())


if __name__ == "__main__":
    main()

"""Measure what recording costs: each pipeline bare, with the prefix, and by `dvc-mlflow dvc`.

`python benchmarks/recording.py` prints the table and writes it to RESULTS-recording.md; with
`--quick` it measures everything once and small. CPU time includes the recorder's: this process
adopts it, and waits for it after each run.
"""

import argparse
import ctypes
import datetime
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from process import run  # noqa: E402
from support.clone import environment  # noqa: E402
from support.pipelines import Repository, Stages, repository  # noqa: E402
from support.processor import processor  # noqa: E402

MODEL = {
    "m": {
        "path": "model.bin",
        "type": "model",
        "meta": {"loader_module": "loader", "pip_requirements": ["numpy"]},
    }
}
"""How MLflow would load the model of a stage."""
LONG = 40
"""Seconds from which on a run is measured once."""
BECOME_SUBREAPER = 36  # prctl's: the recorder's parent has ended, so it becomes our child


class Cost(NamedTuple):
    """What a run took."""

    wall: float
    cpu: float


def measure(project: Repository, *command: str) -> Cost:
    """Return what `dvc repro -f` costs, with all that it leaves behind."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        [*command, "repro", "-q", "-f"],
        cwd=project.path,
        env=environment(),
        check=True,
        capture_output=True,
    )
    wall = time.perf_counter() - started
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return Cost(wall, cpu)


def prefixed(stages: Stages) -> Stages:
    """Return the stages with `dvc-mlflow run` before their commands."""
    return {
        name: {**stage, "do": _prefixed(stage["do"])} if "do" in stage else _prefixed(stage)
        for name, stage in stages.items()
    }


def _prefixed(stage: dict[str, Any]) -> dict[str, Any]:
    return {**stage, "cmd": f"exec dvc-mlflow run sh -c {shlex.quote(stage['cmd'])}"}


class Bench:
    """The measurements, in the order of the table."""

    def __init__(self, folder: Path, repeats: int, scale: float) -> None:
        self.folder, self.repeats, self.scale = folder, repeats, scale
        self.rows: list[tuple[str, ...]] = []

    def compare(
        self,
        what: str,
        stages: Stages,
        make: Callable[[Repository], None] = lambda _: None,
        before: Callable[[Repository], None] = lambda _: None,
        target: str = "",
        **options: Any,
    ) -> None:
        """Measure a pipeline in three ways; `before` each run, untimed, once made."""
        ways = (stages, ("dvc",)), (prefixed(stages), ("dvc",)), (stages, ("dvc-mlflow", "dvc"))
        projects, longest = [], 0.0
        for number, (given, command) in enumerate(ways):
            project = repository(self.folder / f"{len(self.rows)}-{number}", given, **options)
            make(project)
            longest = max(longest, measure(project, *command).wall)  # the store is made once
            projects.append((project, command))
        costs: list[list[Cost]] = [[], [], []]
        for _ in range(1 if longest > LONG else self.repeats):
            for (project, command), found in zip(projects, costs, strict=True):
                before(project)
                found.append(measure(project, *command))
        (bare, bare_cpu), (wall, cpu), (front, front_cpu) = (
            [statistics.median(values) for values in zip(*each, strict=True)] for each in costs
        )
        self.row(
            what,
            f"{bare:.2f} / {bare_cpu:.2f}",
            f"{wall:.2f} / {cpu:.2f}",
            f"{wall - bare:+.2f} / {cpu - bare_cpu:+.2f}",
            f"{wall / bare:.2f}",
            f"{front:.2f} / {front_cpu:.2f}",
            f"{front / bare:.2f}",
            target,
        )

    def row(self, *cells: str) -> None:
        """Add a row to the table and print it."""
        self.rows.append(cells)
        print(*cells, sep=" | ", flush=True)

    def everything(self) -> None:
        """Measure everything."""
        self.compare("a stage of 1 s", {"one": stage("sleep 1", 0)})
        for count, target in ((8, ""), (int(2 + 100 * self.scale), "at most 1.3")):
            short = {f"s{i}": stage("sleep 0.5", i) for i in range(count)}
            self.compare(f"{count} stages of 0.5 s", short, target=target)
        for count, target in ((100, "at most 1.3"), (300, "")):
            many = {f"s{i}": stage("true", i) for i in range(int(count * self.scale))}
            self.compare(f"{len(many)} stages that do nothing", many, target=target)
        items = [f"i{i}" for i in range(int(2 + 48 * self.scale))]
        each = {"s": {"foreach": items, "do": stage("true", 1, "m${item}.json")}}
        self.compare(f"{len(items)} items of a foreach", each)
        for half in (0.5, 1.0):  # two sizes show how a cost grows
            self.growing(half * self.scale)
        alone = [run("dvc-mlflow", "run", "true") for _ in range(5 * self.repeats)]
        cpu = 1000 * statistics.median(cost.cpu for cost in alone)
        self.row("`run` itself", "", f"{cpu:.0f} ms of CPU", "", "", "", "", "at most 60 ms")

    def growing(self, scale: float) -> None:
        """Measure what grows with the size of a pipeline."""
        outs = [f"out{i}" for i in range(int(2 + 50 * scale))]
        writes = {"one": {**stage(f"for f in {' '.join(outs)}; do echo $f > $f; done", 0)}}
        writes["one"]["outs"] = outs
        self.compare(f"{len(outs)} outputs", writes)
        lines = int(100_000 * scale)
        script = f"(echo step,loss; seq {lines} | sed 's/$/,0.5/') > curve.csv"
        curve = {**stage(script, 0), "plots": [{"curve.csv": {"x": "step", "cache": False}}]}
        self.compare(f"a curve of {lines:,} lines", {"one": curve})
        size = int(1e9 * scale)
        model = {**stage(f"head -c {size} /dev/zero > model.bin", 0), "outs": ["model.bin"]}
        self.compare(f"a model of {size / 1e9:.1f} GB", {"one": model}, artifacts=MODEL)
        size = int(2e9 * scale)
        reads = {"one": {**stage("sleep 1", 0), "deps": ["large"]}}

        def make_file(project: Repository) -> None:
            (project.path / "large").write_bytes(os.urandom(1 << 20) * (size >> 20))

        label = f"a dep of {size / 1e9:.1f} GB"
        self.compare(f"{label}, known to DVC", reads, make_file)
        self.compare(
            f"{label}, new", reads, make_file, lambda project: touch([project.path / "large"])
        )
        count = int(20_000 * scale)

        def make_folder(project: Repository) -> None:
            (project.path / "large").mkdir()
            for i in range(count):
                (project.path / "large" / f"{i}").write_text(f"{i}\n")

        label = f"a folder of {count:,} files"
        self.compare(f"{label}, known to DVC", reads, make_folder)
        self.compare(
            f"{label}, new",
            reads,
            make_folder,
            lambda project: touch(sorted((project.path / "large").iterdir())),
        )

    def text(self) -> str:
        """Return the table and a description of the machine."""
        front = "by `dvc-mlflow dvc`"
        heads = ("`dvc repro -f` of", "bare", "recorded", "more", "ratio", front, "ratio", "target")
        return "\n".join(
            [
                "# What recording costs",
                "",
                f"- {datetime.datetime.now(tz=datetime.UTC).date()}, wall / CPU seconds, medians "
                f"of {self.repeats} in turn, or one run of more than {LONG} s; CPU includes the "
                "recorder's",
                f"- {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
                f"dvc {version('dvc')}, mlflow {version('mlflow')}",
                "",
                "| " + " | ".join(heads) + " |",
                "|---|---:|---:|---:|---:|---:|---:|---|",
                *("| " + " | ".join(cells) + " |" for cells in self.rows),
                "",
            ]
        )


def stage(command: str, number: int, file: str = "") -> dict[str, Any]:
    """Return a stage that runs a command and has a metric, in a file of its own."""
    file = file or f"m{number}.json"
    return {
        "cmd": f"{command}; echo '{{\"n\": {number}}}' > {file}",
        "metrics": [{file: {"cache": False}}],
    }


def touch(files: Sequence[Path]) -> None:
    """Let DVC hash files anew."""
    for file in files:
        os.utime(file)


def main() -> None:
    """Measure everything, and write the table unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="once and small: is it in order?")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(BECOME_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), *((1, 0.02) if options.quick else (3, 1.0)))
        bench.everything()
    if not options.quick:
        (HERE / "RESULTS-recording.md").write_text(bench.text())


if __name__ == "__main__":
    main()

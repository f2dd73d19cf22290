"""Measure what recording costs: each pipeline alone, followed, and with the prefix.

`python benchmarks/recording.py` prints the table and writes it to RESULTS-recording.md; with
`--quick` it measures everything once and small. A time is that of `dvc`, and beside it that of the
`dvc-mlflow record` after it, with which all rows are whole.
"""

import argparse
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
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from process import run  # noqa: E402
from support.clone import environment  # noqa: E402
from support.following import following  # noqa: E402
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


class Cost(NamedTuple):
    """What a run took, in seconds."""

    dvc: float
    record: float


def measure(project: Repository, *, records: bool) -> Cost:
    """Return what `dvc repro -f` takes, and then what it takes until its rows are whole."""
    seconds = []
    for command in (["dvc", "repro", "-q", "-f"], ["dvc-mlflow", "record"])[: 1 + records]:
        started = time.perf_counter()
        subprocess.run(
            command, cwd=project.path, env=environment(), check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - started)
    return Cost(seconds[0], sum(seconds[1:]))


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
        **options: Any,
    ) -> None:
        """Measure a pipeline in three ways; `before` each run, untimed, once made."""
        ways, longest = (stages, stages, prefixed(stages)), 0.0
        projects, costs = [], [list[Cost]() for _ in ways]
        with ExitStack() as opened:
            for number, given in enumerate(ways):
                project = repository(self.folder / f"{len(self.rows)}-{number}", given, **options)
                make(project)
                if number == 1:
                    opened.enter_context(following(project))
                longest = max(longest, measure(project, records=number > 0).dvc)
                projects.append(project)
            for _ in range(1 if longest > LONG else self.repeats):
                for number, (project, found) in enumerate(zip(projects, costs, strict=True)):
                    before(project)
                    found.append(measure(project, records=number > 0))
        alone, followed, prefix = (
            Cost(*(statistics.median(values) for values in zip(*each, strict=True)))
            for each in costs
        )
        self.row(
            what,
            f"{alone.dvc:.2f}",
            f"{followed.dvc:.2f} + {followed.record:.2f}",
            f"{followed.dvc / alone.dvc:.2f}",
            f"{prefix.dvc:.2f} + {prefix.record:.2f}",
            f"{prefix.dvc / alone.dvc:.2f}",
        )

    def row(self, *cells: str) -> None:
        """Add a row to the table and print it."""
        self.rows.append(cells)
        print(*cells, sep=" | ", flush=True)

    def everything(self) -> None:
        """Measure everything."""
        self.compare("a stage of 1 s", {"one": stage("sleep 1", 0)})
        for count in (8, int(2 + 100 * self.scale)):
            short = {f"s{i}": stage("sleep 0.5", i) for i in range(count)}
            self.compare(f"{count} stages of 0.5 s", short)
        for count in (100, 300):
            many = {f"s{i}": stage("true", i) for i in range(int(count * self.scale))}
            self.compare(f"{len(many)} stages that do nothing", many)
        items = [f"i{i}" for i in range(int(2 + 48 * self.scale))]
        each = {"s": {"foreach": items, "do": stage("true", 1, "m${item}.json")}}
        self.compare(f"{len(items)} items of a foreach", each)
        for half in (0.5, 1.0):  # two sizes show how a cost grows
            self.growing(half * self.scale)
        alone = [run("dvc-mlflow", "run", "true") for _ in range(5 * self.repeats)]
        cpu = 1000 * statistics.median(cost.cpu for cost in alone)
        self.row("`run` itself", "", "", "", f"{cpu:.0f} ms of CPU", "")

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
        heads = ("`dvc repro -f` of", "alone", "followed", "ratio", "with the prefix", "ratio")
        return "\n".join(
            [
                "# What recording costs",
                "",
                f"- {datetime.datetime.now(tz=datetime.UTC).date()}, seconds of `dvc` and, after "
                f"the +, of `dvc-mlflow record`; medians of {self.repeats} in turn, or one run of "
                f"more than {LONG} s",
                f"- {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
                f"dvc {version('dvc')}, mlflow {version('mlflow')}",
                "",
                "| " + " | ".join(heads) + " |",
                "|---|---:|---:|---:|---:|---:|",
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
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), *((1, 0.02) if options.quick else (3, 1.0)))
        bench.everything()
    if not options.quick:
        (HERE / "RESULTS-recording.md").write_text(bench.text())


if __name__ == "__main__":
    main()

"""Measure what `dvc-mlflow record --all` costs, and a store of many rows: part of `make bench`.

Histories of different results, one a commit, go into SQLite and into a local MLflow server. Then
one more result is recorded, and the table's first page is read. Prints the table and writes it to
RESULTS-history.md.
"""

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import psutil  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

from process import Run, run  # noqa: E402
from support.clone import environment  # noqa: E402
from support.histories import history, result  # noqa: E402
from support.pipelines import Repository  # noqa: E402
from support.processor import processor  # noqa: E402
from support.servers import answers, free_port, running  # noqa: E402

RECORD = [sys.executable, "-P", "-m", "dvc_mlflow", "record"]


def record(folder: Path, *options: str, **more: str) -> Run:
    """Run `dvc-mlflow record`."""
    return run(*RECORD, *options, cwd=folder, **more)


def seconds_of_one_more(project: Repository, n: int, **more: str) -> float:
    """Return the seconds of `dvc-mlflow record` for a result that comes after `n` others."""
    project.write(result(n))
    project.commit(f"Result {n}")
    return record(project.path, **more).wall


def settle(port: int) -> None:
    """Wait until a server's processes have started: they are at it after its first answer."""
    for _ in range(60):
        before = seconds_of_cpu(port)
        time.sleep(1)
        if seconds_of_cpu(port) - before < 0.1:
            return


def seconds_of_cpu(port: int) -> float:
    """Return the CPU time of a server's processes."""
    found = [p for p in psutil.process_iter(["cmdline"]) if f"{port}" in (p.info["cmdline"] or ())]
    every = {each for p in found for each in (p, *p.children(recursive=True))}
    return float(sum(sum(each.cpu_times()[:2]) for each in every))


def seconds_of_a_page(store: str) -> float:
    """Return the seconds in which a store answers with the first page of its largest table."""
    client = MlflowClient(store)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    client.search_runs(ids)  # opens the store
    started = time.perf_counter()
    page = client.search_runs(ids, max_results=100, order_by=["attributes.start_time DESC"])
    seconds = time.perf_counter() - started
    assert len(page) > 0, f"{store} is empty"
    return seconds


def main() -> None:
    """Measure everything, and write the table unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small: is it in order?")
    options = parser.parse_args()
    sizes = (20, 100) if options.quick else (1000, 10_000)
    lines = []
    with tempfile.TemporaryDirectory() as top, ExitStack() as servers:
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        store = f"sqlite:///{top}/server.db"
        serve = ["mlflow", "server", "--port", str(port), "--backend-store-uri", store]
        serve += ["--artifacts-destination", f"{top}/artifacts"]
        ready = partial(answers, f"{address}/health")
        servers.enter_context(running(serve, ready, cwd=Path(top), env=environment()))
        settle(port)
        for n in sizes:
            project = history(Path(top, f"project{n}"), n)
            for name, more in (("SQLite", {}), ("a server", {"MLFLOW_TRACKING_URI": address})):
                if name == "a server" and n > sizes[0]:
                    continue
                _, seconds, _, peak = record(project.path, "--all", **more)
                again = record(project.path, "--all", **more).wall
                another = seconds_of_one_more(project, n + len(more), **more)
                page = seconds_of_a_page(*more.values() or [f"sqlite:///{project.path}/mlflow.db"])
                cells = [
                    f"{n:,}",
                    name,
                    f"{seconds:.1f} s",
                    f"{n / seconds:.0f}",
                    f"{1000 * peak:.0f} MB",
                ]
                cells += [f"{again:.1f} s", f"{another:.1f} s", f"{1000 * page:.0f} ms"]
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    heads = ["commits", "into", "took", "rows a second", "peak memory", "nothing new"]
    heads += ["one more", "100 rows of the table"]
    text = "\n".join(
        [
            "# What importing a history costs",
            "",
            f"- {datetime.datetime.now(tz=datetime.UTC).date()}, once each, imports included",
            f"- {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"dvc {version('dvc')}, mlflow {version('mlflow')}",
            "",
            f"| {' | '.join(heads)} |",
            "|---:|---|---:|---:|---:|---:|---:|---:|",
            *lines,
            "",
        ]
    )
    if not options.quick:
        (HERE / "RESULTS-history.md").write_text(text)


if __name__ == "__main__":
    main()

"""A long git history of a DVC pipeline's results, written by git alone: nothing has run."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from support.pipelines import Repository, repository, train

STAGES = {
    "train": train("raw.txt"),
    "evaluate": {
        "cmd": "echo {} > metrics.json",
        "deps": ["model.txt"],
        "params": ["threshold"],
        "metrics": [{"metrics.json": {"cache": False}}],
    },
}
"""The pipeline of `history`."""
FIRST = 1_700_000_000
"""The date of the first commit, in seconds since 1970; the others are a minute apart."""


def history(path: Path, n_commits: int) -> Repository:
    """Make a repository with a commit of each of `n_commits` different results of `STAGES`."""
    made = repository(path, STAGES, {"rate": 0, "threshold": 0})
    stream = []
    for i in range(n_commits):
        message = f"Result {i}"
        stream.append(
            f"commit refs/heads/main\nauthor A. Uthor <a@example.org> {FIRST + 60 * i} +0000\n"
            f"committer C. Ommitter <c@example.org> {FIRST + 60 * i} +0000\n"
            f"data {len(message)}\n{message}\n" + ("from refs/heads/main^0\n" if i == 0 else "")
        )
        for name, text in result(i).items():
            stream.append(f"M 100644 inline {name}\ndata {len(text)}\n{text}\n")
    command = ["git", "fast-import", "--quiet", "--force"]
    subprocess.run(command, cwd=path, input="".join(stream), text=True, check=True)
    made.git("reset", "-q", "--hard")
    return made


def result(i: int) -> dict[str, str]:
    """Return the files of one result: params, curve, metrics and dvc.lock."""
    curve = "step,loss\n" + "".join(f"{step},{1 / (step + i)}\n" for step in range(1, 21))
    metrics = json.dumps({"score": i / 1000, "loss": 1 / (1 + i)})
    raw, model = "1\n", f"1\nrate: {i}\n"
    lock: dict[str, Any] = {
        "train": {
            "cmd": STAGES["train"]["cmd"],
            "deps": [_entry("raw.txt", raw)],
            "params": {"params.yaml": {"rate": i}},
            "outs": [_entry("curve.csv", curve), _entry("model.txt", model)],
        },
        "evaluate": {
            "cmd": STAGES["evaluate"]["cmd"],
            "deps": [_entry("model.txt", model)],
            "params": {"params.yaml": {"threshold": 0}},
            "outs": [_entry("metrics.json", metrics)],
        },
    }
    return {
        "params.yaml": f"rate: {i}\nthreshold: 0\n",
        "curve.csv": curve,
        "metrics.json": metrics,
        "dvc.lock": json.dumps({"schema": "2.0", "stages": lock}),
    }


def by(key: str, project: Repository) -> dict[str, Run]:
    """Return the rows by a param, which no two share."""
    rows = {row.data.params.get(key, ""): row for row in project.rows()}
    assert len(rows) == len(project.rows())
    return rows


def _entry(path: str, text: str) -> Mapping[str, object]:
    md5 = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return {"path": path, "hash": "md5", "md5": md5, "size": len(text)}

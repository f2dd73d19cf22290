"""MLflow itself loads and serves a row's model, which answers with the same predictions."""

import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from support.clone import Clone
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]

DIGITS = [[1, 3, 0, 2, 2, 1, 0, 3, 1, 2], [0, 0, 1, 2, 3, 3, 2, 1, 0, 0]]

LOAD = """
import json, sys, numpy as np, mlflow
champion = "models:/vanilla-lstm@champion"
print(mlflow.artifacts.download_artifacts(champion))
predict = mlflow.pyfunc.load_model(champion).predict
digits = json.loads(sys.argv[1])
print([predict(np.array(digits, kind)).tolist() for kind in (np.uint8, np.int64)])
"""


@pytest.fixture(scope="module")
def lost(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy whose store was lost after its row was promoted, and made again from git and DVC."""
    client = MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    reproduced.run("dvc-mlflow", "record")  # the result has been committed since
    reproduced.run("dvc-mlflow", "promote", client.search_runs(["1"])[0].info.run_id)
    copy = reproduced.copy(tmp_path_factory.mktemp("lost") / "clone")
    copy.run("dvc-mlflow", "record", "--all")
    return copy


def test_three_ways_to_the_champion(lost: Clone) -> None:
    """DVC and MLflow give the champion's bytes, those that dvc.lock names and DVC's cache has.

    `mlflow.pyfunc.load_model` makes the model of them.
    """
    lock = yaml.safe_load(lost.lock)
    outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
    md5 = outs["data/model.keras"]
    tags = lost.git("tag", "--points-at", "HEAD").split()
    assert tags == ["vanilla-lstm#champion#1", "vanilla-lstm@v0.0.1"]
    lost.dvc("artifacts", "get", ".", "vanilla-lstm", "--stage", "champion", "-o", "got.keras")
    done = lost.run(sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(DIGITS))
    *_, folder, predicted = done.stdout.splitlines()
    (served,) = Path(folder).rglob("model.keras")
    cached = lost.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    for path in (lost.path / "got.keras", served, cached):
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5
    first, again = json.loads(predicted)
    assert first == again
    assert len(first) == len(DIGITS)


def ask(server: str, body: object) -> tuple[int, Any]:
    """Send a request to the server and return its status and answer."""
    request = urllib.request.Request(  # noqa: S310
        f"{server}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


REFUSED = [
    ([[1, 9]], "digits must be whole numbers, 0 to 3; received 9"),
    ([[1, -1]], "digits must be whole numbers, 0 to 3; received -1"),
    ([[1, 2**70]], "digits must be whole numbers, 0 to 3; received 1180591620717411303424"),
    ([[1, 1.5]], "digits must be whole numbers, 0 to 3; received 1.5"),
    ([["1", "2"]], "digits must be whole numbers, 0 to 3; received '1'"),
    ([[1, True]], "digits must be whole numbers, 0 to 3; received True"),
    ([[1, None]], "digits must be whole numbers, 0 to 3; received None"),
    ([1, 3, 0], "digits must be [n_samples, n_steps], all sequences of the same length"),
    ([[[1, 3]]], "at most; received [1, 1, 2]"),
    ([[]], "at most; received [1, 0]"),
    ([[1, 3], [2]], "at most; received [2]"),
    ([[1] * 10_001], "10,000 steps and 100,000 digits at most; received [1, 10001]"),
    ([[1] * 1001] * 100, "100,000 digits at most; received [100, 1001]"),
]


def test_served(lost: Clone) -> None:
    """The champion's server predicts what `evaluate` wrote to data/predictions.csv.

    Sequences of any length get one probability per class; anything but valid digits gets status
    400 and the rule it broke.
    """
    code = "import numpy as np; print(np.load('data/test.npz')['x'].tolist())"
    x = json.loads(lost.run(sys.executable, "-c", code).stdout)
    lines = (lost.path / "data" / "predictions.csv").read_text().splitlines()[1:]
    alias = ["-m", "models:/vanilla-lstm@champion", "--env-manager", "local"]
    with serving(lost, "models", "serve", *alias) as server:
        _, answer = ask(server, {"inputs": x})
        served = [row.index(max(row)) for row in answer["predictions"]]
        assert served == [int(line.split(",")[1]) for line in lines]
        for inputs in ([digits[:3] for digits in DIGITS], [[1.0, 2.0]]):
            status, answer = ask(server, {"inputs": inputs})
            assert status == 200
            assert len(answer["predictions"]) == len(inputs)
            for probabilities in answer["predictions"]:
                assert len(probabilities) == 5
                assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        for wrong, rule in REFUSED:
            status, answer = ask(server, {"inputs": wrong})
            assert status == 400, rule
            assert rule in answer["message"]

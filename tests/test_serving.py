"""MLflow itself loads and serves a row's model, which answers with the same predictions."""

import hashlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from support.clone import Clone
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]

DIGITS = [[1, 3, 0, 2, 2, 1, 0, 3, 1, 2], [0, 0, 1, 2, 3, 3, 2, 1, 0, 0]]

FETCH = """
import mlflow
print(mlflow.artifacts.download_artifacts("models:/vanilla-lstm@champion"))
"""

LOAD = """
import json, sys, numpy as np, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
for digits in json.loads(sys.argv[2]):
    for kind in (np.uint8, np.int64):
        print(model.predict(np.array([digits], kind)).tolist())
for wrong in (np.array([[1.5]]), np.array([[9]]), np.array([1]), np.array([[[1]]])):
    try:
        model.predict(wrong)
    except mlflow.MlflowException as error:
        print(error)
"""


@pytest.fixture(scope="module")
def model_uri(reproduced: Clone) -> str:
    """MLflow's URI of the only row's model."""
    client = MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    (run,) = client.search_runs(["1"])
    return f"models:/{run.outputs.model_outputs[0].model_id}"


@pytest.fixture(scope="module")
def lost(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy whose store was lost after its row was promoted, and made again from git and DVC."""
    client = MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    reproduced.run("dvc-mlflow", "record")  # the result has been committed since
    reproduced.run("dvc-mlflow", "promote", client.search_runs(["1"])[0].info.run_id)
    copy = reproduced.copy(tmp_path_factory.mktemp("lost") / "clone")
    copy.run("dvc-mlflow", "record", "--all")
    return copy


@pytest.fixture(scope="module")
def server(lost: Clone) -> Iterator[str]:
    """The address of a server for the champion."""
    alias = ["-m", "models:/vanilla-lstm@champion", "--env-manager", "local"]
    with serving(lost, "models", "serve", *alias) as address:
        yield address


@pytest.mark.rest
def test_three_ways_to_the_champion(lost: Clone) -> None:
    """DVC and MLflow give the champion's bytes, those that dvc.lock names and DVC's cache has."""
    lock = yaml.safe_load(lost.lock)
    outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
    md5 = outs["data/model.keras"]
    tags = lost.git("tag", "--points-at", "HEAD").split()
    assert tags == ["vanilla-lstm#champion#1", "vanilla-lstm@v0.0.1"]
    lost.dvc("artifacts", "get", ".", "vanilla-lstm", "--stage", "champion", "-o", "got.keras")
    printed = lost.run(sys.executable, "-W", "ignore", "-c", FETCH).stdout
    (served,) = Path(printed.splitlines()[-1]).rglob("model.keras")
    cached = lost.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    for path in (lost.path / "got.keras", served, cached):
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


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


@pytest.mark.rest
def test_probabilities(server: str) -> None:
    """Sequences of any length get one probability per class."""
    for inputs in (DIGITS, [digits[:3] for digits in DIGITS], [[1.0, 2.0]]):
        status, answer = ask(server, {"inputs": inputs})
        assert status == 200
        assert len(answer["predictions"]) == len(inputs)
        for probabilities in answer["predictions"]:
            assert len(probabilities) == 5
            assert sum(probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.rest
@pytest.mark.parametrize(
    ("inputs", "rule"),
    [
        ([[1, 9]], "digits must be whole numbers, 0 to 3; received 9"),
        ([[1, 4]], "digits must be whole numbers, 0 to 3; received 4"),
        ([[1, -1]], "digits must be whole numbers, 0 to 3; received -1"),
        ([[1, 2**70]], "digits must be whole numbers, 0 to 3; received 1180591620717411303424"),
        ([[1, 1.5]], "digits must be whole numbers, 0 to 3; received 1.5"),
        ([["1", "2"]], "digits must be whole numbers, 0 to 3; received '1'"),
        ([[True, False]], "digits must be whole numbers, 0 to 3; received True"),
        ([[1, True]], "digits must be whole numbers, 0 to 3; received True"),
        ([[1, None]], "digits must be whole numbers, 0 to 3; received None"),
        ([1, 3, 0], "digits must be [n_samples, n_steps], all sequences of the same length"),
        ([[[1, 3]]], "at most; received [1, 1, 2]"),
        ([[]], "at most; received [1, 0]"),
        ([[1, 3], [2]], "at most; received [2]"),
        ([[1] * 10_001], "10,000 steps and 100,000 digits at most; received [1, 10001]"),
        ([[1] * 1001] * 100, "100,000 digits at most; received [100, 1001]"),
    ],
)
def test_refused(server: str, inputs: object, rule: str) -> None:
    """Anything but valid digits gets status 400 and the rule it broke."""
    status, answer = ask(server, {"inputs": inputs})
    assert status == 400
    assert rule in answer["message"]


@pytest.mark.rest
def test_load_model(reproduced: Clone, model_uri: str) -> None:
    """`mlflow.pyfunc.load_model` gives the same model, with the same rules."""
    done = reproduced.run(sys.executable, "-W", "ignore", "-c", LOAD, model_uri, json.dumps(DIGITS))
    *probabilities, fraction, high, flat, deep = done.stdout.splitlines()
    first, again, second, _ = (json.loads(line) for line in probabilities)
    assert first == again != second
    assert "0 to 3; received 1.5" in fraction
    assert "0 to 3; received 9" in high
    assert "received [1]" in flat
    assert "received [1, 1, 1]" in deep


@pytest.mark.rest
def test_same_as_predictions(lost: Clone, server: str) -> None:
    """The served model predicts what `evaluate` wrote to data/predictions.csv."""
    code = "import numpy as np; print(np.load('data/test.npz')['x'].tolist())"
    x = json.loads(lost.run(sys.executable, "-c", code).stdout)
    _, answer = ask(server, {"inputs": x})
    served = [row.index(max(row)) for row in answer["predictions"]]
    lines = (lost.path / "data" / "predictions.csv").read_text().splitlines()[1:]
    assert served == [int(line.split(",")[1]) for line in lines]

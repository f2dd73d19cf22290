"""Take README's pictures in a temporary clone (needs Chromium)."""

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from mlflow import MlflowClient

from support.browser import browser, wait_for
from support.clone import Clone, make_clone
from support.example import plain_example
from support.servers import serving

TABLE = "experiments/1/runs?viewStateShareKey=results&workflowType=machine_learning"
SETTLED = 8  # seconds that MLflow needs to draw its charts
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""


class Picture(NamedTuple):
    """A picture of a page at this address, of this size."""

    address: str
    file: str
    width: int
    height: int


def main() -> None:
    """Run README's sweep and take pictures of it in MLflow."""
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder, "clone"), {})
        grid = ["-S", "train.epochs=range(50,250,50)", "-S", "model.units=10,25"]
        clone.dvc("exp", "run", "--queue", *grid)
        clone.run_queue()
        runs = MlflowClient(f"sqlite:///{clone.path}/mlflow.db").search_runs(
            ["1"], order_by=["metrics.`test/loss` ASC"]
        )
        ids = [run.info.run_id for run in runs]
        curves = f"experiments/1/runs/{ids[0]}/model-metrics?workflowType=machine_learning"
        with serving(clone, "ui") as address:
            picture = Picture(address, "docs/comparison.png", 1700, 780)
            take(picture, TABLE, "8 matching runs")
            picture = Picture(address, "docs/curves.png", 1400, 1100)
            take(picture, curves, "train\n(5)", search="train.*(loss|accuracy)")
        example = history(Path(folder, "digits"))
        with serving(example, "ui") as address:
            take(Picture(address, "dvc_mlflow/table.png", 1700, 760), TABLE, "10 matching runs")


HISTORY: dict[str, dict[str, float]] = {
    "My first results": {},
    "Learn ten times as fast": {"train.rate": 0.01},
    "Learn slower, but twice as long": {"train.rate": 0.001, "train.passes": 60},
    "Train three times as long": {"train.passes": 90},
    "Try another split": {"prepare.seed": 8},
    "Go back to the first split": {"prepare.seed": 7, "train.rate": 0.003},
    "Penalize large weights": {"train.penalty": 0.01},
}
"""The commits of a history: what each says, and the params that it changes."""


def history(path: Path) -> Clone:
    """Make a history of ten results of the example in examples/, and record all of it."""
    project = plain_example(path)
    project.commit("My pipeline")
    for message, params in HISTORY.items():
        project.set(params)
        project.dvc("repro")
        project.commit(message)
    script = project.path / "scripts" / "train.py"
    script.write_text(f"{script.read_text()}\n")
    project.dvc("exp", "run", "-n", "brave", "-S", "train.rate=0.1")
    project.git("checkout", "-q", ".")
    for rate in (0.0001, 0.03):
        project.dvc("exp", "run", "-S", f"train.rate={rate}")
        project.git("checkout", "-q", ".")
    project.run("dvc-mlflow", "record", "--all")
    return project


def take(picture: Picture, page: str, text: str, search: str = "") -> None:
    """Take a picture of a page once it shows `text`, with only the charts that match `search`."""
    address, name, width, height = picture
    with browser(width, height) as driver:
        driver.get(address)
        driver.execute_script(NO_ASSISTANT)
        driver.get(f"{address}/#/{page}")
        driver.refresh()
        wait_for(driver, text)
        if search:
            box = "input[placeholder='Search metric charts']"
            driver.find_element("css selector", box).send_keys(search)
        time.sleep(SETTLED)
        driver.save_screenshot(str(ROOT / name))


if __name__ == "__main__":
    main()

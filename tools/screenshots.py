"""Take README's pictures in a temporary clone: `make screenshots` (needs Chromium)."""

import json
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from mlflow import MlflowClient

from browser import browser, wait_for
from clone import make_clone
from servers import serving

SETTLED = 8  # seconds that MLflow needs to draw its charts
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""


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
        compared = urllib.parse.quote(json.dumps(ids[:4]))
        table = "experiments/1/runs?viewStateShareKey=results&workflowType=machine_learning"
        curves = f"experiments/1/runs/{ids[0]}/model-metrics?workflowType=machine_learning"
        compare = f"compare-runs?runs={compared}&experiments=%5B%221%22%5D"
        with serving(clone, "ui") as address:
            take(address, "comparison", table, 1700, 780, "8 matching runs")
            take(
                address, "curves", curves, 1400, 1100, "train\n(5)", search="train.*(loss|accuracy)"
            )
            take(address, "compare", compare, 1400, 900, "train/loss")


def take(
    address: str, name: str, page: str, width: int, height: int, text: str, search: str = ""
) -> None:
    """Take a picture of a page once it shows `text`, with only the charts that match `search`."""
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
        driver.save_screenshot(str(ROOT / "docs" / f"{name}.png"))


if __name__ == "__main__":
    main()

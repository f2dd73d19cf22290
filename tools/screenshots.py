"""Take README's pictures in temporary clones (needs Chromium)."""

import io
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run
from selenium.webdriver import ActionChains, Chrome

from support.browser import browser, wait_for
from support.clone import Clone, environment, make_clone, plain_example
from support.servers import answers, free_port, running, serving

PAGE = "#/experiments/1/runs?viewStateShareKey=results&workflowType=machine_learning"
WIDTH = 1440  # pixels of the browser
SETTLED = 4  # seconds that MLflow needs to draw
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""
RATES = (0.0001, 0.0002, 0.001, 0.0004)
PASSES = 2000


def main() -> None:
    """Take the picture of the pipeline's results, and that of a training that runs."""
    with tempfile.TemporaryDirectory() as folder:
        take_comparison(make_clone(Path(folder, "clone"), {}))
        take_live(plain_example(Path(folder, "digits")))


def take_comparison(clone: Clone) -> None:
    """Run README's experiments, and take a picture of their table."""
    grid = ["-S", "train.epochs=range(50,250,50)", "-S", "model.units=10,25"]
    clone.dvc("exp", "run", "--queue", *grid)
    clone.run_queue()
    with serving(clone, "ui") as address, browser(WIDTH, 900) as driver:
        show(driver, address, PAGE)
        wait_for(driver, "8 matching runs")
        save(driver, "docs/comparison.png", (215, 155, 1410, 567))


def take_live(project: Clone) -> None:
    """Train with some rates, and take a picture while the last training runs."""
    for rate in RATES[:-1]:
        project.set({"train.passes": PASSES, "train.rate": rate})
        project.dvc("repro")
        project.commit(f"Learn at a rate of {rate}")
    project.set({"train.rate": RATES[-1]})
    port = free_port()
    address, env = f"http://127.0.0.1:{port}", environment()
    ready = partial(answers, f"{address}/health")
    command = ["dvc-mlflow", "ui", "--port", f"{port}"]
    with (
        running(command, ready, cwd=project.path, env=env),
        browser(WIDTH, 900) as driver,
        subprocess.Popen(["dvc", "repro", "-q"], cwd=project.path, env=env),
    ):
        wait_for_points(project, PASSES // 5)
        show(driver, address, f"{PAGE}&compareRunsMode=CHART")
        wait_for(driver, f"{len(RATES)} matching runs")
        box = "input[placeholder='Search metric charts']"
        driver.find_element("css selector", box).send_keys("train/loss")
        wait_for(driver, "train\n(1)")
        corner = "[data-testid=draggable-card-resize-handle]"
        handle = driver.find_element("css selector", corner)
        ActionChains(driver).drag_and_drop_by_offset(handle, 500, 0).perform()
        save(driver, "dvc_mlflow/live.png", (215, 240, 1385, 678))
        if not live_run(project):
            sys.exit("the training has ended before the picture was taken")


def show(driver: Chrome, address: str, page: str) -> None:
    """Open a page of MLflow without its assistant."""
    driver.get(address)
    driver.execute_script(NO_ASSISTANT)
    driver.get(f"{address}/{page}")
    driver.refresh()


def save(driver: Chrome, name: str, box: tuple[int, int, int, int]) -> None:
    """Save a part of the page, in few colours, once it is drawn."""
    time.sleep(SETTLED)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.crop(box).quantize(64).save(ROOT / name, optimize=True)


def live_run(project: Clone) -> Run | None:
    """Return the run that is RUNNING, if there is one."""
    with suppress(MlflowException):
        client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
        runs = client.search_runs(["1"], "attributes.status = 'RUNNING'")
        return next(iter(runs), None)
    return None


def wait_for_points(project: Clone, n: int) -> None:
    """Wait until the run that is RUNNING has a curve of so many points."""
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    while not (run := live_run(project)) or (
        len(client.get_metric_history(run.info.run_id, "train/loss")) < n
    ):
        time.sleep(0.2)


if __name__ == "__main__":
    main()

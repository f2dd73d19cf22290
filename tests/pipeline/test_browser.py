"""A new visitor's browser shows the results in MLflow's pages and DVC's plots."""

import re
import sys
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from support.clone import SCRIPTS, Clone
from support.following import following
from support.pipelines import Repository
from support.processes import end_followers
from support.servers import free_port

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest(minutes=2),
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER), reason="needs Debian's chromium and chromium-driver"
    ),
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]

TABLE = """
const byColumn = cells => Object.fromEntries(
    [...cells].map(cell => [cell.getAttribute('col-id'), cell.innerText]));
return [
    byColumn(document.querySelectorAll('.ag-header-viewport .ag-header-cell')),
    [...document.querySelectorAll('.ag-center-cols-container .ag-row')].map(
        row => byColumn(row.querySelectorAll('[col-id]')))]
"""
SCROLL = "document.querySelectorAll('*').forEach(e => { e.scrollTop = e.scrollHeight })"


@pytest.fixture
def compared(reproduced: Clone, tmp_path: Path) -> Repository:
    """A clone with a committed result and an experiment."""
    project = Repository(reproduced.copy(tmp_path / "clone").path)
    project.record()
    project.write(SCRIPTS)  # without TensorFlow
    project.commit("Other scripts")
    project.dvc("exp", "run", "-n", "two", "-S", "train.epochs=2")
    said = project.record("--rev", "two")
    log = project.path / ".git" / "dvc-mlflow" / "follow.log"
    statuses = [row.info.status for row in project.rows()]
    assert statuses == ["FINISHED"] * 2, (statuses, said, log.read_text())
    end_followers(project.path)  # the page has one of its own
    return project


def test_pages(compared: Repository) -> None:
    """`ui` prints the address of the table with our columns, lowest loss first.

    A row's pages show its metrics, params, data sets, model, curves, files and how to restore it.
    """
    command = ("ui", "--port", f"{free_port()}")
    with (
        following(compared, command=command, awaited="All results: ") as ui,
        browser(2600, 1600) as driver,
    ):
        line = next(line for line in ui.lines if line.startswith("All results: "))
        address = line.strip().removeprefix("All results: ")
        driver.get(address)
        wait_for(driver, "matching runs", "test/loss", "train.epochs", " two")
        check_table(compared, *driver.execute_script(TABLE))
        row = compared.rows()[-1]
        start = address.partition("#")[0]
        page = f"{start}#/experiments/{row.info.experiment_id}/runs/{row.info.run_id}"
        driver.get(page)
        digits = (row.info.run_name or "").partition(" ")[0]
        wait_for(driver, f"dvc-mlflow restore {digits} brings back")
        wait_for(driver, "Metrics (9)", "test/correctly_classified", "Parameters (28)")
        wait_for(driver, "train.learning_rate", "Logged models (1)", "data/train.npz")
        driver.get(f"{page}/model-metrics")
        wait_for(driver, "train\n(5)")
        curves = ".js-plotly-plot .scatterlayer .trace"
        WebDriverWait(driver, 240).until(lambda _: number_of(driver, curves) >= 4)
        driver.get(f"{page}/artifacts/data/confusion_matrix.html")
        wait_for(driver, "model_summary.txt", "training.csv")
        frames = WebDriverWait(driver, 240).until(
            lambda _: driver.find_elements("tag name", "iframe")
        )
        driver.switch_to.frame(frames[0])
        wait_for(driver, "actual \\ predicted")


def check_table(project: Repository, heads: dict[str, str], rows: list[dict[str, str]]) -> None:
    """Assert that the table has our columns and the numbers of all rows, lowest loss first."""
    columns = ["model.units", "test/loss", "train.epochs"]
    assert {*heads.values()} == {"Duration", *columns}
    found = [{heads[column]: text for column, text in row.items()} for row in rows]
    own = project.client.get_experiment_by_name("vanilla-lstm").experiment_id
    runs = [run for run in project.rows() if run.info.experiment_id == own]
    wanted = [{**run.data.params, **run.data.metrics} for run in runs]
    wanted.sort(key=lambda values: values["test/loss"])
    assert [[float(row[name]) for name in columns] for row in found] == [
        [float(values[name]) for name in columns] for values in wanted
    ]


def number_of(driver: Chrome, selector: str) -> int:
    """Scroll to the end, where MLflow draws on demand, and count the elements that match."""
    driver.execute_script(SCROLL)
    return len(driver.find_elements("css selector", selector))


def test_plots_without_a_network(reproduced: Clone, tmp_path: Path) -> None:
    """`make plots` writes a page that draws all of DVC's plots and loads nothing from a network."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.run(sys.executable, "tools/offline_plots.py")
    page = clone.path / "dvc_plots" / "index.html"
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page.read_text())
    with browser(1200, 900) as driver:
        driver.get(page.as_uri())
        wait_for(driver, "Confusion matrix", "val_loss", "val_accuracy")
        plots = driver.find_elements("css selector", ".vega-embed")
        drawn = driver.find_elements("css selector", ".vega-embed :is(canvas, svg.marks)")
        assert len(drawn) == len(plots) >= 4

"""A new visitor's browser shows the results in MLflow's pages and DVC's plots."""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from clone import Clone
from pipelines import Repository
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
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


@pytest.fixture(scope="module")
def compared(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone with a committed result and two experiments; the last one's stderr is in `said`."""
    path = tmp_path_factory.mktemp("compared") / "clone"
    project = Repository(reproduced.copy(path).path)
    project.record()
    done = [project.dvc("exp", "run", "-S", to) for to in ("train.epochs=2", "model.units=3")]
    path.with_name("said").write_text(done[-1].stderr)
    return project


@pytest.fixture(scope="module")
def ui(compared: Repository) -> Iterator[str]:
    """The address of an MLflow server with that clone's store."""
    with serving(compared, "ui") as address:
        yield address


def test_table(compared: Repository, ui: str) -> None:
    """The address that a stage prints opens the table with our columns, lowest loss first."""
    said = compared.path.with_name("said").read_text()
    (printed,) = {*re.findall(r"all rows: http://127\.0\.0\.1:5000(\S+)", said)}
    with browser(2600, 900) as driver:
        driver.get(f"{ui}{printed}")
        wait_for(driver, "matching runs", "test/accuracy", "train.learning_rate", "epochs=2")
        heads, rows = driver.execute_script(TABLE)
    assert set(heads.values()) == {
        "Duration",
        "test/accuracy",
        "test/correctly_classified",
        "test/loss",
        "data.n_steps",
        "model.cell",
        "model.units",
        "train.epochs",
        "train.learning_rate",
    }
    shown = [{heads[column]: text for column, text in row.items()} for row in rows]
    names = ("train.epochs", "model.units", "test/accuracy", "test/loss")
    in_dvc = csv.DictReader(compared.dvc("exp", "show", "--csv").stdout.splitlines())
    assert sorted(tuple(float(row[name]) for name in names) for row in shown) == sorted(
        tuple(float(row[name.removeprefix("test/")]) for name in names)
        for row in in_dvc
        if row["rev"] != "workspace"
    )
    assert len(shown) == 3
    losses = [float(row["test/loss"]) for row in shown]
    assert losses == sorted(losses)


def test_pages_of_a_row(compared: Repository, ui: str) -> None:
    """A row's pages show its metrics, params, data sets, model, curves and files."""
    row = compared.rows()[-1]
    page = f"{ui}/#/experiments/{row.info.experiment_id}/runs/{row.info.run_id}"
    with browser(1600, 1600) as driver:
        driver.get(page)
        wait_for(driver, "Metrics (9)", "test/correctly_classified", "Parameters (28)")
        wait_for(driver, "train.learning_rate", "Logged models (1)", "data/train.npz")
        driver.get(f"{page}/model-metrics")
        wait_for(driver, "train\n(5)")
        curves = ".js-plotly-plot .scatterlayer .trace"
        WebDriverWait(driver, 60).until(lambda _: number_of(driver, curves) >= 4)
        driver.get(f"{page}/artifacts/data/confusion_matrix.html")
        wait_for(driver, "model_summary.txt", "training.csv")
        frames = WebDriverWait(driver, 60).until(
            lambda _: driver.find_elements("tag name", "iframe")
        )
        driver.switch_to.frame(frames[0])
        wait_for(driver, "actual \\ predicted")


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

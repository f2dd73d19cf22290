"""A new visitor's browser shows the results in MLflow's pages and DVC's plots."""

import csv
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from support.clone import Clone
from support.followers import end_followers
from support.following import following
from support.histories import history
from support.light_stages import SCRIPTS
from support.pipelines import Repository
from support.servers import free_port

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
    """A clone with a committed result and an experiment."""
    path = tmp_path_factory.mktemp("compared") / "clone"
    project = Repository(reproduced.copy(path).path)
    project.record()
    project.write(SCRIPTS)  # without TensorFlow
    project.commit("Other scripts")
    project.dvc("exp", "run", "-n", "two", "-S", "train.epochs=2")
    said = project.record("--rev", "two")
    log = path / ".git" / "dvc-mlflow" / "follow.log"
    statuses = [row.info.status for row in project.rows()]
    assert statuses == ["FINISHED"] * 2, (statuses, said, log.read_text())
    end_followers(path)  # the page has one of its own
    return project


@contextmanager
def shown(project: Repository) -> Iterator[str]:
    """Run `dvc-mlflow ui` in the block; yield the address that it prints."""
    command = ("ui", "--port", f"{free_port()}")
    with following(project, command=command, awaited="All results: ") as ui:
        line = next(line for line in ui.lines if line.startswith("All results: "))
        yield line.strip().removeprefix("All results: ")


@pytest.fixture(scope="module")
def table(compared: Repository) -> Iterator[str]:
    """The address of that clone's table."""
    with shown(compared) as address:
        yield address


def test_table(compared: Repository, table: str) -> None:
    """The address that `ui` prints opens the table with our columns, lowest loss first."""
    with browser(2600, 900) as driver:
        driver.get(table)
        wait_for(driver, "matching runs", "test/loss", "train.epochs", " two")
        heads, rows = driver.execute_script(TABLE)
    assert set(heads.values()) == {"Duration", "test/loss", "model.units", "train.epochs"}
    found = [{heads[column]: text for column, text in row.items()} for row in rows]
    names = ("train.epochs", "model.units", "test/loss")
    in_dvc = csv.DictReader(compared.run("dvc", "exp", "show", "--csv").stdout.splitlines())
    wanted = {
        tuple(float(row[name.removeprefix("test/")]) for name in names)
        for row in in_dvc
        if row["rev"] != "workspace"
    }
    assert len(wanted) == 2
    # `ui` has recorded what git has, too.
    assert wanted < {tuple(float(row[name]) for name in names) for row in found}
    losses = [float(row["test/loss"]) for row in found]
    assert losses == sorted(losses)


def test_default_table(tmp_path: Path) -> None:
    """Without a word in dvc.yaml, a history shows its scores, what changed, and the commits."""
    project = history(tmp_path / "project", 10)
    project.record("--all")
    with shown(project) as address, browser(2600, 900) as driver:
        driver.get(address)
        wait_for(driver, "matching runs", "evaluate/loss", "Result 9")
        heads, rows = driver.execute_script(TABLE)
        assert {*heads.values()} - {"Duration"} == {
            "evaluate/score",
            "evaluate/loss",
            "rate",
            "commit",
        }
        table = [{heads[column]: text for column, text in row.items()} for row in rows]
        assert len(table) == 10
        assert [row["rate"] for row in table] == [f"{rate}" for rate in reversed(range(10))]
        commits = project.git("log", "--format=%h %s", "--abbrev=7").splitlines()
        assert [row["commit"] for row in table] == commits[:10]
        (row,) = [r for r in project.rows() if r.data.params["rate"] == "9"]
        page = f"experiments/{row.info.experiment_id}/runs/{row.info.run_id}"
        driver.get(f"{address.partition('#')[0]}#/{page}")
        wait_for(driver, f"{commits[0].partition(' ')[0]} Result 9, by A. Uthor")
        digits = (row.info.run_name or "").partition(" ")[0]
        wait_for(driver, f"dvc-mlflow restore {digits} brings back")


def test_pages_of_a_row(compared: Repository, table: str) -> None:
    """A row's pages show its metrics, params, data sets, model, curves and files."""
    row = compared.rows()[-1]
    start = table.partition("#")[0]
    page = f"{start}#/experiments/{row.info.experiment_id}/runs/{row.info.run_id}"
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

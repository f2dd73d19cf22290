"""MLflow's table of results and DVC's plots, as a new visitor's browser shows them."""

import csv
import re
import sys
from pathlib import Path

import pytest

from browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from clone import Clone
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER), reason="needs Debian's chromium and chromium-driver"
    ),
]

TABLE = """
const byColumn = cells => Object.fromEntries(
    [...cells].map(cell => [cell.getAttribute('col-id'), cell.innerText]));
return [
    byColumn(document.querySelectorAll('.ag-header-viewport .ag-header-cell')),
    [...document.querySelectorAll('.ag-center-cols-container .ag-row')].map(
        row => byColumn(row.querySelectorAll('[col-id]')))]
"""


def test_comparison(sweep: Clone) -> None:
    """The address that `evaluate` prints opens the table with its columns, lowest loss first."""
    logs = sweep.dvc("queue", "logs", sweep.dvc("exp", "list", "--name-only").stdout.split()[0])
    printed = re.search(r"All results: http://127\.0\.0\.1:5000(\S+)", logs.stdout)
    assert printed
    with serving(sweep, "ui") as address, browser(2600, 900) as driver:
        driver.get(f"{address}{printed[1]}")
        wait_for(driver, "matching runs", "test/accuracy", "train.learning_rate", "epochs=4")
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
    in_dvc = csv.DictReader(sweep.dvc("exp", "show", "--csv").stdout.splitlines())
    assert sorted(tuple(float(row[name]) for name in names) for row in shown) == sorted(
        tuple(float(row[name.removeprefix("test/")]) for name in names)
        for row in in_dvc
        if row["typ"].startswith("branch")
    )
    assert len(shown) == 8
    losses = [float(row["test/loss"]) for row in shown]
    assert losses == sorted(losses)


def test_plots_without_a_network(reproduced: Clone, tmp_path: Path) -> None:
    """`make plots` writes a page that loads nothing and draws every one of DVC's plots."""
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

"""Fixtures that the test modules share; clone.py makes the clones."""

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from unittest.mock import patch

import pytest
from filelock import FileLock

from support.clone import ROOT, Clone, make_clone
from support.forked import serve
from support.processes import end_followers
from support.processor import processor

TOOL = Path(__file__).parent / "tool"

with suppress(ImportError):  # `make test SUITE=oldest` does not install it
    # Before Keras, whose import hides objects from it.
    from hypothesis import settings
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(Path(gettempdir(), "hypothesis"))  # not in the source tree
    settings.register_profile("loaded", deadline=None)  # an example waits for what runs beside it
    settings.load_profile("loaded")

# For all that tests start: NumPy's idle threads would take the time of the tests beside.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Ray's own is 15: trials would stand still while anything else runs.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests with larger numbers")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m` and a mark, import only modules with it: others take time, and more packages."""
    mark = str(config.option.markexpr).partition(" ")[0]
    others = mark not in ("", "not") and collection_path.suffix == ".py"
    return (others and f"pytest.mark.{mark}" not in collection_path.read_text()) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while modules are imported, nor among what they hold: there is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Let workers take modules in the order of collection, not by their number of tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, and then with what waits for other processes.

    In this process, the tool's pipelines let MLflow, DVC, Ray and Optuna warn.
    """
    waits = {"following", "followers", "wait"}
    for item in items:
        if item.get_closest_marker("pipeline") and TOOL in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))

    def order(item: pytest.Item) -> tuple[float, bool]:
        minutes = [mark.kwargs.get("minutes", 0) for mark in item.iter_markers("rest")]
        is_short = isinstance(item, pytest.Function) and not waits & {*vars(item.module)}
        return -max(minutes, default=0), is_short

    items.sort(key=order)


def pytest_sessionstart() -> None:
    """Let all workers fork programs from one process."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        serve()


def pytest_report_header() -> str:
    return f"processor: {processor()}"


@pytest.fixture(scope="session", autouse=True)
def _obey_signals() -> Iterator[None]:
    """Let signals end what tests start: a shell's background and `nohup` let it ignore some."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a test, or MLflow's `set_tracking_uri`, changes in this process's environment."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def slow(request: pytest.FixtureRequest) -> bool:
    """Whether to run with larger numbers, which takes minutes to hours."""
    return bool(request.config.getoption("--slow"))


@pytest.fixture(scope="session")
def as_committed() -> None:
    """Skip tests of the committed results if code, params or results have uncommitted changes."""
    paths = ["stages", "claims", "data", "params.yaml", "dvc.yaml", "dvc.lock"]
    command = ["git", "status", "--porcelain", "--", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    if done.stdout:
        pytest.skip(f"not committed: {done.stdout.split()[1]}")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone of the working tree with tiny params, in which nothing has run."""
    return make_clone(tmp_path / "clone")


@pytest.fixture
def project(made: Clone, tmp_path: Path) -> Clone:
    """A copy, without a store, of the pipeline that the module's fixture `made` returns."""
    return made.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `dvc repro` has run once for all tests: read it, or `copy` it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers: one makes it, and each copies it
    made = folder / "made"
    with FileLock(folder / "made.lock"):
        if not (folder / "made.done").exists():
            from support.pipelines import Repository

            project = Repository(make_clone(made).path)
            project.dvc("repro")
            project.record()
            end_followers(made)  # what it writes would be copied half
            project.commit("The results")
            (folder / "made.done").touch()
    return Clone(
        Path(shutil.copytree(made, tmp_path_factory.mktemp("made") / "clone", symlinks=True))
    )


@pytest.fixture
def copy(reproduced: Clone, tmp_path: Path) -> Clone:
    """A copy of `reproduced` for a test to change."""
    return reproduced.copy(tmp_path / "copy")


@pytest.fixture(autouse=True)
def _no_followers(request: pytest.FixtureRequest) -> Iterator[None]:
    """End the followers that `dvc-mlflow run` has started in a test, which would wait for more."""
    has_folder = "tmp_path" in request.fixturenames
    folder = request.getfixturevalue("tmp_path") if has_folder else None
    yield
    if folder is not None:
        end_followers(folder)

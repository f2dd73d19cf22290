"""Rows of MLflow, restored byte for byte in separate folders."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient, artifacts
from mlflow.entities import Run
from ruamel.yaml import YAML

from bridge.run.files import md5
from clone import Clone, Done, make_clone
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow's client warns of in the test's process
]

MD5_TAGS = {
    "train_data.md5": "data/train.npz",
    "model.md5": "data/model.keras",
    "test_data.md5": "data/test.npz",
}
CODE = ["stages/vanilla_lstm/task/sequences.py", "stages/vanilla_lstm/task/rule.py"]


def client_of(clone: Clone) -> MlflowClient:
    return MlflowClient(f"sqlite:///{clone.path}/mlflow.db")


def rows(clone: Clone, client: MlflowClient | None = None) -> list[Run]:
    """Return the rows of every experiment, newest first."""
    client = client or client_of(clone)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def row(clone: Clone, client: MlflowClient | None = None, **params: str) -> Run:
    """Return the one row with these params, `section__key`."""
    wanted = {key.replace("__", "."): value for key, value in params.items()}
    (found,) = [r for r in rows(clone, client) if wanted.items() <= r.data.params.items()]
    return found


def restore(clone: Clone, run: Run | str, *, apply: str = "", check: bool = True) -> Done:
    """Run `make restore`."""
    run_id = run if isinstance(run, str) else run.info.run_id
    make = ["make", "-s", "-o", ".venv/run", "restore", f"RUN={run_id}", f"APPLY={apply}"]
    return clone.run(*make, check=check)


def status(tree: Path, *stages: str) -> dict[str, object]:
    """Return what `dvc status` says has changed."""
    return dict(json.loads(Clone(tree).dvc("status", "--json", *stages).stdout))


def contents(clone: Clone) -> dict[str, bytes]:
    """Return every file of a clone except the tools' own and those that were restored."""
    tools = {".git", "tmp", "restored", "cache", "__pycache__", "mlartifacts"}
    return {
        str(path.relative_to(clone.path)): path.read_bytes()
        for path in clone.path.rglob("*")
        if path.is_file() and not tools & {*path.relative_to(clone.path).parts}
    }


def clear_cache(clone: Clone) -> None:
    shutil.rmtree(clone.path / ".dvc" / "cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with rows of `dvc repro`, of `dvc exp run` and of a temporary copy, and a remote."""
    folder = tmp_path_factory.mktemp("made")
    clone = make_clone(folder / "clone")
    clone.dvc("remote", "add", "-d", "team", str(folder / "remote"))
    clone.commit("A remote")
    clone.dvc("repro")
    clone.commit("The results")
    clone.dvc("exp", "run", "-S", "train.epochs=2")
    clone.git("checkout", "-q", ".")
    clone.dvc("checkout", "-q")
    clone.dvc("exp", "run", "--temp", "-S", "train.epochs=4")
    return clone


@pytest.fixture
def clone(made: Clone, tmp_path: Path) -> Clone:
    """A copy of `made`, with its rows, for a test to change; they share a remote."""
    return Clone(Path(shutil.copytree(made.path, tmp_path / "clone", symlinks=True)))


@pytest.mark.parametrize("epochs", ["3", "2", "4"])
def test_restore(clone: Clone, epochs: str) -> None:
    """A row's code, params and files are restored, and the working tree stays as it is.

    Nothing runs, no row is added, and a second call says that the folder exists.
    """
    run = row(clone, train__epochs=epochs)
    clone.set({"train.epochs": 9})
    (clone.path / "stages" / "train.py").write_text("# mine\n")
    (clone.path / "data" / "model.keras").write_bytes(b"mine")
    (clone.path / "notes").write_text("mine")
    restore(clone, "0" * 32, check=False)  # opens the store where it is now
    before = contents(clone), clone.git("status", "--porcelain")
    done = restore(clone, run)
    assert (contents(clone), clone.git("status", "--porcelain")) == before
    assert len(rows(clone)) == 3
    (tree,) = (clone.path / "restored").iterdir()
    assert tree.name == run.info.run_name
    assert f"restored/{tree.name}: restored" in done.stdout
    assert "already exists" not in done.stdout
    for tag, path in MD5_TAGS.items():
        assert md5(tree / path) == run.data.tags[tag]
        assert f"{path}: md5 {run.data.tags[tag]} is the row's, {tag}" in done.stdout
    assert status(tree) == {}
    assert json.loads((tree / "data/metrics.json").read_text())["loss"] == pytest.approx(
        run.data.metrics["test/loss"]
    )
    assert len((tree / "data/training.csv").read_text().splitlines()) == int(epochs) + 1
    assert YAML(typ="safe").load(tree / "params.yaml")["train"]["epochs"] == int(epochs)
    assert Clone(tree).git("rev-parse", "HEAD") == run.data.tags["mlflow.source.git.commit"]
    restored = contents(Clone(tree))
    assert "already exists" in restore(clone, run).stdout
    assert contents(Clone(tree)) == restored


def test_no_row_is_named(clone: Clone) -> None:
    """`make restore` without RUN says what it needs; an unknown id gets a one-line error."""
    done = restore(clone, "", check=False)
    assert done.returncode
    assert done.stderr.splitlines()[0].startswith("RUN must be the run id of a row")
    done = restore(clone, "0" * 32, check=False)
    assert done.returncode
    assert "0" * 32 in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert not list((clone.path / "restored").glob("*"))


def test_rows_of_one_name(clone: Clone) -> None:
    """Two rows with the same name get two folders, and a name cannot lead out of restored/."""
    client = client_of(clone)
    restore(clone, "0" * 32, check=False)
    for run in rows(clone):
        client.set_tag(run.info.run_id, "mlflow.runName", "../../a b")
    first, second, _ = rows(clone)
    restore(clone, first)
    restore(clone, second)
    names = {path.name for path in (clone.path / "restored").iterdir()}
    assert names == {"a-b", f"a-b-{second.info.run_id[:8]}"}


def forget(clone: Clone, run: Run) -> None:
    """Remove DVC's cache, and the row's copies of cached files."""
    shutil.rmtree(clone.path / ".dvc" / "cache")
    kept = clone.path / "mlartifacts" / run.info.run_id / "artifacts" / "files"
    for path in MD5_TAGS.values():
        for file in kept.glob(f"*/{path}"):
            file.unlink()


def test_bytes_from_elsewhere(clone: Clone) -> None:
    """Files that this machine lost come from the row or the remote; missing ones are named.

    `dvc repro` in the folder makes those again, and the next call finds them.
    """
    run = row(clone, train__epochs="2")
    clear_cache(clone)
    restore(clone, run)
    (tree,) = (clone.path / "restored").iterdir()
    assert status(tree) == {}
    clone.git("worktree", "remove", "--force", str(tree))
    forget(clone, run)
    done = restore(clone, run, check=False)
    assert done.returncode
    (line,) = [line for line in done.stderr.splitlines() if "md5" in line]
    for tag, path in MD5_TAGS.items():
        assert f"{path} (md5 {run.data.tags[tag]})" in line
    assert "dvc repro" in line
    Clone(tree).dvc("repro")
    assert "already exists" in restore(clone, run).stdout
    assert status(tree) == {}
    Clone(tree).dvc("push", "-q")
    forget(clone, run)
    clone.git("worktree", "remove", "--force", str(tree))
    restore(clone, run)
    assert status(tree) == {}
    shutil.rmtree(tree)  # git still lists it
    restore(clone, run)
    assert status(tree) == {}


def test_cache_of_links(clone: Clone) -> None:
    """Where DVC links files to its cache, a row is restored and found there again."""
    clone.dvc("config", "--local", "cache.type", "symlink")
    run = row(clone, train__epochs="2")
    restore(clone, run)
    (tree,) = (clone.path / "restored").iterdir()
    assert (tree / "data/model.keras").is_symlink()
    assert "already exists" in restore(clone, run).stdout
    assert status(tree) == {}


@pytest.fixture(scope="module")
def dirty(made: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with a row made by uncommitted code: a changed module and a new one."""
    path = tmp_path_factory.mktemp("dirty") / "clone"
    clone = Clone(Path(shutil.copytree(made.path, path, symlinks=True)))
    code = clone.path / "stages" / "vanilla_lstm" / "task"
    text = (code / "sequences.py").read_text()
    rule = "total = (total + core[:, step]) % (n_max - 1)"
    assert rule in text
    text = text.replace(rule, "total = largest(total, core[:, step])")
    text = text.replace("import numpy as np\n", "import numpy as np\n\nfrom .rule import largest\n")
    (code / "sequences.py").write_text(text)
    (code / "rule.py").write_text("from numpy import maximum as largest\n")
    (clone.path / "notes").write_text("mine")
    clone.set({"data.targets": [1, 7]})
    clone.dvc("repro")
    return clone


def test_uncommitted_code(dirty: Clone, tmp_path: Path) -> None:
    """A row of a dirty tree is restored with its code, including new files among the deps."""
    clone = Clone(Path(shutil.copytree(dirty.path, tmp_path / "clone", symlinks=True)))
    (run,) = [run for run in rows(clone) if run.data.tags["mlflow.source.git.dirty"] == "true"]
    changed = {p: (clone.path / p).read_bytes() for p in CODE}
    clone.git("checkout", "-q", ".")
    clone.git("clean", "-q", "-f", "stages", "notes")
    restore(clone, run)
    (tree,) = (clone.path / "restored").iterdir()
    assert {path: (tree / path).read_bytes() for path in changed} == changed
    assert not (tree / "notes").exists()
    assert status(tree) == {}
    for tag, path in MD5_TAGS.items():
        assert md5(tree / path) == run.data.tags[tag]


def test_uncommitted_code_of_somebody_else(dirty: Clone, tmp_path: Path) -> None:
    """Another user's patch is shown; it is applied only on request, and only in the folder."""
    clone = Clone(Path(shutil.copytree(dirty.path, tmp_path / "clone", symlinks=True)))
    restore(clone, "0" * 32, check=False)
    (run,) = [run for run in rows(clone) if run.data.tags["mlflow.source.git.dirty"] == "true"]
    client_of(clone).set_tag(run.info.run_id, "mlflow.user", "somebody else")
    patch = Path(
        artifacts.download_artifacts(
            f"{run.info.artifact_uri}/uncommitted.patch", dst_path=tmp_path
        )
    )
    stored = clone.path / "mlartifacts" / run.info.run_id / "artifacts" / patch.name
    stored.write_bytes(patch.read_bytes().replace(b"largest", b"\x1b[31mlargest"))
    done = restore(clone, run, check=False)
    assert done.returncode
    assert "+from numpy import maximum as" in done.stdout
    assert "\x1b" not in done.stdout
    assert "'somebody else'; APPLY=1 applies it" in done.stderr
    assert not list((clone.path / "restored").glob("*"))
    stored.write_bytes(patch.read_bytes())
    restore(clone, run, apply="1")
    assert "already exists" in restore(clone, run).stdout
    (tree,) = (clone.path / "restored").iterdir()
    assert (tree / CODE[1]).exists()


LINK = b"""diff --git a/link b/link
new file mode 120000
--- /dev/null
+++ b/link
@@ -0,0 +1 @@
+/tmp
\\ No newline at end of file
diff --git a/link/evil b/link/evil
new file mode 100644
--- /dev/null
+++ b/link/evil
@@ -0,0 +1 @@
+evil
"""
ABOVE = b"""diff --git a/../evil b/../evil
new file mode 100644
--- /dev/null
+++ b/../evil
@@ -0,0 +1 @@
+evil
"""


@pytest.mark.parametrize(
    "patch", [LINK, ABOVE, ABOVE.replace(b"..", b".git/hooks"), b"no patch", b"\xff" * 1_100_000]
)
def test_hostile_patch(dirty: Clone, tmp_path: Path, patch: bytes) -> None:
    """A patch that leads out of the folder, is damaged or is too large leaves nothing behind."""
    clone = Clone(Path(shutil.copytree(dirty.path, tmp_path / "clone", symlinks=True)))
    (run,) = [run for run in rows(clone) if run.data.tags["mlflow.source.git.dirty"] == "true"]
    (clone.path / "mlartifacts" / run.info.run_id / "artifacts/uncommitted.patch").write_bytes(
        patch
    )
    done = restore(clone, run, check=False)
    assert done.returncode
    assert len(done.stderr.splitlines()) == 2  # the second is make's
    assert not list((clone.path / "restored").glob("*"))
    assert clone.git("worktree", "list").count("\n") == 0
    assert not Path("/tmp/evil").exists()  # noqa: S108
    assert not (clone.path / ".git/hooks/evil").exists()


def test_patch_that_is_too_large(clone: Clone) -> None:
    """A row whose patch would be large says so, and is refused with that reason."""
    code = clone.path / "stages" / "vanilla_lstm" / "plots.py"
    code.write_text(code.read_text() + "# long\n" * 200_000)
    clone.set({"train.epochs": 5})
    clone.dvc("repro", "-s", "train")
    run = row(clone, train__epochs="5")
    assert "more than 1000000" in run.data.tags["patch.missing"]
    done = restore(clone, run, check=False)
    assert done.returncode
    assert run.data.tags["patch.missing"] in done.stderr
    assert not list((clone.path / "restored").glob("*"))


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("mlflow.source.git.commit", "--output=params.yaml"),
        ("mlflow.source.git.commit", "HEAD"),
        ("mlflow.source.git.commit", "0" * 40),
        ("folder", "../outside"),
        ("folder", "/"),
        ("folder", "no such folder"),
        ("model.md5", "../../outside"),
        ("test_data.md5", "0" * 32),
    ],
)
def test_hostile_tags(clone: Clone, tag: str, value: str) -> None:
    """Anyone can write a row's tags: they reach neither git nor a path outside the repository."""
    outside = clone.path.parent / "outside"
    outside.mkdir()
    (outside / "params.yaml").write_text("mine")
    restore(clone, "0" * 32, check=False)
    run = row(clone, train__epochs="2")
    client_of(clone).set_tag(run.info.run_id, tag, value)
    before = contents(clone)
    done = restore(clone, run, check=False)
    assert done.returncode
    assert len(done.stderr.splitlines()) == 2  # the second is make's
    assert value in done.stderr
    assert contents(clone) == before
    assert not list((clone.path / "restored").glob("*"))
    assert [path.read_text() for path in outside.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("params.yaml", b"a: &a [*a]\nb: {"),
        ("params.yaml", b"a: 1\n" + b"#" * 30_000),
        ("files/train/data/model.keras.dvc", b"outs: 1"),
        ("files/train/data/model.keras.dvc", b'outs:\n- {md5: "../../../../etc", path: x}\n'),
        ("files/test/data/metrics.json", b"x" * 1_100_000),
        (
            "files/test/.git/config.dvc",
            b"outs:\n- {md5: 0123456789abcdef0123456789abcdef, path: x}\n",
        ),
    ],
)
def test_hostile_artifacts(clone: Clone, name: str, content: bytes) -> None:
    """A row's artifacts, too, are checked before they are used."""
    run = row(clone, train__epochs="2")
    path = clone.path / "mlartifacts" / run.info.run_id / "artifacts" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    done = restore(clone, run, check=False)
    assert done.returncode
    assert len(done.stderr.splitlines()) == 2  # the second is make's
    assert not list((clone.path / "restored").glob("*"))


def test_run_id_is_no_command(clone: Clone, tmp_path: Path) -> None:
    """The given run id reaches no shell and no path."""
    done = restore(clone, f"x; touch {tmp_path}/file", check=False)
    assert done.returncode
    assert not (tmp_path / "file").exists()
    assert "Traceback" not in restore(clone, "../x", check=False).stderr


def test_environment(clone: Clone) -> None:
    """A row names the environment that ran the code, and differences from this one are shown."""
    run = row(clone, train__epochs="2")
    assert run.data.tags["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run.data.tags["requirements.md5"] == md5(clone.path / "requirements.txt")
    assert run.data.tags["processor"]
    assert "the row was made with" not in restore(clone, run).stdout
    client_of(clone).set_tag(run.info.run_id, "processor", "an abacus")
    assert "processor: the row was made with an abacus" in restore(clone, run).stdout


def loaded(run: Run) -> Iterator[tuple[str, Path]]:
    """Yield the digest and the file of each data set, as MLflow's users load it."""
    for given in run.inputs.dataset_inputs:
        source = mlflow.data.get_source(given.dataset)
        yield given.dataset.digest, Path(source.load())


def test_data_sets_load_what_the_row_saw(reproduced: Clone, tmp_path: Path) -> None:
    """After the data was made again, a row's data set loads the row's bytes or fails."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f")
    clone.dvc("exp", "run", "--temp", "-S", "train_data.seed=5", "-S", "test_data.seed=6")
    clone.set({"train_data.seed": 7, "test_data.seed": 8})
    clone.dvc("repro")
    digests = set()
    for run in rows(clone):
        for digest, path in loaded(run):
            assert md5(path) == digest
            digests.add(digest)
    assert len(digests) == 6
    clear_cache(clone)
    for run in rows(clone):
        with pytest.raises(mlflow.MlflowException):
            next(loaded(run))


def test_data_sets_load_from_the_remote(made: Clone, clone: Clone) -> None:
    """With a DVC remote, a data set's source is in it, for everyone once `dvc push` has run."""
    clone.dvc("push", "-q")
    clear_cache(clone)
    run = row(clone, train__epochs="3")
    remote = made.path.parent / "remote"
    for digest, path in loaded(run):
        assert md5(path) == digest
        assert path.is_relative_to(remote)


def test_results_of_a_known_model(clone: Clone, tmp_path: Path) -> None:
    """A row of another test set, or one whose training was not recorded, is restored whole too."""
    restore(clone, "0" * 32, check=False)
    clone.git("checkout", "-q", ".")
    clone.set({"test_data.n_samples": 30})
    clone.dvc("repro")
    other = row(clone, test_data__n_samples="30")
    restore(clone, other)
    tree = clone.path / "restored" / other.info.run_name
    assert md5(tree / "data/test.npz") == other.data.tags["test_data.md5"]
    assert status(tree) == {}
    clone = Clone(clone.path.rename(tmp_path / "alone"))  # MLflow holds an open store by its path
    (clone.path / "mlflow.db").unlink()
    clone.git("checkout", "-q", ".")
    clone.dvc("checkout", "-q")
    clone.dvc("repro", "-f", "-s", "evaluate")
    (alone,) = rows(clone)
    assert "train_data.md5" not in alone.data.tags
    restore(clone, alone)
    tree = clone.path / "restored" / alone.info.run_name
    assert md5(tree / "data/model.keras") == alone.data.tags["model.md5"]
    assert status(tree) == {}


def test_row_of_a_folder(clone: Clone) -> None:
    """For a row in properties/, its own four stages are restored, and no other claim's.

    `dvc exp run` there leaves entries in git's index for files that do not exist.
    """
    folder = clone.path / "properties/claims/sequence-prediction"
    shutil.copy(clone.path / "params.yaml", folder)
    clone.commit("A claim with tiny params")
    epochs = "claims/sequence-prediction/params.yaml:train.epochs=2"
    Clone(clone.path / "properties").dvc("exp", "run", "-S", epochs, "evaluate@sequence-prediction")
    (run,) = [run for run in rows(clone) if "folder" in run.data.tags]
    assert run.data.tags["mlflow.source.git.dirty"] == "false"
    restore(clone, run)
    (tree,) = (clone.path / "restored").iterdir()
    claim = tree / "properties/claims/sequence-prediction"
    for tag, path in MD5_TAGS.items():
        assert md5(claim / path) == run.data.tags[tag]
    stages = ["generate-train-data", "train", "generate-test-data", "evaluate"]
    names = [f"{stage}@sequence-prediction" for stage in stages]
    assert status(tree / "properties", *names) == {}
    assert {p.parents[1].name for p in tree.glob("properties/claims/*/data/*.npz")} == {claim.name}
    assert not (tree / "data" / "train.npz").exists()


def test_colleague(clone: Clone, tmp_path: Path) -> None:
    """Another clone restores every row, of `dvc repro` and of experiments, without training.

    It has only what git and `dvc push` sent, and the tracking server's rows.
    """
    (clone.path / "mlflow.db").unlink()
    shutil.rmtree(clone.path / "mlartifacts")
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    store += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with serving(clone, "server", *store) as address:
        clone.dvc("repro", "-f", MLFLOW_TRACKING_URI=address)
        clone.dvc("exp", "run", "--temp", "-S", "train.epochs=5", MLFLOW_TRACKING_URI=address)
        clone.dvc("push", "-q")
        subprocess.run(["git", "clone", "-q", clone.path, tmp_path / "other"], check=True)
        other, client = Clone(tmp_path / "other"), MlflowClient(address)
        assert len(rows(clone, client)) == 2
        for epochs in ("3", "5"):
            run = row(other, client, train__epochs=epochs)
            make = ["make", "-s", "-o", ".venv/run", "restore", f"RUN={run.info.run_id}"]
            other.run(*make, MLFLOW_TRACKING_URI=address)
            tree = other.path / "restored" / run.info.run_name
            assert status(tree) == {}
            for tag, path in MD5_TAGS.items():
                assert md5(tree / path) == run.data.tags[tag]
        assert len(rows(clone, client)) == 2


@pytest.mark.parametrize("copied", [False, True])
def test_moved_repository(made: Clone, tmp_path: Path, copied: bool) -> None:
    """After a move or a copy, rows, models and restored folders work without the old place."""
    old = Clone(Path(shutil.copytree(made.path, tmp_path / "old", symlinks=True)))
    old.dvc("push", "-q")  # its data sets name the remote
    restore(old, row(old, train__epochs="3"))
    client = client_of(old)
    (output,) = row(old, train__epochs="2").outputs.model_outputs
    mlflow.set_tracking_uri(f"sqlite:///{old.path}/mlflow.db")
    client.create_registered_model("best")
    model = client.get_logged_model(output.model_id)
    client.create_model_version("best", model.model_uri, model_id=model.model_id)
    new = Clone(tmp_path / "a new place")
    if copied:
        shutil.copytree(old.path, new.path, symlinks=True)
    else:
        old.path.rename(new.path)
    before = {p: p.lstat().st_mtime_ns for p in old.path.rglob("*")}

    restore(new, row(new, train__epochs="2"))
    assert "already exists" in restore(new, row(new, train__epochs="3")).stdout
    new.dvc("exp", "run", "-S", "train.epochs=7")
    for run in rows(new):
        assert "epochs" in artifacts.load_text(f"{run.info.artifact_uri}/params.yaml")
        assert (new.path / "mlartifacts").as_uri() in run.info.artifact_uri
        for digest, path in loaded(run):
            assert digest
            assert not path.is_relative_to(old.path)
    mlflow.set_tracking_uri(f"sqlite:///{new.path}/mlflow.db")
    folder = Path(artifacts.download_artifacts("models:/best/1"))
    assert folder.is_relative_to(new.path)
    assert (folder / "MLmodel").is_file()
    assert status(new.path / "restored" / "baseline") == {}
    assert {p: p.lstat().st_mtime_ns for p in old.path.rglob("*")} == before

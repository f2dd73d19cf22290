"""Bring back the files of a row of MLflow: `make restore RUN=<the row's run id>`.

The row's params.yaml is put in place, and DVC restores from its cache what was made with it. Where
the cache lacks something, DVC makes it again; either way the md5s are checked against the row's.
"""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

import mlflow

from vanilla_lstm.artifacts import MODEL, TEST_DATA, TRAIN_DATA
from vanilla_lstm.errors import StageError
from vanilla_lstm.params import PARAMS
from vanilla_lstm.stage import md5
from vanilla_lstm.store import Store

MD5_TAGS = {"train_data.md5": TRAIN_DATA, "model.md5": MODEL, "test_data.md5": TEST_DATA}


def main(run_id: str) -> None:
    """Restore a row's files, or say which commit to check out first."""
    try:
        tags = Store().client.get_run(run_id).data.tags
    except (StageError, mlflow.MlflowException) as error:
        sys.exit(f"{error}")
    commit = tags.get("git.commit", "HEAD")
    code = ["stages", "dvc.yaml"]
    if subprocess.run(["git", "diff", "--quiet", commit, "--", *code], check=False).returncode:
        sys.exit(f"the code has changed since this row: `git checkout {commit}`, and try again")
    if tags.get("git.dirty") == "true":
        print(f"this row was made with changes that are not in commit {commit}", file=sys.stderr)
    folder = Path(tags.get("folder", "."))
    params = folder / PARAMS
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", params], check=False).returncode:
        shutil.copy(params, f"{params}.bak")
        print(f"{params}: what was changed in it is kept in {params}.bak", file=sys.stderr)
    params.write_text(mlflow.artifacts.load_text(f"runs:/{run_id}/{PARAMS}"))
    subprocess.run(["dvc", "repro"], cwd=folder.parent, check=True)
    wrong = [
        f"{folder / path}: its md5 is not the row's"
        for tag, path in MD5_TAGS.items()
        if tag in tags and tags[tag] != md5(folder / path)
    ]
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])

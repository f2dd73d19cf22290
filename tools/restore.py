"""Bring back the files of a row of MLflow: `make restore RUN=<the row's run id>`.

The row's params.yaml is put in place, and DVC restores from its cache what was made with it. Where
the cache lacks something, DVC makes it again; either way the md5s are checked against the row's.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

import mlflow

from bridge.record import provenance
from bridge.record.runs import TEST_DATA_MD5, TRAIN_DATA_MD5
from bridge.record.store import MODEL_MD5, Store
from bridge.run.errors import StageError
from bridge.run.files import md5
from bridge.run.params import PARAMS
from vanilla_lstm.project import EXPERIMENT
from vanilla_lstm.task.artifacts import MODEL, TEST_DATA, TRAIN_DATA
from vanilla_lstm.task.params import parse_params

MD5_TAGS = {TRAIN_DATA_MD5: TRAIN_DATA, MODEL_MD5: MODEL, TEST_DATA_MD5: TEST_DATA}


def main(run_id: str) -> None:
    """Restore a row's files, or say which commit to check out first."""
    try:
        tags = Store(EXPERIMENT).client.get_run(run_id).data.tags
    except (StageError, mlflow.MlflowException) as error:
        sys.exit(f"{error}")
    # Whoever may edit a row writes its tags: nothing of them reaches git or a path unchecked.
    commit, folder = tags.get(provenance.COMMIT, ""), Path(tags.get(provenance.FOLDER, "."))
    if not re.fullmatch("[0-9a-f]{40}", commit):
        sys.exit(f"{run_id}: its commit must be 40 hexadecimal digits; received {commit!r}")
    if not (folder / PARAMS).is_file() or not folder.resolve().is_relative_to(Path.cwd()):
        sys.exit(f"{run_id}: its folder must be one of this repository; received '{folder}'")
    code = ["stages", "dvc.yaml"]
    if subprocess.run(["git", "diff", "--quiet", commit, "--", *code], check=False).returncode:
        sys.exit(f"the code has changed since this row: `git checkout {commit}`, and try again")
    if tags.get(provenance.DIRTY) == "true":
        print(f"this row was made with changes that are not in commit {commit}", file=sys.stderr)
    text = str(mlflow.artifacts.load_text(f"runs:/{run_id}/{PARAMS}"))
    try:
        parse_params(text)
    except StageError as error:
        sys.exit(f"{run_id}: {error}")
    params = folder / PARAMS
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", params], check=False).returncode:
        shutil.copy(params, f"{params}.bak")
        print(f"{params}: what was changed in it is kept in {params}.bak", file=sys.stderr)
    params.write_text(text)
    project = next(path for path in (folder, *folder.parents) if (path / "dvc.yaml").exists())
    only = [f"evaluate@{folder.name}"] if folder.parts else []  # not all five claims
    subprocess.run(["dvc", "repro", *only], cwd=project, check=True)
    wrong = [
        f"{folder / path}: its md5 is not the row's"
        for tag, path in MD5_TAGS.items()
        if tag in tags and tags[tag] != md5(folder / path)
    ]
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])

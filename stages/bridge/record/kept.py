"""The pipeline's files in a row: the md5 of each, and the content of small ones.

The artifact `files/<split>/<path>.dvc` is a .dvc file, with which `dvc pull` gets the bytes by
their md5. Without `.dvc` it is the file itself, for files that nobody has pushed. The split is
`train` or an evaluation, and `path` is relative to the root of the checkout.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc_mlflow.repository import checkout

from ..run.files import AnyPath, md5
from .store import Store

FILES = "files"
LARGEST = 1_000_000  # bytes, of a file or a patch


def log_files(store: Store, run_id: str, paths: Sequence[AnyPath], split: str) -> None:
    """Record the md5 of each file of a split, and keep the files that are small enough."""
    root = checkout()
    with TemporaryDirectory() as folder:
        for path in map(Path, paths):
            here = Path(os.path.abspath(path))  # noqa: PTH100  (links are not followed)
            if not here.is_relative_to(root):
                continue  # DVC does not keep it either
            target = Path(folder, here.relative_to(root))
            target.parent.mkdir(parents=True, exist_ok=True)
            out = f"- md5: {md5(path)}\n  hash: md5\n  path: {json.dumps(path.name)}"
            target.with_name(f"{path.name}.dvc").write_text(f"outs:\n{out}\n")
            if path.is_file() and path.stat().st_size <= LARGEST:
                shutil.copyfile(path, target)
        store.client.log_artifacts(run_id, folder, f"{FILES}/{split}")


def copy_files(store: Store, source: str, run_id: str, split: str) -> None:
    """Add to a row the files that another row keeps of a split."""
    client, kept = store.client, f"{FILES}/{split}"
    if any(folder.path == kept for folder in client.list_artifacts(source, FILES)):
        with TemporaryDirectory() as folder:
            client.log_artifacts(run_id, client.download_artifacts(source, kept, folder), kept)

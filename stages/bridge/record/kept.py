"""The pipeline's files in a row: the md5 of each, and the content of small ones.

The artifact `files/<path>.dvc` is a .dvc file, with which `dvc pull` gets the bytes by their md5.
The artifact `files/<path>` is the file itself, for files that nobody has pushed. `path` is relative
to the root of the checkout.
"""

import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ..run.files import AnyPath, md5
from . import provenance
from .store import Store

FILES = "files"
LARGEST = 1_000_000  # bytes, of a file or a patch

_SPLIT = "\n  desc: "


def log_files(store: Store, run_id: str, paths: Sequence[AnyPath], split: str = "") -> None:
    """Record the md5 of each file, and keep the files that are small enough.

    `split` names the evaluation that they belong to; it is empty for the training's files.
    """
    root = provenance.checkout()
    with TemporaryDirectory() as folder:
        for path in map(Path, paths):
            here = Path(os.path.abspath(path))  # noqa: PTH100  (links are not followed)
            if not here.is_relative_to(root):
                continue  # DVC does not keep it either
            target = Path(folder, here.relative_to(root))
            target.parent.mkdir(parents=True, exist_ok=True)
            out = f"- md5: {md5(path)}\n  hash: md5\n  path: {json.dumps(path.name)}"
            out += f"{_SPLIT}{split}" if split else ""
            target.with_name(f"{path.name}.dvc").write_text(f"outs:\n{out}\n")
            if path.is_file() and path.stat().st_size <= LARGEST:
                shutil.copyfile(path, target)
        store.client.log_artifacts(run_id, folder, FILES)


def copy_files(store: Store, source: str, run_id: str, splits: Collection[str]) -> None:
    """Add to a row the files that another row keeps of these evaluations.

    The files of its training have the split "".
    """
    client = store.client
    if not any(artifact.path == FILES for artifact in client.list_artifacts(source)):
        return  # the row is of an older version
    with TemporaryDirectory() as folder:
        files = client.download_artifacts(source, FILES, folder)
        for named in [*Path(files).rglob("*.dvc")]:
            if named.read_text().partition(_SPLIT)[2].strip() not in splits:
                named.with_suffix("").unlink(missing_ok=True)
                named.unlink()
        client.log_artifacts(run_id, files, FILES)

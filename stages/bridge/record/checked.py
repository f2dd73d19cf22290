"""Read a row from the store and check it: anyone who can write to the store may have made it."""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mlflow import MlflowClient, set_tracking_uri

from dvc_mlflow.faults import ERRORS, deadline, store_error
from dvc_mlflow.moved import follow
from dvc_mlflow.repository import address, own_address

from ..run.errors import StageError
from ..run.params import MAX_BYTES, PARAMS, parse
from . import patches, provenance
from .errors import stage_errors
from .kept import FILES, LARGEST
from .store import MODEL_MD5

_MOST = 1000  # files and folders
_WAIT = 120  # seconds, to read a whole row


class Row(NamedTuple):
    """The checked content of a row; paths are relative to the root of the checkout."""

    run_id: str
    name: str
    tags: Mapping[str, str]
    commit: str
    folder: str
    params_file: str
    params: bytes
    patch: bytes
    md5s: Mapping[str, str]
    """By file."""
    whole: Mapping[str, bytes]
    """The content of the small files."""


@stage_errors()
def read(root: Path, run_id: str) -> Row:
    """Return a row; raise `StageError` if the store or this clone lacks it, or if it is invalid."""
    store = address(root)
    try:
        if store == own_address(root):
            if not (root / "mlflow.db").exists():
                raise StageError(f"{root}: has no mlflow.db, and MLFLOW_TRACKING_URI is not set")
            follow(root)
        set_tracking_uri(store)  # MLflow 3.0 looks for a run's artifacts there
        with deadline(_WAIT):
            client = MlflowClient()
            run = client.get_run(run_id)
            params_file = run.data.tags.get(provenance.PARAMS_FILE, str(PARAMS))
            name = PurePosixPath(params_file).name
            held = _artifacts(client, run_id, {FILES, patches.PATCH, name})
    except ERRORS as error:
        raise store_error(store, error) from None
    tags, patch = run.data.tags, held.pop(patches.PATCH, None)
    commit, folder = tags.get(provenance.COMMIT, ""), tags.get(provenance.FOLDER, ".")
    params = held.pop(name, b"")
    files = {name.split("/", 2)[-1]: content for name, content in held.items()}
    listed = [name for name in files if name.endswith(".dvc")]
    md5s = {name.removesuffix(".dvc"): _md5_in(files.pop(name)) for name in listed}
    named = {k: v for k, v in tags.items() if k == MODEL_MD5 or k.endswith("_data.md5")}
    code = tags.get(patches.NO_PATCH, "its patch is lost")
    for holds, rule in (
        (re.fullmatch("[0-9a-f]{40}", commit), f"its commit must be a hash; received {commit!r}"),
        (_is_inside(folder), f"its folder must be in the repository; received {folder!r}"),
        (_is_inside(params_file), f"its params must be in a file; received {params_file!r}"),
        (md5s, "it names no files; an older version may have made it"),
        (all(map(_is_inside, md5s)), f"its files must be in the repository; received {[*md5s]}"),
        (all(md5s.values()), f"its files must have md5s; received {md5s}"),
        ({*named.values()} <= {*md5s.values()}, f"it lacks a file for one of its tags {named}"),
        (tags.get(provenance.DIRTY) != "true" or patch is not None, f"its code is lost: {code}"),
        (len(params) <= MAX_BYTES, f"its params must be at most {MAX_BYTES} bytes"),
    ):
        if not holds:
            raise StageError(f"{run_id}: {rule}")
    where = PurePosixPath(folder, params_file if params else "")
    if params:
        parse(params.decode(errors="replace"))
    try:
        provenance.git("cat-file", "-e", f"{commit}:{where if where.parts else ''}", cwd=root)
    except StageError:
        what = f"its commit {commit}, with {str(where)!r}, is not in this clone"
        raise StageError(f"{run_id}: {what}; `git fetch` it") from None
    kept = {name: content for name, content in files.items() if _md5(content) == md5s.get(name)}
    title = run.info.run_name or run_id
    given = (commit, folder, params_file, params, patch or b"")
    return Row(run_id, title, tags, *given, md5s, kept)


def _artifacts(client: MlflowClient, run_id: str, wanted: Collection[str]) -> dict[str, bytes]:
    held: dict[str, bytes] = {}
    listed = [file for file in client.list_artifacts(run_id) if file.path in wanted]
    with TemporaryDirectory() as place:
        for file in listed:  # the list grows
            if (file.file_size or 0) > LARGEST or len(listed) > _MOST:
                raise StageError(f"{run_id}: {file.path!r} is one file too many or too large")
            if file.is_dir:
                listed += client.list_artifacts(run_id, file.path)
            else:
                local = client.download_artifacts(run_id, file.path, place)
                held[file.path] = Path(local).read_bytes()
    return held


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _md5_in(content: bytes) -> str:
    """Return the md5 in a .dvc file, or "" if it has none."""
    try:
        value = parse(content.decode(errors="replace"))["outs"][0]["md5"]
    except (StageError, LookupError, TypeError):
        return ""
    return value if re.fullmatch(r"[0-9a-f]{32}(\.dir)?", f"{value}") else ""


def _is_inside(path: str) -> bool:
    """Whether a path stays inside its folder and out of .git."""
    parts = PurePosixPath(path).parts
    return path != "" and not {"/", "..", ".git"} & {*parts}

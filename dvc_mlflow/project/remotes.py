"""Fetch files from DVC's remotes into its cache, and say why some are not to be had."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo

from ..errors import masked
from .hashing import file_md5


def fetch(repo: Any, outs: Sequence[Any]) -> str:
    """Fetch outputs from their remotes; return where one that is still missing was looked for."""
    looked, default = "in DVC's cache", repo.config["core"].get("remote")
    by_remote: dict[str, list[Any]] = {}
    for out in outs:
        by_remote.setdefault(out.remote or default or "", []).append(out)
    for name, own in by_remote.items():
        # Without a remote, an import still comes from where it was imported.
        why = _fetch(repo, name, [out for out in own if name or out.stage.is_import])
        where = f", nor in the DVC remote {name!r}"
        looked += where if name else ", and there is no default DVC remote"
        looked += f" ({why})" if why else ""
    return looked


def fetch_objects(repo: Any, out: Any, oids: Sequence[str]) -> str:
    """Fetch those of an output's objects that DVC's cache lacks; return what has gone wrong."""
    lacking = [HashInfo(out.hash_name, oid) for oid in oids if not out.cache.exists(oid)]
    name = out.remote or repo.config["core"].get("remote")
    if not (lacking and name):
        return "there is no default DVC remote" if lacking else ""
    failed: object = f"the remote {name!r} lacks it"
    try:
        repo.cloud.pull(lacking, remote=name)
    except Exception as error:  # whatever a remote's library raises
        failed = error
    # DVC calls nothing failed if it has found nothing at all.
    if all(out.cache.exists(each.value) for each in lacking):
        return ""
    return _as_line(_unreachable(repo, name, out) or failed)


@contextmanager
def nothing_deleted() -> Iterator[None]:
    """Let DVC delete no file whose md5 is wrong, in its cache or in a remote on this machine.

    For DVC it is not there, but somebody may still mend it.
    """
    every: Any = HashFileDB
    check = every.check

    def checked(db: Any, oid: str, check_hash: bool = True, *more: Any, **options: Any) -> Any:
        path, is_here = Path(db.oid_to_path(oid)), db.fs.protocol == "local"
        if check_hash and is_here and file_md5(path, db.hash_name) != oid.removesuffix(".dir"):
            raise FileNotFoundError(f"{path} is damaged")
        return check(db, oid, check_hash, *more, **options)

    every.check = checked
    try:
        yield
    finally:
        every.check = check


def _fetch(repo: Any, name: str, outs: Sequence[Any]) -> str:
    """Fetch outputs from a remote; return what has gone wrong, if anything is known of it."""
    failed: object = None
    if outs:
        try:
            repo.fetch([out.fs_path for out in outs])
        except Exception as error:  # whatever a remote's library raises
            failed = error
        failed = (name and _unreachable(repo, name, outs[0])) or failed
    return _as_line(failed) if failed else ""


def _as_line(failed: object) -> str:
    return masked(" ".join(str(failed).split()))[:200] or type(failed).__name__


def _unreachable(repo: Any, name: str, out: Any) -> object:
    """Return why nothing can be read from a remote, if that is so; `out` is what should be there.

    DVC says the same of a file that is not there and of a server that does not answer.
    """
    try:
        remote = repo.cloud.get_remote(name)
        if remote.fs.protocol == "local" and not remote.fs.exists(remote.path):
            return "its folder is not there"
        if not (remote.fs.version_aware or remote.worktree):
            odb = repo.cloud.get_remote_odb(name, hash_name=out.hash_name)
            odb.fs.info(odb.oid_to_path(out.hash_info.value))
    except FileNotFoundError as error:
        return error.__cause__  # of a server that has answered, there is none
    except Exception as error:  # whatever a remote's library raises
        return error
    return None

"""Fetch outputs from DVC's remotes into its cache, and find out why some are not to be had."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc_data.hashfile.hash_info import HashInfo

from ..errors import masked
from .hashing import file_md5


def fetch(repo: Any, outs: Sequence[Any]) -> str:
    """Fetch outputs from their remotes; return where one that is still missing was looked for."""
    default = repo.config["core"].get("remote")
    by_remote: dict[str, list[Any]] = {}
    for out in outs:
        if name := out.remote or default:
            by_remote.setdefault(name, []).append(out)
    looked = ["in DVC's cache"]
    for name, own in by_remote.items():
        why = _fetch(repo, name, own)
        looked.append(f"in the DVC remote {name!r}{f' ({why})' if why else ''}")
    if not by_remote:  # an import comes from where it was imported
        why = _fetch(repo, "", [out for out in outs if out.stage.is_import])
        looked[0] += f", and there is no default DVC remote{f' ({why})' if why else ''}"
    return ", nor ".join(looked)


def fetch_objects(repo: Any, out: Any, oids: Sequence[str]) -> str:
    """Fetch those of an output's objects that DVC's cache lacks; return what has gone wrong."""
    lacking = [HashInfo(out.hash_name, oid) for oid in oids if not out.cache.exists(oid)]
    name = out.remote or repo.config["core"].get("remote")
    if not (lacking and name):
        return "there is no default DVC remote" if lacking else ""
    try:
        failed = repo.cloud.pull(lacking, remote=name).failed and f"the remote {name!r} lacks it"
    except Exception as error:  # whatever a remote's library raises
        failed = error
    return _as_line(_unreachable(repo, name, out) or failed) if failed else ""


def _fetch(repo: Any, name: str, outs: Sequence[Any]) -> str:
    """Fetch outputs from a remote; return what has gone wrong, if anything is known of it."""
    damaged = {out: path for out in outs if name and (path := next(_damaged(repo, name, out), ""))}
    targets = dict.fromkeys(out.stage.addressing for out in outs if out not in damaged)
    failed: object = None
    if targets:
        try:
            repo.fetch([*targets])
        except Exception as error:  # whatever a remote's library raises
            failed = error
    for path in damaged.values():
        failed = f"{path} is damaged"
    if name and outs:
        failed = _unreachable(repo, name, outs[0]) or failed
    return "" if failed is None else _as_line(failed)


def _as_line(failed: object) -> str:
    return masked(" ".join(str(failed).split()))[:200] or type(failed).__name__


def _damaged(repo: Any, name: str, out: Any) -> Iterator[Path]:
    """Yield an output's files in a remote on this machine whose md5 is wrong.

    DVC would delete them there, though they can be in git, or somebody could still mend them.
    """
    with suppress(Exception):  # what cannot be read, `fetch` reports
        odb = _odb(repo, name, out)
        if odb.fs.protocol == "local":
            path = Path(odb.oid_to_path(out.hash_info.value))
            oids = [out.hash_info.value]
            if out.hash_info.isdir and path.is_file():
                oids += [entry["md5"] for entry in json.loads(path.read_bytes())]
            for oid in oids:
                file = Path(odb.oid_to_path(oid))
                if file.is_file() and file_md5(file, out.hash_name) != oid.removesuffix(".dir"):
                    yield file


def _unreachable(repo: Any, name: str, out: Any) -> object:
    """Return why nothing can be read from a remote, if that is so; `out` is what should be there.

    DVC says the same of a file that is not there and of a server that does not answer.
    """
    try:
        remote = repo.cloud.get_remote(name)
        if remote.fs.protocol == "local" and not remote.fs.exists(remote.path):
            return "its folder is not there"
        if not (remote.fs.version_aware or remote.worktree):
            odb = _odb(repo, name, out)
            odb.fs.info(odb.oid_to_path(out.hash_info.value))
    except FileNotFoundError as error:
        return error.__cause__  # of a server that has answered, there is none
    except Exception as error:  # whatever a remote's library raises
        return error
    return None


def _odb(repo: Any, name: str, out: Any) -> Any:
    return repo.cloud.get_remote_odb(name, hash_name=out.hash_name)

"""The bytes of a project: outputs by their md5s, code and texts, in the checkout or a commit."""

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc_data.hashfile.hash import fobj_md5

from ..pipeline import Output
from .opened import Opened

SMALL = 1_000_000
"""Bytes of an output that is kept whole, beside DVC's cache."""
_UNREADABLE = (OSError, ValueError, DvcException)  # a file that is missing, damaged or elsewhere


@dataclass(frozen=True)
class File:
    """A file of an output, as dvc.lock has it."""

    path: str
    """Relative to the project."""
    md5: str
    size: int


class Files(Opened):
    """A project's files."""

    def files(self, output: Output) -> list[File] | None:
        """Return the files of an output, or None if their list is neither here nor in the cache."""
        out = self._outs[output.path]
        if not output.is_folder:
            return [File(output.path, output.md5, output.size)]
        tree = self._tree(out)
        if tree is None:
            return None
        return [
            File("/".join((output.path, *key)), info.value, (meta and meta.size) or 0)
            for key, meta, info in tree
            if not {"", ".", ".."} & {*key}  # as anybody could write the list
        ]

    def read(self, output: Output, file: File) -> bytes | None:
        """Return a file's content from the checkout, git or DVC's cache, if its md5 is there."""
        out = self._outs[output.path]
        for fs, path in self._places(out, file):
            try:
                with fs.open(path, "rb") as opened:
                    content: bytes = opened.read()
            except _UNREADABLE:
                continue
            if fobj_md5(io.BytesIO(content), name=out.hash_name) == file.md5:
                return content
        return None

    def export(self, output: Output, target: Path) -> bool:
        """Make `target` the output with its bytes in dvc.lock; return False if they are not here.

        Local files are linked, not copied: a model can have a few GB.
        """
        out, files = self._outs[output.path], self.files(output)
        for file in files or ():
            place = target.joinpath(*Path(file.path).relative_to(output.path).parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            for fs, path in self._places(out, file):
                try:
                    with fs.open(path, "rb") as opened:
                        same = fobj_md5(opened, name=out.hash_name) == file.md5
                    if same and isinstance(fs, LocalFileSystem):
                        place.symlink_to(Path(path).resolve())
                    elif same:
                        place.write_bytes(fs.cat_file(path))
                except _UNREADABLE:
                    continue
                if same:
                    break
            else:
                return False
        return files is not None

    def code(self, path: str) -> dict[str, bytes]:
        """Return the files below a folder, or a file, of the checkout or the commit.

        Files that git or DVC ignores and links that lead elsewhere are left out.
        """
        fs, start = self._repo.fs, self._absolute(path)
        if fs.isfile(start):
            return {path: fs.cat_file(start)} if self._is_inside(start) else {}
        found = {}
        for folder, folders, names in self._repo.dvcignore.walk(fs, start):
            folders[:] = [n for n in folders if not self._is_ignored(f"{fs.join(folder, n)}/")]
            for file in (fs.join(folder, name) for name in sorted(names)):
                if self._is_inside(file) and not self._is_ignored(file):
                    found[self._relative(file)] = fs.cat_file(file)
        return found

    def _is_ignored(self, path: str) -> bool:
        """Whether a file or a folder of the checkout is in no commit, as a rule."""
        is_cache = posixpath.basename(path.rstrip("/")) == "__pycache__"
        is_checkout = isinstance(self._repo.fs, LocalFileSystem)  # else git's tree
        return is_cache or (is_checkout and bool(self._repo.scm.is_ignored(path)))

    def _is_inside(self, path: str) -> bool:
        """Whether a path is in the project, also where it is a link."""
        if not isinstance(self._repo.fs, LocalFileSystem):
            return True
        return Path(path).resolve().is_relative_to(self.root.resolve())

    def md5(self, path: str) -> str:
        """Return the md5 of a file of the checkout or the commit, or "" if there is none."""
        try:
            with self._repo.fs.open(self._absolute(path), "rb") as file:
                return str(fobj_md5(file))
        except _UNREADABLE:
            return ""

    def text(self, path: str) -> str | None:
        """Return the text of a file of the checkout or the commit, if there is one."""
        if not self._is_inside(self._absolute(path)):
            return None
        try:
            with self._repo.fs.open(self._absolute(path), encoding="utf-8") as file:
                return str(file.read())
        except _UNREADABLE:
            return None

    def address(self, md5: str) -> tuple[str, str]:
        """Return where the bytes with an md5 are: kind and address of a data set's source.

        That is DVC's default remote, or its cache if MLflow cannot read that: it reads only some
        kinds of remote, none that keeps versions of files, and none with a password in its address.
        """
        config = self._repo.config
        remote = config["remote"].get(config["core"].get("remote"), {})
        start = str(remote.get("url", ""))
        kind = start.partition("://")[0] if "://" in start else "local"
        known = kind in ("local", "s3", "gs", "hdfs", "http", "https")
        has_password = kind != "local" and "@" in start
        if not start or not known or has_password or {"version_aware", "worktree"} & remote.keys():
            start, kind = str(self._repo.cache.local.path), "local"
            start = start.removesuffix("/files/md5")
        kind = "http" if kind.startswith("http") else kind
        return kind, f"{start.rstrip('/')}/files/md5/{md5[:2]}/{md5[2:]}"

    def _tree(self, out: Any) -> Any:
        """Return the list of a folder's files as in dvc.lock: from DVC's cache or the checkout."""
        if out.use_cache and (tree := out.get_obj()) is not None:
            return tree
        odb = out.cache if out.use_cache else out.local_cache
        options = {"ignore": out.dvcignore, "dry_run": True, "no_progress_bar": True}
        try:
            _, _, tree = out._build(odb, out.fs_path, out.fs, out.hash_name, **options)
        except _UNREADABLE:
            return None
        return tree if tree.hash_info == out.hash_info else None

    def _places(self, out: Any, file: File) -> Iterator[tuple[Any, str]]:
        yield self._repo.fs, self._absolute(file.path)
        if out.is_in_repo:
            cache = out.cache if out.use_cache else out.local_cache
            yield cache.fs, cache.oid_to_path(file.md5)

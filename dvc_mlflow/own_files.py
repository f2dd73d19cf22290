"""The tool's own files below .dvc/tmp: a commit can have a link in the place of any of them."""

import os

FOLDER = ".dvc/tmp/dvc-mlflow"
"""Where they are, in a project."""


def check(root: str) -> None:
    """Raise `OSError` if a folder of the tool's or DVC's own in a project is a link."""
    for folder in (".dvc", ".dvc/tmp", FOLDER):
        if os.path.islink(f"{root}/{folder}"):
            raise OSError(f"{root}/{folder} is a link; nothing is written through it")


def write(path: str, content: bytes, mode: int = 0o666) -> None:
    """Replace a file at once, and never what a link in its place leads to; raises `OSError`."""
    folder, partial = os.path.dirname(path), f"{path}.{os.getpid()}"
    check(path.rpartition("/.dvc/")[0])
    os.makedirs(folder, exist_ok=True)
    if os.path.lexists(partial):
        os.unlink(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(partial, path)


def read(path: str) -> bytes:
    """Return the content of a file that is no link; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read()

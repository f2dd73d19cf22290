"""Read and write the tool's files below .dvc/tmp, never through a link that a commit has."""

import os

FOLDER = ".dvc/tmp/dvc-mlflow"
"""Where they are, in a project."""


def check(root: str) -> None:
    """Raise `OSError` if the tool's folder in a project is a link."""
    if os.path.islink(f"{root}/{FOLDER}"):
        raise OSError(f"{root}/{FOLDER} is a link; nothing is written through it")


def write(path: str, content: bytes) -> None:
    """Replace a file at once, and never what a link in its place leads to; raises `OSError`."""
    check(path.rpartition("/.dvc/")[0])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(os.open(partial, flags, 0o666), "wb") as file:
        file.write(content)
    os.replace(partial, path)


def read(path: str) -> bytes:
    """Return the content of a file that is no link; raises `OSError`."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()

"""All tags that the tool writes, and what they say: the format in which a store keeps results.

What people read has a plain name; the rest begins with `PRIVATE`, so that a row's page shows it
together.
"""

from collections.abc import Mapping

PRIVATE = "dvc-mlflow."
"""How the keys of tags begin that only the tool reads."""

# Of a row, by the names of its stages.
LOCK = f"{PRIVATE}lock."
"""The digest of a result that the row is for."""

# Of a row, for the tool.
WHOLE = f"{PRIVATE}row"
"""What decides the row, written last: where its result stands in git, and a digest of what is
declared of it. Without it, the row lacks something."""
TREE = f"{PRIVATE}tree"
"""The git tree of its last result."""
KEPT = f"{PRIVATE}kept"
"""The commit that keeps that tree."""
UNREAD = f"{PRIVATE}unread"
"""The files whose bytes could not be had."""
FOUND_BY = f"{PRIVATE}found-by"
"""Seven digits of each of its results, and of each name that it has had."""
NAMED = f"{PRIVATE}name"
"""The name that the tool has given to it: another one is somebody's own."""
NOTED = f"{PRIVATE}note"
"""A digest of the description that the tool has given to it."""
LACKS = f"{PRIVATE}lacks"
"""The files of the checkout that the last tree lacks."""
CLONE = f"{PRIVATE}clone"
"""The clone in which the process that made the row worked, by a random name in its git folder."""
PROCESS = f"{PRIVATE}process"
"""That process: the machine, its boot and the container in which ids are unique, the id with the
start. A row of one that has ended becomes KILLED."""
LIVE = f"{PRIVATE}live"
"""What a row that a follower has begun is for, as a digest, until it is known how its stage ended:
whoever records the result finds the run by it."""
TOKEN = f"{PRIVATE}token"
"""The process, and the stage, whose command has opened the run in MLflow itself."""

# Of a row, for people.
MD5 = "md5."
"""The md5 of an output in dvc.lock, by its path."""
STAGE = "dvc.stage"
"""The stage whose command the row shows."""
FOLDER = "folder"
"""The folder of a DVC project below git's root."""
EXPERIMENT = "dvc.exp_name"
"""DVC's name of the experiment."""
CHANGE = "commit"
"""The commit of the result with its subject, or the one that it was made after."""
DATA = "data"
"""The data sets that its evaluations have read, each with seven digits of its md5."""
SWEEP = f"{PRIVATE}sweep."
"""One tag for each sweep that the row belongs to, by its name: MLflow can search for it."""
SWEEP_VARIABLE = "SWEEP"
"""The environment variable with the name of the sweep for which a process works."""
CHANGED = "changed"
"""The params, code and data of a stage that were written while it ran."""

# Of a row, by MLflow's own keys.
NOTE = "mlflow.note.content"
NAME = "mlflow.runName"
PARENT = "mlflow.parentRunId"
USER = "mlflow.user"
SOURCE, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
COMMIT, REPOSITORY = "mlflow.source.git.commit", "mlflow.source.git.repoURL"

# Of a logged model.
MODEL = "dvc.model"
"""The digest of a model's bytes, loader, code and requirements."""

# Of a version of a registered model: what the git tag says that registers it.
ROW = "dvc.row"
"""The row whose model it is, because rows can share a model."""
GTO_TAG = "gto.tag"
"""The tag, such as `name@v1.0.0`."""
GTO_COMMIT = "gto.commit"
"""Its commit, by which the version is found."""

# Of a registered model.
GTO_STAGE = "gto.stage."
"""The git tag by which the tool has last given an alias, by stage: moved, it is somebody's own."""

# Of an experiment.
DEFAULT = "dvc.default"
"""The project whose default experiment it is: its folder, as a repository may be renamed."""
HISTORY = "dvc.history."
"""What the last whole pass over a project's history has seen, by the project's folder."""


def as_text(text: str) -> str:
    """Return a text as a store can keep it: git allows names and messages that are no UTF-8."""
    return text.encode(errors="replace").decode()


def tagged(tags: Mapping[str, str], start: str) -> dict[str, str]:
    """Return the tags that begin with `start`, by the rest of their keys: the stages' names."""
    return {key.removeprefix(start): tags[key] for key in tags if key.startswith(start)}

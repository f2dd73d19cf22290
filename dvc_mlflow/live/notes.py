"""What `dvc-mlflow dvc` and the commands of the stages below it tell each other, by two files.

One says, before `dvc` starts, what the text of each dvc.yaml says of its stages: no command has to
find it out. The other has the stages that ran and need nothing more, one a line: where no name is
in it, but dvc.lock has a new result, DVC's run cache has it.
"""

import marshal
import os

from .. import own_files

VARIABLE = "DVC_MLFLOW_NOTES"
"""The variable with the path of the files, which exist as long as that process."""


class Plan:
    """What a command of a stage needs to know to begin."""

    def __init__(
        self,
        name: str,
        folder: str,
        is_recorded: bool | None,
        experiment: str,
        opens_first: bool,
        address: str,
        makes_store: bool,
    ) -> None:
        self.name = os.path.normpath(f"{folder}/{name}")
        """The stage's name in its project, as the pipeline has it."""
        self.is_recorded = is_recorded
        """None if the text leaves it open."""
        self.experiment = experiment
        self.opens_first = opens_first
        """Whether its row has to be open before the command starts."""
        self.address = address
        """The address of the store."""
        self.makes_store = makes_store
        """Whether its command would make the store that is not there yet, by calling MLflow."""


Entry = tuple[str, bool | None, str, bool, str, bool]
"""What a plan is made of, except for the name."""
Entries = dict[str, dict[str, Entry]]
"""By dvc.yaml, and by the stage's name in it, without its item."""


def exists(address: str) -> bool:
    """Whether there is a store; a server makes its own."""
    scheme, _, path = address.partition(":///")
    is_file = scheme == "sqlite" and not path.startswith("file:")
    return not is_file or os.path.exists(path.partition("?")[0])


def write(notes: str, plans: Entries) -> None:
    """Make the files; if that is impossible, commands find out what they need."""
    try:
        for end, content in ((".plans", marshal.dumps(plans)), (".ran", b"")):
            own_files.write(f"{notes}{end}", content)
    except OSError:
        pass


def plan(notes: str, stage: str, home: str) -> Plan | None:
    """Return the plan of a stage, if there is one.

    `stage` is `DVC_STAGE`, relative to the folder `home` that `dvc` works in.
    """
    file, _, own = stage.rpartition(":")
    path = os.path.normpath(f"{home}/{file or 'dvc.yaml'}")
    try:
        with open(f"{notes}.plans", "rb") as opened:
            every = marshal.load(opened)  # noqa: S302  (our own process's)
        return Plan(own, *every[path][own.partition("@")[0]])
    except (OSError, LookupError, ValueError, EOFError):
        return None


def add(notes: str, stage: str) -> None:
    """Add a stage that ran; with the prefix, there are no notes."""
    if not notes:
        return
    try:  # a queue worker outlives the process, and then it does not matter
        descriptor = os.open(f"{notes}.ran", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        os.write(descriptor, f"{stage}\n".encode())
        os.close(descriptor)
    except OSError:
        pass


def read(notes: str) -> set[str]:
    """Return the stages that ran, and remove the files."""
    text = ""
    try:
        with open(f"{notes}.ran") as file:
            text = file.read()
        for end in (".ran", ".plans"):
            os.unlink(f"{notes}{end}")
    except OSError:
        pass
    return {*text.splitlines()}

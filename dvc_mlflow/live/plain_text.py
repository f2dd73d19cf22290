"""What the plain text of dvc.yaml says of a stage, without DVC: importing it takes half a second.

So it is known at once that most stages are not recorded, and what the others need to begin.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..pipeline.drawing import has_lines, is_table
from ..pipeline.prefix import is_prefixed
from ..place import address, default_experiment, main_repository, project_folder, project_root
from .mlflow_callers import may_call
from .notes import Entries, Entry, Plan, exists

_AT_TOP = ("metrics", "plots", "artifacts")
"""What the top of a dvc.yaml declares, also of the outputs of another one's stages."""


def plan_of(stage: str, home: str, *, has_prefix: bool = False) -> Plan:
    """Return the plan of a stage; `stage` is `DVC_STAGE`, relative to the folder of its `dvc`."""
    file, _, own = stage.rpartition(":")
    path = Path(os.path.normpath(f"{home}/{file or 'dvc.yaml'}"))
    root = project_root(Path(home)) or Path(home)
    text = StageText(path, own.partition("@")[0])
    return Plan(own, *_entry(text, root, *_store(), has_prefix=has_prefix))


def plans(root: Path, files: Iterable[str]) -> Entries:
    """Return what plans are made of, for all stages in these dvc.yaml files of a project."""
    found, store = {}, _store()
    for path in (Path(os.path.realpath(root / file)) for file in files):
        with suppress(Exception):  # DVC says what is wrong with it
            names = [f"{name}" for name in _content(path)["stages"]]
            found[f"{path}"] = {name: _entry(StageText(path, name), root, *store) for name in names}
    return found


def _store() -> tuple[str, str]:
    """Return the address of the store, and the name of its default experiment."""
    root = main_repository()
    return address(root), default_experiment(root, project_folder())


def _entry(
    stage: "StageText", root: Path, at: str, default: str, *, has_prefix: bool = False
) -> Entry:
    settings = stage.settings()
    return (
        os.path.relpath(stage.file.parent, os.path.realpath(root)),
        has_prefix or stage.is_recorded(),
        f"{settings.get('experiment') or default}",
        settings.get("open") == "first",
        at,
        not exists(at) and stage.may_call_mlflow(root),
    )


class StageText:
    """A stage in the text of its dvc.yaml, by its name there, without its item."""

    def __init__(self, file: Path, name: str) -> None:
        self.file, self._name = file, name
        self._text = _read(file)

    def is_recorded(self) -> bool | None:
        """Return whether `lineages.recorded` has the stage, which has no prefix; None if unsure."""
        stage = self._stage
        if stage is None:
            return None
        if any(map(is_prefixed, _texts(stage.get("cmd")))):
            return False  # the prefix records it
        others = [_read(file) for file in self._others()]
        if any("dvc-mlflow" in text for text in (self._text, *others)):
            return None  # then only stages with the prefix are recorded
        if _entries(stage.get("metrics")) or any(map(_draws_lines, _entries(stage.get("plots")))):
            return True
        if stage.get("plots") or "mlflow" in f"{stage.get('meta')}":
            return None
        declared = any(self._is_at_top(path) for path, _ in self._outputs())
        declared = declared or any(word in text for word in _AT_TOP for text in others)
        return None if declared or not self._is_one_shown() else False

    def settings(self) -> Mapping[str, Any]:
        """Return the stage's `meta.mlflow`: only what its command needs.

        A stage that names no experiment is in the row of one that does, if only one name is there.
        """
        if "mlflow" not in self._text.replace("dvc-mlflow", ""):
            return {}
        try:
            every = _settings(self.file)
            found = every.get(self._name, {})
            named = {f"{own['experiment']}" for own in every.values() if own.get("experiment")}
            return {"experiment": named.pop(), **found} if len(named) == 1 else found
        except (LookupError, TypeError, AttributeError):
            return {}  # the recorder reports what is wrong

    def may_call_mlflow(self, root: Path) -> bool:
        """Whether its command may call MLflow, by the code of the project in `root`."""
        stage = self._stage
        if stage is None:
            return True
        folder = self.file.parent / f"{stage.get('wdir') or ''}"
        paths = [path for path, _ in _entries(stage.get("deps"))]
        return may_call(_texts(stage.get("cmd")), paths, folder, root)

    def _is_one_shown(self) -> bool:
        """Whether it is sure that a stage has metrics; else the last stages are recorded."""
        with suppress(LookupError, TypeError, AttributeError):
            stages = _content(self.file)["stages"].values()
            return any(_entries(stage.get("do", stage).get("metrics")) for stage in stages)
        return False

    @cached_property
    def _stage(self) -> Mapping[str, Any] | None:
        """The stage's own part of the text, or None if it is not there as such."""
        with suppress(LookupError, TypeError, AttributeError):
            stage = _content(self.file)["stages"][self._name]
            stage = stage.get("do", stage)
            return stage if isinstance(stage, Mapping) else None
        return None

    def _outputs(self) -> Iterator[tuple[str, Any]]:
        for kind in ("outs", "metrics", "plots"):
            yield from _entries((self._stage or {}).get(kind))

    def _is_at_top(self, path: str) -> bool:
        """Whether the top of dvc.yaml may declare an output as metrics, a plot or a model."""
        folder = f"{(self._stage or {}).get('wdir') or ''}"
        own = posixpath.normpath(posixpath.join(folder, path))
        declared = {*_values([_content(self.file).get(key) for key in _AT_TOP])}
        if "${" in own or any("${" in text for text in declared):
            return bool(declared)
        paths = [posixpath.normpath(text) for text in declared]
        return any(f"{p}/".startswith(f"{own}/") or f"{own}/".startswith(f"{p}/") for p in paths)

    def _others(self) -> Iterator[Path]:
        """Yield the other dvc.yaml files that can declare an output of the stage."""
        own = self.file.resolve().parent
        wdir = Path(own, f"{(self._stage or {}).get('wdir') or ''}")
        folders = {Path(wdir, path).resolve() for path, _ in self._outputs()}
        folders |= {folder.parent for folder in folders}
        above = own
        while not (above / ".dvc").is_dir() and above.parent != above:
            above = above.parent
            folders.add(above)
        yield from (folder / "dvc.yaml" for folder in sorted(folders - {own}))


@cache
def _content(file: Path) -> Mapping[str, Any]:
    import yaml

    with suppress(yaml.YAMLError, ValueError):
        found = yaml.load(_read(file), yaml.CSafeLoader)
        return found if isinstance(found, Mapping) else {}
    return {}


@cache
def _settings(file: Path) -> Mapping[str, Any]:
    """Return each `meta.mlflow` of a dvc.yaml, by its stage's name."""
    stages = _content(file)["stages"]
    metas = {key: stage.get("do", stage).get("meta") or {} for key, stage in stages.items()}
    return {k: m["mlflow"] for k, m in metas.items() if isinstance(m.get("mlflow"), Mapping)}


@cache
def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""


def _entries(given: object) -> list[tuple[str, Any]]:
    """Return the paths in a list of dvc.yaml, each with what it says of them."""
    found: list[tuple[str, Any]] = []
    for entry in given if isinstance(given, Sequence) and not isinstance(given, str) else []:
        pairs = entry.items() if isinstance(entry, Mapping) else [(entry, None)]
        found += [(f"{path}", more) for path, more in pairs]
    return found


def _texts(given: object) -> list[str]:
    """Return the commands of a stage, of which dvc.yaml has one or a list."""
    return [f"{each}" for each in given] if isinstance(given, list) else [f"{given}"]


def _values(given: object) -> Iterator[str]:
    """Yield every text in a part of dvc.yaml."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield f"{key}"
            yield from _values(value)
    elif isinstance(given, list):
        for value in given:
            yield from _values(value)
    elif isinstance(given, str):
        yield given


def _draws_lines(entry: tuple[str, Any]) -> bool:
    """Whether it is sure that DVC draws a plot as lines: `Plot.draws_lines`."""
    path, given = entry
    template = given.get("template") if isinstance(given, Mapping) else ""
    return is_table(path) and has_lines(template or "")

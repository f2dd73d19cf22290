"""The commands of the tool's README and manual work in a user's pipeline."""

import re
import sys
import sysconfig
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from support.clone import TOOL, Clone, copied_repository, environment
from support.promoting import registrable
from support.servers import answers, free_port, running

README, MANUAL = ((TOOL / name).read_text() for name in ("README.md", "MANUAL.md"))

pytestmark = pytest.mark.pipeline


def commands(text: str) -> list[str]:
    """Return the commands of a page, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH of an environment that has all packages but the tool."""
    folder = tmp_path_factory.mktemp("environment")
    Clone(folder).run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (packages,) = folder.glob("venv/lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = folder / "venv" / "bin" / "pip"
    python = folder / "venv" / "bin" / "python"
    pip.write_text(f'#!/bin/sh\nexec {python} -m pip "$@"\n')
    pip.chmod(0o755)
    return f"{folder}/venv/bin:{environment()['PATH']}"


@pytest.mark.rest(minutes=1)
@pytest.mark.versions
def test_commands(path: str, tmp_path: Path) -> None:
    """A stranger who types the commands of both pages in order sees no error.

    They install the package, of which this repository is then no part.
    """
    pipeline = registrable(tmp_path / "own")  # with two results, as `forget` takes one
    pipeline.remove_store()
    address, port = copied_repository(tmp_path / "this"), free_port()
    with ExitStack() as servers:
        for command in [*commands(README), *commands(MANUAL)]:
            values = {"this repository": address, "row": ""}
            if (pipeline.path / "mlflow.db").exists():
                values["row"] = (pipeline.rows()[-1].info.run_name or "")[:7]
            for name, value in values.items():
                command = command.replace(f"<{name}>", value)  # noqa: PLW2901
            if command.startswith("dvc-mlflow ui"):
                command = re.sub(" ui.*", f" ui --port {port}", command)  # noqa: PLW2901
                ready = partial(answers, f"http://127.0.0.1:{port}")
                shown = environment(PATH=path)
                ui = running(["bash", "-c", f"exec {command}"], ready, cwd=pipeline.path, env=shown)
                servers.enter_context(ui)
                continue
            pipeline.run(
                "bash",
                "-c",
                command,
                PATH=path,
                PIP_NO_INDEX="1",
                PIP_NO_DEPS="1",
                PIP_NO_BUILD_ISOLATION="0",
            )
            if command.startswith("pip install"):
                show = "import dvc_mlflow; print(dvc_mlflow.__file__)"
                found = pipeline.run("python", "-c", show, PATH=path).stdout
                assert Path(found).is_relative_to(path.partition(":")[0].removesuffix("bin"))
            if command == "dvc-mlflow record --all":
                assert len(pipeline.rows()) == 2


def test_every_command_is_explained() -> None:
    """The manual names each command that `--help` lists."""
    listed = Clone(Path.cwd()).run("dvc-mlflow", "--help").stdout
    for name in re.findall(r"^    (\w+) ", listed, re.M):
        assert re.search(rf"`(?:dvc-mlflow )?{name}\b|dvc-mlflow {name}\b", MANUAL), name

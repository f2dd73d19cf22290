"""A team's services, set up as in docs/SERVICES.md, but on loopback and in temporary folders."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.clone import environment
from support.servers import answers, free_port, running, server_environment

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or ""
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
MISSING = [
    what
    for what, there in {
        "PostgreSQL": (POSTGRES / "postgres").exists(),
        "openssh-server": SSHD,
        "the extra `cluster` (make cluster-setup)": find_spec("ray") and find_spec("dvc_ssh"),
    }.items()
    if not there
]
PASSWORD = "correct-horse-battery"  # noqa: S105


@contextmanager
def postgresql() -> Iterator[str]:
    """Run PostgreSQL with a database for MLflow, and yield its address."""
    # The server refuses to run as root, and other users cannot enter pytest's folders.
    folder, port = Path(tempfile.mkdtemp(prefix="postgresql-")), free_port()
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    data = folder / "data"
    options: dict[str, Any] = {"cwd": folder, "env": environment(), **user}
    initdb = [f"{POSTGRES}/initdb", "-D", f"{data}", "-U", "mlflow", "-A", "scram-sha-256"]
    initdb += [f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, capture_output=True, **options)
    at = ["-h", "127.0.0.1", "-p", str(port)]

    def ready() -> bool:
        return not subprocess.run(
            [POSTGRES / "pg_isready", *at], capture_output=True, check=False
        ).returncode

    try:
        with running([POSTGRES / "postgres", "-D", data, *at, "-k", folder], ready, **options):
            address = f"mlflow:{PASSWORD}@127.0.0.1:{port}/postgres"
            yield f"postgresql+psycopg://{address}"
    finally:
        shutil.rmtree(folder)


@contextmanager
def ssh(folder: Path) -> Iterator[tuple[int, Path]]:
    """Run sshd for this user, and yield its port and the key that it accepts."""
    folder.mkdir()
    port = free_port()
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    config = folder / "config"
    config.write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd needs it; on Debian its service makes it

    def ready() -> bool:
        return not subprocess.run(
            ["ssh-keyscan", "-p", str(port), "127.0.0.1"], capture_output=True, check=False
        ).returncode

    listen = ["-p", str(port), "-o", "ListenAddress=127.0.0.1"]
    with running([SSHD, "-D", "-f", config, *listen], ready):
        yield port, folder / "user"


class TrackingServer:
    """MLflow with users, a database and a folder of artifacts; it can be started repeatedly."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port, self._folder, self._database = free_port(), folder, database
        self.client = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }
        folder.mkdir()

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run the server until the block ends."""
        mlflow = f"{Path(sys.executable).parent}/mlflow"
        command = [mlflow, "server", "--app-name", "basic-auth"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self._database]
        command += ["--artifacts-destination", f"{self._folder}/artifacts"]
        (self._folder / "auth.ini").write_text(
            "[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///auth.db\n"
            "admin_username = admin\nauth_cache_ttl_seconds = 60\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        with running(
            command,
            lambda: answers(f"{self.client['MLFLOW_TRACKING_URI']}/health"),
            cwd=self._folder,
            env=server_environment(
                MLFLOW_AUTH_CONFIG_PATH=f"{self._folder}/auth.ini",
                MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
                MLFLOW_FLASK_SERVER_SECRET_KEY=PASSWORD,
            ),
        ):
            yield

"""Servers on loopback: any one, a team's as in docs/SERVICES.md, and one that means ill."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.clone import Clone, environment
from support.forked import start


def free_port() -> int:
    """Return a port that nothing on this machine uses, below those that Linux gives to clients."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


@contextmanager
def other_user(uid: int = 65534) -> Iterator[None]:
    """Let root be another user in the block, whose sockets stay that user's."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def answers(url: str) -> bool:
    """Whether a web server answers, with any status."""
    with suppress(OSError):
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
        except urllib.error.HTTPError:
            return True
        return True
    return False


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: Callable[[], bool],
    end: signal.Signals = signal.SIGTERM,
    *,
    cwd: Path,
    env: Mapping[str, str],
    **options: Any,
) -> Iterator[None]:
    """Run a server until the block ends; the block starts when the server is ready."""
    server = start(command, cwd, env, **options)
    try:
        deadline = time.monotonic() + 300
        while not ready():
            assert server.poll() is None, f"{command} has ended with {server.poll()}"
            assert time.monotonic() < deadline, f"{command} does not answer"
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, end)
            server.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


@contextmanager
def serving(clone: Clone, *command: str, port: int = 0, **more: str) -> Iterator[str]:
    """Run an MLflow server in a clone, on a free port if none is given, and yield its address."""
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    with running(
        # A further worker would import all of MLflow, and one answers requests at once, too.
        ["mlflow", *command, "--workers", "1", "--host", "127.0.0.1", "--port", f"{port}"],
        lambda: answers(f"{address}/health"),
        end=signal.SIGKILL,  # after SIGTERM it would still answer connected clients
        cwd=clone.path,
        # For jobs, it would start ten processes more.
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **more),
    ):
        yield address


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
        command = [f"{POSTGRES}/postgres", "-D", f"{data}", *at, "-k", f"{folder}"]
        # At SIGTERM it would wait for clients, which may be in this process.
        with running(command, ready, end=signal.SIGINT, **options):
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
    with running([SSHD, "-D", "-f", config, *listen], ready, cwd=folder, env=os.environ):
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
        command = ["server", "--app-name", "basic-auth", "--backend-store-uri", self._database]
        command += ["--artifacts-destination", f"{self._folder}/artifacts"]
        (self._folder / "auth.ini").write_text(
            "[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///auth.db\n"
            "admin_username = admin\nauth_cache_ttl_seconds = 60\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        with serving(
            Clone(self._folder),
            *command,
            port=self.port,
            MLFLOW_AUTH_CONFIG_PATH=f"{self._folder}/auth.ini",
            MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
            MLFLOW_FLASK_SERVER_SECRET_KEY=PASSWORD,
        ):
            yield


@contextmanager
def hostile_server(place: str, run_id: str = "f" * 32, next_page: str = "") -> Iterator[str]:
    """Yield the address of a server whose experiments and runs keep their files at `place`.

    It has no runs; a search of them has a `next_page`, and that the same one, for ever.
    """
    experiment = {"experiment_id": "1", "name": "x", "artifact_location": place, "tags": []}
    info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING"}
    info |= {"artifact_uri": place, "lifecycle_stage": "active", "run_name": "x", "user_id": "x"}
    answers: dict[str, Any] = {
        "experiments/get-by-name": {"experiment": experiment},
        "experiments/get": {"experiment": experiment},
        "experiments/search": {"experiments": [experiment]},
        "runs/search": {"runs": [], **({"next_page_token": next_page} if next_page else {})},
    }
    run = {"run": {"info": info, "data": {}, "inputs": {}}, "run_info": info}
    answers |= {f"runs/{each}": run for each in ("create", "get", "update")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            found = answers.get(path.rpartition("/mlflow/")[2], {})
            body = b"3.17.2" if path == "/version" else json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (of the class that it overrides)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

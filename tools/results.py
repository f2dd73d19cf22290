"""Check MLflow's rows at the end of `make repro`; with `ui PORT`, also show them.

Each stage ends the rows of killed stages, but no stage runs if DVC already has the result.
"""

import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from bridge.record.runs import TEST_DATA_MD5
from bridge.record.store import Store
from bridge.run.errors import StageError
from bridge.run.files import md5
from vanilla_lstm.project import COLUMNS, EXPERIMENT
from vanilla_lstm.task.artifacts import METRICS, MODEL, TEST_DATA
from vanilla_lstm.task.params import read_params


def main(*arguments: str) -> None:
    """End killed stages' rows, report a missing result, and with `ui PORT` serve the table."""
    try:
        read_params()  # a section that no stage reads may be misspelt
        store = Store(EXPERIMENT, COLUMNS)  # ends the rows of killed stages
        missing = False
        if all(path.exists() for path in (MODEL, TEST_DATA, METRICS)):
            test_data = md5(TEST_DATA)
            with store.errors_reported():
                runs = store.results_of(md5(MODEL))
            missing = not any(run.data.tags.get(TEST_DATA_MD5) == test_data for run in runs)
    except StageError as error:
        sys.exit(f"{error}")
    if missing:
        cure = "`dvc repro -f -s train evaluate` adds it"
        print(f"MLflow does not have the result in {MODEL.parent}/; {cure}", file=sys.stderr)
    if arguments[:1] == ("ui",):
        serve(store, int(arguments[1]))


def serve(store: Store, port: int) -> None:
    """Serve the store on this machine only, and print the table's address."""
    if store.address.startswith("http"):
        sys.exit(f"All results: {store.url()}")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is in use: `make ui PORT={port + 1}` uses another")
    print(f"All results: {store.url().replace(':5000', f':{port}')}", flush=True)
    command = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = store.address  # `ps` would show an argument
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])

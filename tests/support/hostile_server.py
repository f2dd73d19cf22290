"""A tracking server that means ill: it names a file's place, a run's id or a page as it likes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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

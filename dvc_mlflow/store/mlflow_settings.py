"""MLflow's settings in the tool's own process; MLflow reads some when it is imported."""

import logging
import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
# MLflow would pack lock files of the working directory with each model.
os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# A server that has gone is reported at once: what was not recorded can be recorded later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# It can wait for its SQLite database for 20 s.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# MLflow logs what it raises; MLflow 3.5 lets alembic set the loggers' own levels.
logging.disable(logging.ERROR)

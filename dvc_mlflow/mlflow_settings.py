"""MLflow's settings in the tool's own process; MLflow reads some when it is imported."""

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
# MLflow would pack lock files of the working directory with each model.
os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

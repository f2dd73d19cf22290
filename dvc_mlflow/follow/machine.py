"""The machine's use while a stage runs, by MLflow's own monitor, if MLflow's own switch is on."""

from typing import Protocol

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING


class Monitor(Protocol):
    """What logs to a run until it is told to finish."""

    def start(self) -> None:
        """Log in a thread of its own."""

    def finish(self) -> None:
        """Stop, and log what is left."""


def monitor(run_id: str) -> Monitor | None:
    """Start to log the machine's use to a run, if the environment asks for it."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # seldom needed

    started: Monitor = SystemMetricsMonitor(run_id)
    started.start()
    return started

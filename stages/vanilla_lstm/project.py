"""What MLflow shows of this project: the experiment, and the columns of its table."""

EXPERIMENT = "vanilla-lstm"
COLUMNS = [
    "metrics.test/accuracy",
    "metrics.test/correctly_classified",
    "metrics.test/loss",
    "params.model.cell",
    "params.model.units",
    "params.train.epochs",
    "params.train.learning_rate",
    "params.data.n_steps",
]
CURVES = {
    "train/loss": "loss",
    "train/accuracy": "accuracy",
    "val/loss": "val_loss",
    "val/accuracy": "val_accuracy",
}
"""The curves by their names in MLflow, and the fields of an epoch that they show."""

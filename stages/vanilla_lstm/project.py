"""How this project appears in MLflow: the experiment, its table's columns and the curves."""

EXPERIMENT = "vanilla-lstm"
COLUMNS = [
    "-metrics.test/loss",  # the lowest first: many results share an accuracy
    "metrics.test/accuracy",
    "metrics.test/correctly_classified",
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
"""Each curve's name in MLflow, and the field of `Epoch` that it shows."""

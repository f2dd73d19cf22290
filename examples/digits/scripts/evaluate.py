"""Measure data/model.pkl on the images that it was not trained on."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss

from bridge.record import Data, Store, evaluation
from bridge.run import run
from serving import COLUMNS, serve

REPORTS = ["reports/metrics.json", "reports/confusion.csv"]


def main(stage):
    model = pickle.loads(Path("data/model.pkl").read_bytes())
    metrics = {}
    for split in ("validation", "test"):
        images = np.loadtxt(f"data/{split}/images.csv", delimiter=",")
        labels = np.loadtxt(f"data/{split}/labels.csv", dtype=int)
        probabilities = model.predict_proba(images)
        predicted = probabilities.argmax(axis=1)
        metrics[split] = {
            "accuracy": accuracy_score(labels, predicted),
            "loss": log_loss(labels, probabilities),
        }

    Path("reports").mkdir(exist_ok=True)
    Path("reports/metrics.json").write_text(json.dumps(metrics, indent=2))
    pd.DataFrame({"actual": labels, "predicted": predicted}).to_csv(
        "reports/confusion.csv", index=False
    )
    store, known = Store("digits", COLUMNS), {"params": {}, "serve": serve, "files": REPORTS}
    for split, scores in metrics.items():
        data = Data(f"data/{split}")
        evaluation(store, stage, "data/model.pkl", data, metrics=scores, name=split, **known)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    run(main, reads=["data/model.pkl", "data/validation", "data/test"])

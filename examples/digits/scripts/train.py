"""Train a linear classifier on data/train, one pass at a time."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bridge.record import Data, Store, training
from bridge.run import run
from serving import COLUMNS, serve


def main(stage):
    params = yaml.safe_load(Path("params.yaml").read_text())
    settings = params["train"]
    images = np.loadtxt("data/train/images.csv", delimiter=",")
    labels = np.loadtxt("data/train/labels.csv", dtype=int)
    scaler = StandardScaler().fit(images)
    scaled = scaler.transform(images)
    classifier = SGDClassifier(
        loss="log_loss",
        alpha=settings["penalty"],
        learning_rate="constant",
        eta0=settings["rate"],
        random_state=settings["seed"],
    )
    losses = []
    store, data = Store("digits", COLUMNS), Data("data/train")
    with training(store, stage, "data/model.pkl", data, params=params, serve=serve) as row:
        for step in range(settings["passes"]):
            classifier.partial_fit(scaled, labels, classes=range(10))
            losses.append(log_loss(labels, classifier.predict_proba(scaled)))
            row.log_metrics({"train/loss": losses[-1]}, step)
        stage.write("data/model.pkl", pickle.dumps(make_pipeline(scaler, classifier)))
    Path("reports").mkdir(exist_ok=True)
    pd.DataFrame({"loss": losses}).to_csv("reports/training.csv", index_label="step")


if __name__ == "__main__":
    run(main, reads=["params.yaml", "data/train"])

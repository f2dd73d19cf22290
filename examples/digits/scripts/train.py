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


def main():
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
    for _ in range(settings["passes"]):
        classifier.partial_fit(scaled, labels, classes=range(10))
        losses.append(log_loss(labels, classifier.predict_proba(scaled)))
    Path("data/model.pkl").write_bytes(pickle.dumps(make_pipeline(scaler, classifier)))
    Path("reports").mkdir(exist_ok=True)
    pd.DataFrame({"loss": losses}).to_csv("reports/training.csv", index_label="step")


if __name__ == "__main__":
    main()

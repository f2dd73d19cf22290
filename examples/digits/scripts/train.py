"""Train a linear classifier on data/train, one pass at a time."""

import pickle
from pathlib import Path

import numpy as np
import yaml
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    params = yaml.safe_load(Path("params.yaml").read_text())["train"]
    images = np.loadtxt("data/train/images.csv", delimiter=",")
    labels = np.loadtxt("data/train/labels.csv", dtype=int)

    scaler = StandardScaler()
    scaled = scaler.fit_transform(images)
    classifier = SGDClassifier(
        loss="log_loss",
        alpha=params["penalty"],
        learning_rate="constant",
        eta0=params["rate"],
        random_state=params["seed"],
    )
    with Path("reports/training.csv").open("w") as curve:
        print("step,loss", file=curve)
        for step in range(params["passes"]):
            classifier.partial_fit(scaled, labels, classes=range(10))
            loss = log_loss(labels, classifier.predict_proba(scaled))
            print(f"{step},{loss}", file=curve, flush=True)

    Path("data/model.pkl").write_bytes(pickle.dumps(make_pipeline(scaler, classifier)))


if __name__ == "__main__":
    main()

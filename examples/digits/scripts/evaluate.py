"""Measure data/model.pkl on the images that it was not trained on."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss


def main():
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
        if split == "test":
            table = pd.DataFrame({"actual": labels, "predicted": predicted})
            table.to_csv("reports/confusion.csv", index=False)

    Path("reports/metrics.json").write_text(json.dumps(metrics, indent=2))
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()

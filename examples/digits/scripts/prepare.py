"""Split scikit-learn's images of handwritten digits into three folders."""

from pathlib import Path

import numpy as np
import yaml
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def save(folder, images, labels):
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savetxt(f"{folder}/images.csv", images, fmt="%d", delimiter=",")
    np.savetxt(f"{folder}/labels.csv", labels, fmt="%d")


def main():
    params = yaml.safe_load(Path("params.yaml").read_text())["prepare"]
    images, labels = load_digits(return_X_y=True)
    for split in ("test", "validation"):
        images, held_out, labels, held_out_labels = train_test_split(
            images, labels, test_size=params[split], random_state=params["seed"], stratify=labels
        )
        save(f"data/{split}", held_out, held_out_labels)
    save("data/train", images, labels)


if __name__ == "__main__":
    main()

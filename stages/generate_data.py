"""Stages `generate-train-data` and `generate-test-data`: params.yaml -> data/{train,test}.npz."""

import sys

from vanilla_lstm.task.artifacts import TEST_DATA, TRAIN_DATA, DataSet, write_dataset
from vanilla_lstm.task.params import read_params


def main() -> None:
    """Draw one data set and write it with the parameters that made it."""
    params = read_params()
    match sys.argv[1:]:
        case ["train"]:
            path, dataset = TRAIN_DATA, DataSet.draw(params.data, params.train_data)
        case ["test"]:
            path, dataset = TEST_DATA, DataSet.draw(params.data, params.test_data)
        case _:
            sys.exit("usage: python stages/generate_data.py train|test")
    write_dataset(path, dataset)
    n_samples, n_steps = dataset.x.shape
    print(f"{path}: {n_samples} sequences of {n_steps} steps")


if __name__ == "__main__":
    main()

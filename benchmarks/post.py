"""The post's script: the same model, data, recipe and output, in Keras alone."""

import sys
import time

import keras
import matplotlib.pyplot as plt  # noqa: F401 - the post imports it
import numpy as np
from keras.layers import LSTM, Dense
from keras.models import Sequential
from keras.utils import to_categorical

N_MAX, N_STEPS, N_SAMPLES, EPOCHS = 5, 10, 1000, int(sys.argv[1])


def draw() -> tuple[np.ndarray, np.ndarray]:
    digits = np.random.randint(0, N_MAX - 1, N_SAMPLES * N_STEPS).reshape(N_SAMPLES, N_STEPS, 1)
    one_hot = to_categorical(digits, num_classes=N_MAX)
    return one_hot, one_hot[:, 1, :]


np.random.seed(1234)
x, y = draw()
model = Sequential(
    [keras.Input((N_STEPS, N_MAX)), LSTM(25), Dense(N_MAX, activation="softmax")],
)
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["acc"])
model.summary()
started = time.perf_counter()
model.fit(x, y, validation_split=0.2, epochs=EPOCHS)
seconds = time.perf_counter() - started
x, y = draw()
print("Accuracy:", model.evaluate(x, y))
correct = np.sum(np.argmax(model.predict(x), axis=1) == np.argmax(y, axis=1))
print("Correctly classified:", correct)
print(seconds)

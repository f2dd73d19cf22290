"""The post's training in PyTorch, as PyTorch users would write it.

It uses no DataLoader, which would make it slower.
"""

import sys
import time

import numpy as np
import torch
from torch import nn

N_MAX, N_STEPS, N_SAMPLES, EPOCHS, BATCH = 5, 10, 1000, int(sys.argv[1]), 32


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_MAX, 25, batch_first=True)
        self.dense = nn.Linear(25, N_MAX)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (state, _) = self.lstm(x)
        logits: torch.Tensor = self.dense(state[0])
        return logits


np.random.seed(1234)
digits = torch.tensor(np.random.randint(0, N_MAX - 1, N_SAMPLES * N_STEPS))
digits = digits.reshape(N_SAMPLES, N_STEPS)
x, y = nn.functional.one_hot(digits, N_MAX).float(), digits[:, 1]
n_train = int(N_SAMPLES * 0.8)
x_train, y_train, x_val, y_val = x[:n_train], y[:n_train], x[n_train:], y[n_train:]

torch.manual_seed(1234)
started = time.perf_counter()
model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
loss_of = nn.CrossEntropyLoss()
for epoch in range(EPOCHS):
    model.train()
    total = correct = 0.0
    for batch in torch.randperm(n_train).split(BATCH):
        optimizer.zero_grad()
        logits = model(x_train[batch])
        loss = loss_of(logits, y_train[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
        correct += (logits.argmax(1) == y_train[batch]).sum().item()
    model.eval()
    with torch.no_grad():
        logits = model(x_val)
        val_loss = loss_of(logits, y_val).item()
        val_accuracy = (logits.argmax(1) == y_val).float().mean().item()
    print(epoch + 1, total / n_train, correct / n_train, val_loss, val_accuracy)
print(time.perf_counter() - started)

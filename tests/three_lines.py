"""What the README promises in three lines, on a small network of one's own; a script."""

import torch

import edgedl

torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, 2, 1),
    torch.nn.ReLU(),
    torch.nn.Conv2d(16, 32, 3, 2, 1),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.Linear(32 * 16, 10),
).eval()
x = torch.randn(128, 3, 16, 16)

made = edgedl.compress_model(module, x, targets="ort")
print(made)
print(made.runner("ort")(x[:2].numpy())[0].shape)

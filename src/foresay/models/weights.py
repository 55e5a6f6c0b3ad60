"""Weights before they are loaded or drawn."""

import torch
from torch import nn


def nan_weights(module: nn.Module) -> None:
    """Fill every parameter with NaN, so that one that nobody loads cannot pass unnoticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)


def reset_linear(linear: nn.Linear, generator: torch.Generator) -> None:
    """Draw as torch does (uniform within 1 / sqrt(inputs)), but from `generator`."""
    bound = linear.in_features**-0.5
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)

# SPDX-License-Identifier: BSD-2-Clause
"""Layers of the BNN paper: sign, its straight-through estimator, and binary dense networks.

    forward   y = +1 if x >= 0 else -1
    backward  dx = dy where |x| <= 1, else 0        (Courbariaux, Hubara et al. 2016, eq. 4)

Weights are kept as real numbers in [-1, 1] while training and used through their sign.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BinaryDense", "BinaryNetwork", "TensorNorm", "sign"]


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


def sign(x: Tensor) -> Tensor:
    """+1 where `x >= 0`, else -1; the gradient passes where |x| <= 1."""
    return _Sign.apply(x)


class BinaryDense(nn.Module):
    """Fully connected without bias; the weights used are the signs of `latent` (rows, columns)."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(rows, columns).uniform_(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, sign(self.latent))

    @torch.no_grad()
    def clip(self) -> None:
        """Keep the latent weights in [-1, 1]: outside, they would no longer matter."""
        self.latent.clamp_(-1, 1)


class TensorNorm(nn.Module):
    """Batch norm with one mean, variance, scale and bias for the whole tensor, scale positive.

    One positive scale for all classes keeps the arg-max: integer scores give the label.
    """

    def __init__(self, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("running_mean", torch.zeros(()))
        self.register_buffer("running_var", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            var, mean = torch.var_mean(x, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        return (x - mean) * (self.log_scale.exp() / (var + self.eps).sqrt()) + self.bias

    @torch.no_grad()
    def affine(self) -> tuple[float, float]:
        """(gain, offset) with `output = gain * x + offset` in evaluation."""
        gain = self.log_scale.double().exp() / (self.running_var.double() + self.eps).sqrt()
        return float(gain), float(self.bias.double() - gain * self.running_mean.double())


class BinaryNetwork(nn.Module):
    """Dense layers with ±1 weights and activations: dense, batch norm, sign, ..., dense, norm.

    widths: inputs, hidden layers ..., classes. Takes ±1 floats (N, inputs).
    """

    def __init__(self, widths: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.dense = nn.ModuleList(BinaryDense(columns, rows) for columns, rows in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(rows) for rows in widths[1:-1])
        self.dropout = nn.Dropout(dropout)
        self.head = TensorNorm()

    def dots(self, x: Tensor) -> Tensor:
        """Integer scores (N, classes), as floats."""
        for dense, norm in zip(self.dense, self.norms, strict=False):
            x = self.dropout(sign(norm(dense(x))))
        return self.dense[-1](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dots(x))

    def clip(self) -> None:
        """Clip every latent weight to [-1, 1]; call after each optimiser step."""
        for dense in self.dense:
            dense.clip()

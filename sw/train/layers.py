# SPDX-License-Identifier: BSD-2-Clause
"""The network of a recipe: binary by the BNN paper's rules, or its float twin.

    forward   y = +1 if x >= 0 else -1
    backward  dx = dy where |x| <= 1, else 0        (Courbariaux, Hubara et al. 2016, eq. 4)

Weights are kept as real numbers in [-1, 1] while training and used through their sign.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from xnorforge.sw.train.recipes import Conv, Pool, Recipe

__all__ = ["BinaryNetwork", "Product", "TensorNorm", "sign"]


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


class Product(nn.Module):
    """Dense layer or convolution without bias, then a max pool if `pool` is more than 1.

    latent: (rows, columns), or (rows, channels, kernel, kernel) of a convolution. The weights used
    are its signs, or the numbers themselves in a float twin.
    """

    def __init__(self, *shape: int, pool: int = 1, binary: bool = True) -> None:
        super().__init__()
        self.pool, self.binary = pool, binary
        limit = 1.0 if binary else math.sqrt(6 / math.prod(shape[1:]))
        self.latent = nn.Parameter(torch.empty(shape).uniform_(-limit, limit))

    @property
    def columns(self) -> int:
        """Inputs of one dot product."""
        return self.latent[0].numel()

    def forward(self, x: Tensor) -> Tensor:
        weights = sign(self.latent) if self.binary else self.latent
        if weights.ndim == 2:
            return nn.functional.linear(x.flatten(1), weights)
        x = nn.functional.conv2d(x, weights)
        return nn.functional.max_pool2d(x, self.pool) if self.pool > 1 else x

    @torch.no_grad()
    def clip(self) -> None:
        """Keep the latent weights in [-1, 1]: outside, their signs would no longer turn."""
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
    """A recipe's layers: product, batch norm, sign (ReLU in a float twin), ..., product, norm.

    Takes floats (N, channels, height, width): ±1 for pixels "bits", 2 * pixel - 255 for "bytes".
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        products: list[Product] = []
        for index, (layer, shape) in enumerate(zip(recipe.layers, recipe.shapes, strict=False)):
            if isinstance(layer, Conv):
                after = recipe.layers[index + 1 : index + 2]
                pool = after[0].size if after and isinstance(after[0], Pool) else 1
                kernel = (shape[2], layer.kernel, layer.kernel)
                products.append(Product(layer.channels, *kernel, pool=pool, binary=recipe.binary))
            elif not isinstance(layer, Pool):
                products.append(Product(layer.rows, math.prod(shape), binary=recipe.binary))
        head = Product(recipe.classes, math.prod(recipe.shapes[-1]), binary=recipe.binary)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(len(product.latent))
            if product.latent.ndim == 4
            else nn.BatchNorm1d(len(product.latent))
            for product in products
        )
        self.products = nn.ModuleList([*products, head])
        self.dropout = nn.Dropout(recipe.dropout)
        self.activation = sign if recipe.binary else nn.functional.relu
        self.head = TensorNorm()

    def dots(self, x: Tensor) -> Tensor:
        """Scores (N, classes) as floats; integers unless this is a float twin."""
        if self.products[0].latent.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        for product, norm in zip(self.products, self.norms, strict=False):
            x = self.dropout(self.activation(norm(product(x))))
        return self.products[-1](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dots(x).float())

    def clip(self) -> None:
        """Clip every latent weight to [-1, 1]; call after each optimiser step."""
        if self.recipe.binary:
            for product in self.products:
                product.clip()

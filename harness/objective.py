"""Rectified flow: the path from data to noise, the velocity, and the loss.

x_t = (1 - t) x + t e with data x, noise e and t in (0, 1), t = 1 being pure noise; the model's
target is the velocity v = e - x (Liu et al. 2022, arXiv:2209.03003; timesteps as in Esser et al.
2024, arXiv:2403.03206).
"""

from collections.abc import Callable

import torch
from torch import Tensor

DATA_VARIANCE = 0.45  # s^2 of Fashion-MNIST's pixels in -1..1, near enough at every size

Model = Callable[..., Tensor]


def timesteps(draws: Tensor, kind: str) -> Tensor:
    """Timesteps [B] from standard normal draws [B]: sigmoid of them, or uniform by their CDF."""
    if kind == "logit_normal":
        return torch.sigmoid(draws)
    return torch.special.ndtr(draws)


def at(t: Tensor, like: Tensor) -> Tensor:
    """t [B] as [B, 1, 1, 1]."""
    return t.view(-1, *([1] * (like.ndim - 1)))


def noised(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t [B, C, H, W] on the straight path."""
    t = at(t, x)
    return (1 - t) * x + t * noise


def velocity(
    model: Model, x_t: Tensor, t: Tensor, precondition: bool, *condition: object
) -> Tensor:
    """The predicted velocity [B, C, H, W].

    With `precondition` the network adds to the best linear guess for data of mean 0, as EDM's skip
    does (Karras et al. 2022, arXiv:2206.00364, table 1, carried over to velocities): with s^2 the
    data's variance and var = t^2 + (1 - t)^2 s^2 then that of x_t,
    v = (t - (1 - t) s^2) / var * x_t + sqrt(s^2 / var) * network(x_t / sqrt(var)).
    """
    if not precondition:
        return model(x_t, t, *condition).float()
    s2, u = DATA_VARIANCE, at(t, x_t)
    variance = u**2 + (1 - u) ** 2 * s2
    output = model(x_t / variance.sqrt(), t, *condition).float()
    return (u - (1 - u) * s2) / variance * x_t + (s2 / variance).sqrt() * output

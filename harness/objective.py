"""What a model is trained for: rectified flow, or DDPM's noise and variance.

Flow: x_t = (1 - t) x + t e with data x, noise e and t in (0, 1), t = 1 being pure noise; the target
is the velocity v = e - x (Liu et al. 2022, arXiv:2209.03003; timesteps as in Esser et al. 2024,
arXiv:2403.03206). DDPM (`harness.diffusion`): t is the step / 1000.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import diffusion
from harness.config import Objective
from models.geometry import Geometry
from models.names import DDPM_STEPS

Model = Callable[..., Tensor]


def timesteps(draws: Tensor, objective: Objective) -> Tensor:
    """Timesteps float32 [B] in [0, 1] from standard normal draws [B].

    Flow: the sigmoid of them (logit-normal), or uniform by their distribution function. DDPM: k /
    1000 with k uniform in 0 .. 999, likewise.
    """
    if objective.kind == "flow" and objective.timesteps == "logit_normal":
        return torch.sigmoid(draws)
    uniform = torch.special.ndtr(draws)
    if objective.kind == "flow":
        return uniform
    return (uniform * DDPM_STEPS).floor().clamp(max=DDPM_STEPS - 1) / DDPM_STEPS


def at(t: Tensor, like: Tensor) -> Tensor:
    """t [B] as [B, 1, 1, 1]."""
    return t.view(-1, *([1] * (like.ndim - 1)))


def noised(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t [B, C, H, W] on the straight path."""
    t = at(t, x)
    return (1 - t) * x + t * noise


def velocity(
    model: Model, x_t: Tensor, t: Tensor, data_variance: float | None, *condition: object
) -> Tensor:
    """The predicted velocity [B, C, H, W].

    With `data_variance` s^2, the network adds to the linear guess that is best for data of mean 0
    and that variance, as EDM's skip does (Karras et al. 2022, arXiv:2206.00364, table 1, carried
    over to velocities): with var = t^2 + (1 - t)^2 s^2 the variance of x_t,
    v = (t - (1 - t) s^2) / var * x_t + sqrt(s^2 / var) * network(x_t / sqrt(var)).
    """
    if data_variance is None:
        return model(x_t, t, *condition).float()
    s2, u = data_variance, at(t, x_t)
    variance = u**2 + (1 - u) ** 2 * s2
    output = model(x_t / variance.sqrt(), t, *condition).float()
    return (u - (1 - u) * s2) / variance * x_t + (s2 / variance).sqrt() * output


def prediction(
    model: Model, objective: Objective, x_t: Tensor, t: Tensor, *condition: object
) -> Tensor:
    """What the objective trains: the velocity [B, C, H, W], or epsilon and v [B, 2C, H, W]."""
    if objective.kind == "flow":
        variance = objective.data_variance if objective.precondition else None
        return velocity(model, x_t, t, variance, *condition)
    return model(x_t, t, *condition).float()


def training_loss(
    model: Model,
    objective: Objective,
    x: Tensor,
    noise: Tensor,
    t: Tensor,
    labels: Tensor,
    geometry: Geometry,
    micro: Tensor | None,
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        x: images in -1..1, [B, C, H, W], and noise likewise.
        t: [B], from `timesteps`.
        labels: int64 [B], the null label where it was dropped.
        micro: the micro-conditions [B, 4] in pixels, None for a model without.
    """
    condition = (labels, geometry, micro)
    if objective.kind == "flow":
        return F.mse_loss(
            prediction(model, objective, noised(x, noise, t), t, *condition), noise - x
        )
    k = (t * DDPM_STEPS).round().long()
    x_t = diffusion.noised(diffusion.whole_chain(x.device), x, noise, k)
    output = prediction(model, objective, x_t, t, *condition)
    return diffusion.loss(output, x, noise, x_t, k)

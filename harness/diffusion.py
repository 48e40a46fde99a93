"""DDPM as DiT trains and samples it: the noise epsilon, and a variance learned within its range.

x_t = sqrt(a_t) x + sqrt(1 - a_t) e, with a_t ("alpha-bar") the product of 1 - beta up to step t of
the 1000, beta rising linearly from 1e-4 to 0.02 (Ho et al. 2020, arXiv:2006.11239, eq. 4). The
network gives epsilon and, for each value, where between its two bounds the log variance of a step
back lies (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 15). Tables are float64.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from models.names import DDPM_STEPS

ndtr = torch.special.ndtr  # the normal distribution function

BETAS = (1e-4, 0.02)
HALF_GREY = 1 / 255  # half the distance of two of the 256 greys in -1..1


@dataclass(frozen=True, eq=False)
class Chain:
    """Some of the 1000 steps in ascending order, as a chain of its own; every table is [K].

    steps int64; kept: alpha-bar after a step; before: alpha-bar after the one before it, 1 at the
    first; beta = 1 - kept / before; smallest and largest: bounds of a step back's log variance, the
    posterior's and log beta. The posterior's is 0 at the first step and takes the second's value.
    """

    steps: Tensor
    kept: Tensor
    before: Tensor
    beta: Tensor
    smallest: Tensor
    largest: Tensor


def signal_kept() -> Tensor:
    """Alpha-bar of the 1000 training steps, float64 [1000]."""
    return (1 - torch.linspace(*BETAS, DDPM_STEPS, dtype=torch.float64)).cumprod(0)


def chain_of(steps: Tensor, device: torch.device) -> Chain:
    """The chain over these steps: distinct, ascending, int64 [K] (Nichol and Dhariwal, eq. 19)."""
    kept = signal_kept()[steps]
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    beta = 1 - kept / before
    posterior = beta * (1 - before) / (1 - kept)
    posterior[0] = posterior[1] if len(steps) > 1 else beta[0]
    tables = (steps, kept, before, beta, posterior.log(), beta.log())
    return Chain(*(table.to(device) for table in tables))


@lru_cache(maxsize=8)
def whole_chain(device: torch.device) -> Chain:
    """The chain of all training steps."""
    return chain_of(torch.arange(DDPM_STEPS), device)


def _at(table: Tensor, k: Tensor) -> Tensor:
    """Float32 [B, 1, 1, 1] of a table [K] at the places k [B]."""
    return table[k].float().view(-1, 1, 1, 1)


def noised(chain: Chain, x: Tensor, noise: Tensor, k: Tensor) -> Tensor:
    """x_t [B, C, H, W] at place k [B] of the chain."""
    return _at(chain.kept.sqrt(), k) * x + _at((1 - chain.kept).sqrt(), k) * noise


def clean(chain: Chain, x_t: Tensor, epsilon: Tensor, k: Tensor) -> Tensor:
    """The image that x_t would come from if its noise were epsilon; `noised` inverted."""
    return (x_t - _at((1 - chain.kept).sqrt(), k) * epsilon) / _at(chain.kept.sqrt(), k)


def posterior_mean(chain: Chain, x: Tensor, x_t: Tensor, k: Tensor) -> Tensor:
    """Mean of x_{t-1} given x_t and the image (Ho et al., eq. 7)."""
    of_x = chain.before.sqrt() * chain.beta / (1 - chain.kept)
    of_x_t = (1 - chain.beta).sqrt() * (1 - chain.before) / (1 - chain.kept)
    return _at(of_x, k) * x + _at(of_x_t, k) * x_t


def log_variance(chain: Chain, v: Tensor, k: Tensor) -> Tensor:
    """Log variance of a step back from the network's v: -1 the smallest, 1 the largest."""
    share = (v + 1) / 2
    return share * _at(chain.largest, k) + (1 - share) * _at(chain.smallest, k)


def bound(chain: Chain, x: Tensor, x_t: Tensor, k: Tensor, epsilon: Tensor, v: Tensor) -> Tensor:
    """Terms of the variational bound [B], bits a value (Ho et al., eq. 5).

    The divergence of the learned step back from the posterior and, at the first step, the negative
    log likelihood of the image's greys.
    """
    mean = posterior_mean(chain, clean(chain, x_t, epsilon, k), x_t, k)
    spread = log_variance(chain, v, k)
    true_mean, true_spread = posterior_mean(chain, x, x_t, k), _at(chain.smallest, k)
    gap = (true_mean - mean).square() * (-spread).exp()
    divergence = (spread - true_spread + (true_spread - spread).exp() + gap - 1) / 2
    first = (k == 0).view(-1, 1, 1, 1)
    nats = torch.where(first, _grey_surprise(x, mean, spread / 2), divergence)
    return nats.flatten(1).mean(1) / math.log(2)


def _grey_surprise(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-log of a Gaussian's mass on the grey of x; the outermost greys have the tails (eq. 13).

    Mass below 1e-12 counts as that, as in ADM's code.
    """
    away = x - mean
    near = -away.abs()  # by symmetry the lower tail, where the difference keeps its digits
    std = log_std.exp()
    inside = ndtr((near + HALF_GREY) / std) - ndtr((near - HALF_GREY) / std)
    darkest, brightest = ndtr((away + HALF_GREY) / std), ndtr((HALF_GREY - away) / std)
    mass = torch.where(x < -0.999, darkest, torch.where(x > 0.999, brightest, inside))
    return -mass.clamp(min=1e-12).log()


def loss(output: Tensor, x: Tensor, noise: Tensor, x_t: Tensor, k: Tensor) -> Tensor:
    """Mean squared error of epsilon plus the bound, which trains the variance alone.

    DiT's hybrid loss: the bound sees epsilon without a gradient, and the term of one drawn step has
    weight 1, which is 1/1000 of the sum over the 1000 steps (Nichol and Dhariwal, eq. 16). The
    clean image is not clipped. output [B, 2C, H, W], the others [B, C, H, W], k [B] steps.
    """
    epsilon, v = output.chunk(2, dim=1)
    terms = bound(whole_chain(x.device), x, x_t, k, epsilon.detach(), v)
    return F.mse_loss(epsilon, noise) + terms.mean()


def ancestral_step(
    chain: Chain, x_t: Tensor, output: Tensor, k: Tensor, noise: Tensor | None
) -> Tensor:
    """One step back, drawn with the learned variance (Ho et al., algorithm 2); mean without noise.

    The clean image is clipped to -1..1, the range of pixels, as in ADM.
    """
    epsilon, v = output.chunk(2, dim=1)
    mean = posterior_mean(chain, clean(chain, x_t, epsilon, k).clamp(-1, 1), x_t, k)
    return mean if noise is None else mean + (log_variance(chain, v, k) / 2).exp() * noise


def ddim_step(chain: Chain, x_t: Tensor, output: Tensor, k: Tensor) -> Tensor:
    """One deterministic step back (Song et al. 2021, arXiv:2010.02502, eq. 12 with sigma 0).

    The clean image is clipped to -1..1 and epsilon taken anew from it, as in ADM.
    """
    epsilon = output.chunk(2, dim=1)[0]
    x = clean(chain, x_t, epsilon, k).clamp(-1, 1)
    epsilon = (x_t - _at(chain.kept.sqrt(), k) * x) / _at((1 - chain.kept).sqrt(), k)
    return _at(chain.before.sqrt(), k) * x + _at((1 - chain.before).sqrt(), k) * epsilon

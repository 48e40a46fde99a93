"""From noise to images: the times that are visited, and the steps between them.

A field is what the model says: (x [B, C, H, W], t [B] in [0, 1], 1 = noise) -> a velocity for the
flow's solvers, epsilon and v for DDPM's.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from harness.diffusion import Chain, ancestral_step, chain_of, ddim_step, signal_kept
from models.names import DDPM_STEPS

Field = Callable[[Tensor, Tensor], Tensor]


def shifted_times(t: Tensor, a: float) -> Tensor:
    """a t / (1 + (a - 1) t): more of the steps at high noise for a > 1, 0 and 1 stay exactly.

    Esser et al. 2024 (arXiv:2403.03206, section 5.3.2); it lowers the log SNR, 2 ln((1 - t) / t),
    by 2 ln a.
    """
    return a * t / (a * t + (1 - t))


def shifted_steps(steps: Tensor, a: float) -> Tensor:
    """Training steps of DDPM, int64 ascending, moved to the nearest ones with log SNR - 2 ln a.

    The same shift for a variance-preserving chain (Hoogeboom et al. 2023, arXiv:2301.11093).
    Steps that fall together are taken once, so there can be fewer.
    """
    kept = signal_kept()
    log_snr = kept.log() - (1 - kept).log()  # [1000], falling
    wanted = log_snr[steps] - 2 * math.log(a)
    return (wanted[:, None] - log_snr).abs().argmin(dim=1).unique()


def flow_times(steps: int, a: float, device: torch.device) -> Tensor:
    """[steps + 1] times from 1 to 0: equal steps, shifted by a."""
    return shifted_times(torch.linspace(1, 0, steps + 1, device=device), a)


def ddpm_chain(steps: int, a: float, device: torch.device) -> Chain:
    """So many of the training steps, evenly spaced from the last to the first, shifted by a.

    The spacing is ADM's and DiT's up to the rounding of halves, for DDIM too (whose own starts
    below the last step). A single step is the last.

    Raises:
        ValueError: more steps than there are in training.
    """
    if steps > DDPM_STEPS:
        raise ValueError(f"{steps} sampling steps are more than the {DDPM_STEPS} of training")
    even = torch.linspace(DDPM_STEPS - 1, 0, steps, dtype=torch.float64).round().long()
    return chain_of(shifted_steps(even.flip(0), a), device)


def integrate(field: Field, x: Tensor, times: Tensor, solver: str) -> Tensor:
    """Follow a flow's field from noise to data along `times`: Euler, or Heun."""
    for now, then in pairwise(times):
        slope = field(x, now.expand(len(x)))
        ahead = x + (then - now) * slope
        if solver == "heun":
            slope = (slope + field(ahead, then.expand(len(x)))) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


def denoise(
    field: Field, x: Tensor, chain: Chain, solver: str, noise: Callable[[int], Tensor]
) -> Tensor:
    """Walk DDPM's chain back from noise to data: "ddim", or "ddpm" (ancestral).

    noise: of ancestral step n = 0, 1, ... from the noisiest, as x; the last step takes none.
    """
    last = len(chain.steps) - 1
    for n, step in enumerate(chain.steps.tolist()[::-1]):
        k = torch.full((len(x),), last - n, device=x.device)
        output = field(x, torch.full((len(x),), step / DDPM_STEPS, device=x.device))
        if solver == "ddim":
            x = ddim_step(chain, x, output, k)
        else:
            x = ancestral_step(chain, x, output, k, noise(n) if n < last else None)
    return x

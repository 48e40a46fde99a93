"""The chain against diffusers' schedulers, and the loss against numeric integration."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from scipy import integrate, stats

from harness import diffusion
from harness.diffusion import Chain, chain_of, whole_chain
from harness.solvers import ddpm_chain

CPU = torch.device("cpu")
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def at(*places: int) -> torch.Tensor:
    return torch.tensor(places)


def test_the_tables_are_diffusers() -> None:
    theirs, ours = DDPMScheduler(**LINEAR), whole_chain(CPU)
    torch.testing.assert_close(ours.beta.float(), theirs.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.kept.float(), theirs.alphas_cumprod, rtol=1e-5, atol=0)


def test_noising_is_diffusers_and_is_inverted() -> None:
    x, noise, k = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1), at(0, 10, 500, 999)
    ours = diffusion.noised(whole_chain(CPU), x, noise, k)
    torch.testing.assert_close(ours, DDPMScheduler(**LINEAR).add_noise(x, noise, k))
    again = diffusion.clean(whole_chain(CPU), ours, noise, k)
    torch.testing.assert_close(again, x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("count", [250, 1000])
def test_an_ancestral_step_is_diffusers(count: int) -> None:
    """Spacing, posterior and learned range agree (only its tables are float32)."""
    theirs = DDPMScheduler(
        **LINEAR, variance_type="learned_range", clip_sample=True, timestep_spacing="linspace"
    )
    theirs.set_timesteps(count)
    chain = ddpm_chain(count, 1.0, CPU)
    assert chain.steps.tolist() == theirs.timesteps.tolist()[::-1]
    shape = (2, 3, 4, 4)
    for place in (0, 1, count // 3, count - 2, count - 1):
        x_t, output = normal(*shape), normal(2, 6, 4, 4, seed=1)
        step = int(chain.steps[place])
        drawn = torch.Generator().manual_seed(2)
        expected = theirs.step(output, step, x_t, generator=drawn).prev_sample
        noise = normal(*shape, seed=2) if place else None
        ours = diffusion.ancestral_step(chain, x_t, output, at(place, place), noise)
        torch.testing.assert_close(ours, expected, rtol=2e-4, atol=2e-5)


def test_a_ddim_trajectory_is_diffusers() -> None:
    """On steps 0, 20, .. 980: diffusers steps back by 1000 // count, wherever its steps lie."""
    theirs = DDIMScheduler(**LINEAR, clip_sample=True, timestep_spacing="leading")
    theirs.set_timesteps(50)
    chain = chain_of(torch.arange(0, 1000, 20), CPU)
    ours = expected = normal(3, 1, 4, 4)
    for place, step in reversed(list(enumerate(chain.steps.tolist()))):
        noise_free = torch.full_like(ours, 3.0).cos() + 0 * ours  # any fixed "model"
        output = torch.cat([0.5 * ours - noise_free, ours], dim=1)
        ours = diffusion.ddim_step(chain, ours, output, at(place, place, place))
        output = 0.5 * expected - noise_free
        expected = theirs.step(output, step, expected, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [1, 300, 999])
def test_the_bound_is_the_divergence(k: int) -> None:
    """By numeric integration of p log(p / q) over one pixel's values."""
    chain, x, v = whole_chain(CPU), 0.3, 0.4
    one = torch.ones(1, 1, 1, 1)
    x_t = diffusion.noised(chain, x * one, 0.7 * one, at(k))
    epsilon = 0.6 * one
    ours = diffusion.bound(chain, x * one, x_t, at(k), epsilon, v * one).item()

    # From the definition of the chain: Bayes on x_{k-1} | x and x_k | x_{k-1}.
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    beta, before, kept = betas[k], alpha_bar[k - 1], alpha_bar[k]
    variance = 1 / ((1 - beta) / beta + 1 / (1 - before))
    guess = (x_t.item() - math.sqrt(1 - kept) * 0.6) / math.sqrt(kept)
    means = [
        variance
        * (math.sqrt(1 - beta) * x_t.item() / beta + math.sqrt(before) * image / (1 - before))
        for image in (x, guess)
    ]
    learned = beta ** ((1 + v) / 2) * variance ** ((1 - v) / 2)
    true = stats.norm(means[0], math.sqrt(variance))
    model = stats.norm(means[1], math.sqrt(learned))
    values = np.linspace(*true.interval(1 - 1e-14), 20_001)
    gap = true.pdf(values) * (true.logpdf(values) - model.logpdf(values))
    assert ours == pytest.approx(integrate.trapezoid(gap, values) / math.log(2), rel=5e-3)


def test_the_first_steps_bound_is_the_likelihood_of_the_grey() -> None:
    """Of all 256 greys under one prediction: each one's own mass, together 1."""
    chain = whole_chain(CPU)
    greys = (torch.arange(256) / 127.5 - 1).view(256, 1, 1, 1)
    x_t = torch.full_like(greys, 0.97)
    v = torch.full_like(greys, -0.5)
    k = torch.zeros(256, dtype=torch.long)
    bits = diffusion.bound(chain, greys, x_t, k, torch.zeros_like(x_t), v).double()
    beta, kept = 1e-4, 1 - 1e-4
    second = 1e-4 + 0.0199 / 999
    posterior = second * beta / (1 - kept * (1 - second))
    std = math.sqrt(beta**0.25 * posterior**0.75)
    model = stats.norm(0.97 / math.sqrt(kept), std)
    edges = np.concatenate([[-np.inf], np.arange(0.5, 255) / 127.5 - 1, [np.inf]])
    mass = np.maximum(np.diff(model.cdf(edges)), 1e-12)
    np.testing.assert_allclose(2.0 ** -bits.numpy(), mass, rtol=2e-3, atol=1e-6)
    assert (2.0**-bits).sum().item() == pytest.approx(1, abs=1e-4)


def test_the_bound_trains_the_variance_alone() -> None:
    chain = whole_chain(CPU)
    x, noise, k = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), at(0, 7, 800)
    x_t = diffusion.noised(chain, x, noise, k)
    output = normal(3, 2, 2, 2, seed=2).requires_grad_()
    loss = diffusion.loss(output, x, noise, x_t, k)
    (gradient,) = torch.autograd.grad(loss, output)
    epsilon, v = (part.detach().requires_grad_() for part in output.chunk(2, dim=1))
    error = (epsilon - noise).square().mean()
    bits = diffusion.bound(chain, x, x_t, k, epsilon, v).mean()
    torch.testing.assert_close(loss, error + bits)
    torch.testing.assert_close(gradient[:, :1], torch.autograd.grad(error, epsilon)[0])
    torch.testing.assert_close(gradient[:, 1:], torch.autograd.grad(bits, v)[0])


def test_a_subset_of_steps_keeps_the_noise_levels() -> None:
    whole, some = whole_chain(CPU), chain_of(at(3, 400, 999), CPU)
    assert torch.equal(some.kept, whole.kept[at(3, 400, 999)])
    torch.testing.assert_close((1 - some.beta).cumprod(0), some.kept)
    alone: Chain = chain_of(at(999), CPU)
    x = diffusion.ancestral_step(alone, normal(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), at(0), None)
    assert torch.isfinite(x).all()

"""Solvers and chains on problems with a known answer, and the timestep shift."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.diffusion import Chain, signal_kept, whole_chain
from harness.solvers import (
    ddpm_chain,
    denoise,
    flow_times,
    integrate,
    shifted_steps,
    shifted_times,
)

CPU = torch.device("cpu")
MEAN, VARIANCE = 0.1, 0.03  # of Gaussian data, well inside -1..1


def no_noise(n: int) -> torch.Tensor:
    raise AssertionError("ddim draws nothing")


def gaussian_model(chain: Chain):
    """The exact epsilon for Gaussian data, and v of the exact variance of each step back."""
    place = {int(step): k for k, step in enumerate(chain.steps)}

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        k = place[round(t[0].item() * 1000)]
        kept, before, beta = chain.kept[k], chain.before[k], chain.beta[k]
        total = kept * VARIANCE + 1 - kept
        epsilon = (1 - kept).sqrt() * (x - kept.sqrt() * MEAN) / total
        # Of x_{t-1} given x_t: the posterior's and what the clean image is uncertain.
        spread = beta * (1 - before) / (1 - kept)
        spread += before * (beta / (1 - kept)) ** 2 * VARIANCE * (1 - kept) / total
        share = (spread.log() - chain.smallest[k]) / (chain.largest[k] - chain.smallest[k])
        return torch.cat([epsilon, torch.full_like(x, 2 * share - 1)], dim=1)

    return field


def test_the_solvers_follow_a_known_field() -> None:
    """dx/dt = x from t = 1 to 0 multiplies by exp(-1)."""
    x = torch.ones(1, 1, 1, 1)
    exact = torch.tensor(-1.0).exp()

    def error(solver: str, steps: int) -> float:
        times = flow_times(steps, 1.0, CPU)
        return abs(integrate(lambda x, t: x, x, times, solver) - exact).item()

    assert 1.8 < error("euler", 20) / error("euler", 40) < 2.2  # first order
    assert 3.6 < error("heun", 20) / error("heun", 40) < 4.4  # second order


def test_times_run_from_noise_to_data() -> None:
    seen = []

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t[0].item())
        return torch.zeros_like(x)

    integrate(field, torch.ones(2, 1, 1, 1), flow_times(2, 1.0, CPU), "heun")
    assert seen == [1.0, 0.5, 0.5, 0.0]
    seen.clear()
    integrate(field, torch.ones(2, 1, 1, 1), flow_times(2, 3.0, CPU), "euler")
    assert seen == [1.0, 0.75]


@pytest.mark.parametrize("count", [1, 2, 7, 250, 1000])
def test_ddpm_visits_every_step_of_its_chain(count: int) -> None:
    chain, seen, drawn = ddpm_chain(count, 1.0, CPU), [], []

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t[0].item())
        return torch.zeros(len(x), 2, 1, 1)

    def noise(n: int) -> torch.Tensor:
        drawn.append(n)
        return torch.zeros(2, 1, 1, 1)

    denoise(field, torch.zeros(2, 1, 1, 1), chain, "ddpm", noise)
    stride, position, steps = 999 / max(1, count - 1), 0.0, []
    for _ in range(count):  # ADM's space_timesteps of one section
        steps.append(round(position))
        position += stride
    expected = steps[::-1] if count > 1 else [999]
    assert seen == pytest.approx([step / 1000 for step in expected])
    assert drawn == list(range(count - 1))


def test_more_steps_than_trained_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 sampling steps"):
        ddpm_chain(1001, 1.0, CPU)


@pytest.mark.parametrize("count", [10, 250])
def test_ancestral_sampling_reaches_the_datas_distribution(count: int) -> None:
    """With the exact epsilon and variance a step is exact, so few steps do."""
    generator = torch.Generator().manual_seed(0)
    chain, shape = ddpm_chain(count, 1.0, CPU), (40_000, 1, 1, 1)
    x = denoise(
        gaussian_model(chain),
        torch.randn(shape, generator=generator),
        chain,
        "ddpm",
        lambda n: torch.randn(shape, generator=generator),
    )
    error = math.sqrt(VARIANCE / shape[0])
    assert abs(x.mean().item() - MEAN) < 4 * error + 2e-3  # x_999 keeps 0.6 % of the data
    # The last step goes to the mean of the image: that leaves out what step 0 hides.
    assert x.var().item() == pytest.approx(VARIANCE, rel=0.035)


def test_ddim_reaches_the_datas_distribution() -> None:
    """For Gaussian data DDIM is a straight map of the noise, whose slope tends to the deviation."""
    x, wrong = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1), []
    for count in (50, 100, 200):
        chain = ddpm_chain(count, 1.0, CPU)
        low, middle, high = denoise(gaussian_model(chain), x, chain, "ddim", no_noise).flatten()
        assert middle.item() == pytest.approx(MEAN, abs=2e-3)
        assert (high - middle).item() == pytest.approx((middle - low).item(), rel=1e-3)
        wrong.append(abs((high - middle).item() - math.sqrt(VARIANCE)))
    assert wrong[2] < 0.04 * math.sqrt(VARIANCE)
    assert 1.6 < wrong[0] / wrong[1] < 2.4  # first order
    assert 1.6 < wrong[1] / wrong[2] < 2.6


@given(a=st.floats(0.05, 20))
def test_the_shift_keeps_ends_and_order(a: float) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    shifted = shifted_times(t, a)
    assert shifted[0] == 0
    assert shifted[-1].item() == pytest.approx(1)
    assert (shifted.diff() > 0).all()
    log_snr, before = (2 * ((1 - u) / u)[1:-1].log() for u in (shifted, t))
    torch.testing.assert_close(log_snr, before - 2 * math.log(a))


def test_the_ends_stay_exactly() -> None:
    for tokens in {h * w for h in range(8, 33) for w in range(8, 33)}:  # against 8x8
        times = flow_times(6, math.sqrt(tokens / 64), CPU)
        assert times[0] == 1
        assert times[-1] == 0
        assert times.max() <= 1


def test_a_shift_of_one_is_none() -> None:
    assert torch.equal(flow_times(7, 1.0, CPU), torch.linspace(1, 0, 8))
    assert torch.equal(shifted_steps(torch.arange(1000), 1.0), torch.arange(1000))


@given(a=st.floats(0.1, 10))
def test_ddpms_shift_moves_log_snr_to_the_nearest_step(a: float) -> None:
    kept = signal_kept().tolist()
    log_snr = [math.log(part / (1 - part)) for part in kept]
    steps = [0, 100, 500, 900, 999]
    nearest = {
        min(range(1000), key=lambda j: abs(log_snr[j] - (log_snr[k] - 2 * math.log(a))))
        for k in steps
    }
    assert shifted_steps(torch.tensor(steps), a).tolist() == sorted(nearest)


def test_a_shift_up_spends_more_steps_on_noise() -> None:
    plain, shifted = ddpm_chain(50, 1.0, CPU), ddpm_chain(50, 2.0, CPU)
    assert len(shifted.steps) <= 50
    assert shifted.steps[-1] == 999
    assert (shifted.steps[: len(plain.steps) // 2] > plain.steps[: len(plain.steps) // 2]).all()
    assert torch.equal(shifted.kept, whole_chain(CPU).kept[shifted.steps])

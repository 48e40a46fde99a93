import torch
from scipy import stats

from harness.objective import DATA_VARIANCE, noised, timesteps, velocity


def test_the_path_goes_from_data_to_noise() -> None:
    x, noise = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    t = torch.tensor([0.0, 0.5, 1.0])
    path = noised(x, noise, t)
    assert torch.equal(path[0], x[0])
    assert torch.equal(path[2], noise[2])
    assert torch.allclose(path[1], (x[1] + noise[1]) / 2)


def test_timesteps_have_the_stated_density() -> None:
    draws = torch.from_numpy(stats.norm.rvs(size=4000, random_state=0)).float()
    assert stats.kstest(timesteps(draws, "uniform").numpy(), "uniform").pvalue > 1e-3
    logit = torch.logit(timesteps(draws, "logit_normal"))
    assert torch.allclose(logit, draws, atol=1e-4)


def test_without_preconditioning_the_network_is_the_velocity() -> None:
    x, t = torch.randn(2, 1, 4, 4), torch.rand(2)
    assert torch.equal(velocity(lambda x, t: 3 * x, x, t, False), 3 * x)


def test_the_skip_is_the_best_linear_guess() -> None:
    """For Gaussian data of variance s^2 the regression of v = e - x on x_t is exact."""
    generator = torch.Generator().manual_seed(0)
    count = 400_000
    x = torch.randn(count, 1, 1, 1, generator=generator) * DATA_VARIANCE**0.5
    noise = torch.randn(count, 1, 1, 1, generator=generator)
    for value in (0.1, 0.5, 0.9):
        t = torch.full((count,), value)
        x_t = noised(x, noise, t)
        skip = velocity(lambda x, t: torch.zeros_like(x), x_t, t, True)
        slope = (x_t * (noise - x)).mean() / (x_t * x_t).mean()
        assert torch.allclose(skip, slope * x_t, atol=0.03)
        left = noise - x - skip
        gain = velocity(lambda x, t: torch.ones_like(x), x_t, t, True) - skip
        assert torch.allclose(left.std(), gain[0, 0, 0, 0], rtol=0.02)  # a unit-variance target


def test_the_network_sees_unit_variance() -> None:
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, 1, 1, generator=generator) * DATA_VARIANCE**0.5
    noise = torch.randn(100_000, 1, 1, 1, generator=generator)
    t = torch.rand(100_000, generator=generator)
    velocity(network, noised(x, noise, t), t, True)
    assert abs(seen[0].std().item() - 1) < 0.02

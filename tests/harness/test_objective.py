import torch
from scipy import stats

from harness import diffusion
from harness.config import Objective
from harness.objective import noised, timesteps, training_loss, velocity

DDPM = Objective(kind="ddpm", timesteps="uniform", precondition=False)

DATA_VARIANCE = Objective().data_variance


def test_the_path_goes_from_data_to_noise() -> None:
    x, noise = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    t = torch.tensor([0.0, 0.5, 1.0])
    path = noised(x, noise, t)
    assert torch.equal(path[0], x[0])
    assert torch.equal(path[2], noise[2])
    assert torch.allclose(path[1], (x[1] + noise[1]) / 2)


def test_timesteps_have_the_stated_density() -> None:
    draws = torch.from_numpy(stats.norm.rvs(size=4000, random_state=0)).float()
    uniform = timesteps(draws, Objective(timesteps="uniform"))
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    logit = torch.logit(timesteps(draws, Objective(timesteps="logit_normal")))
    assert torch.allclose(logit, draws, atol=1e-4)


def test_ddpms_timesteps_are_uniform_whole_steps() -> None:
    draws = torch.from_numpy(stats.norm.rvs(size=100_000, random_state=0)).float()
    t = timesteps(draws, DDPM)
    steps = (t * 1000).round().long()
    assert torch.equal(t, steps.float() / 1000)
    counts = torch.bincount(steps, minlength=1000)
    assert len(counts) == 1000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert (timesteps(torch.tensor([-40.0, 40.0]), DDPM) * 1000).tolist() == [0.0, 999.0]


def test_without_preconditioning_the_network_is_the_velocity() -> None:
    x, t = torch.randn(2, 1, 4, 4), torch.rand(2)
    assert torch.equal(velocity(lambda x, t: 3 * x, x, t, None), 3 * x)


def test_the_skip_is_the_best_linear_guess() -> None:
    """For Gaussian data of variance s^2 the regression of v = e - x on x_t is exact."""
    generator = torch.Generator().manual_seed(0)
    count = 400_000
    x = torch.randn(count, 1, 1, 1, generator=generator) * DATA_VARIANCE**0.5
    noise = torch.randn(count, 1, 1, 1, generator=generator)
    for value in (0.1, 0.5, 0.9):
        t = torch.full((count,), value)
        x_t = noised(x, noise, t)
        skip = velocity(lambda x, t: torch.zeros_like(x), x_t, t, DATA_VARIANCE)
        slope = (x_t * (noise - x)).mean() / (x_t * x_t).mean()
        assert torch.allclose(skip, slope * x_t, atol=0.03)
        left = noise - x - skip
        gain = velocity(lambda x, t: torch.ones_like(x), x_t, t, DATA_VARIANCE) - skip
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
    velocity(network, noised(x, noise, t), t, DATA_VARIANCE)
    assert abs(seen[0].std().item() - 1) < 0.02


def test_the_flows_loss_is_the_error_of_the_velocity() -> None:
    x, noise, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.rand(3)
    labels, seen = torch.tensor([1, 2, 3]), []

    def model(x_t: torch.Tensor, *condition: object) -> torch.Tensor:
        seen.append((x_t, *condition))
        return x_t / 2

    def loss(objective: Objective) -> torch.Tensor:
        return training_loss(model, objective, x, noise, t, labels, "geometry", None)  # type: ignore[arg-type]

    x_t = noised(x, noise, t)
    plain = loss(Objective(precondition=False))
    assert torch.equal(plain, (x_t / 2 - (noise - x)).square().mean())
    assert torch.equal(seen[0][0], x_t)
    assert seen[0][1:] == (t, labels, "geometry", None)
    v = velocity(lambda x, t: x / 2, x_t, t, DATA_VARIANCE)
    assert torch.equal(loss(Objective()), (v - (noise - x)).square().mean())


def test_ddpms_loss_noises_to_the_step() -> None:
    x, noise, output = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.randn(3, 2, 4, 4)
    steps, seen = torch.tensor([0, 421, 999]), []

    def model(x_t: torch.Tensor, t: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append((x_t, t))
        return output

    t = steps / 1000
    loss = training_loss(model, DDPM, x, noise, t, steps, None, None)  # type: ignore[arg-type]
    x_t = diffusion.noised(diffusion.whole_chain(x.device), x, noise, steps)
    assert torch.equal(loss, diffusion.loss(output, x, noise, x_t, steps))
    assert torch.equal(seen[0][0], x_t)
    assert torch.equal(seen[0][1], t)

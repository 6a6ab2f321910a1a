"""The contract of generators, for every entry of the registry; then what is particular to flow and diffusion."""

import dataclasses

import pytest
import torch

from scgde.metrics import energy_distance
from scgde.nn._random import CounterRandom
from scgde.nn.generators import GENERATORS, Condition, Diffusion, Drift, Flow, Generator, InvertibleGenerator
from scgde.nn.mixtures import symmetric_root
from scgde.nn.ode import integrate

N_GROUPS, N_CELLS, N_LATENT, N_BATCH = 4, 24, 6, 3
SMALL = {"width": 16, "n_layers": 2}


@pytest.fixture(params=sorted(GENERATORS))
def name(request):
    return request.param


def build(name, n_features=3, n_batch=N_BATCH, seed=0, device="cpu", **options):
    """A generator whose every parameter is moved off its initial value: output layers may start at zero."""
    torch.manual_seed(seed)
    generator = GENERATORS[name](n_features, N_LATENT, n_batch, **{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return generator.to(device)


@pytest.fixture
def task(make_mixtures):
    """Arguments (x, weight, z, condition, random) of a loss."""

    def make(n_features=3, n_groups=N_GROUPS, n_cells=N_CELLS, n_batch=N_BATCH, device="cpu"):
        mixtures = make_mixtures(n_groups, 3, n_features)
        mixtures = mixtures.to(device)
        weight = torch.rand(n_groups, n_cells) + 0.1
        batch = torch.randint(0, n_batch, (n_groups, n_cells)).to(device) if n_batch else None
        condition = Condition(mixtures, (torch.arange(n_groups) % 2).float().to(device), batch)
        return (
            torch.randn(n_groups, n_cells, n_features).to(device),
            (weight / weight.sum(1, keepdim=True)).to(device),
            torch.randn(n_groups, N_LATENT).to(device),
            condition,
            CounterRandom(0, 5, torch.arange(n_groups, device=device)),
        )

    return make


def with_batch(condition, batch):
    return dataclasses.replace(condition, batch=batch)


# --- every generator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [3, 8])
@pytest.mark.parametrize("n_batch", [0, N_BATCH])
@pytest.mark.parametrize("n_cells", [1, 5, N_CELLS, 27])
def test_loss_has_one_number_per_group(name, task, n_features, n_batch, n_cells, device):
    generator = build(name, n_features, n_batch, device=device)
    arguments = task(n_features, n_cells=n_cells, n_batch=n_batch, device=device)
    loss = generator.loss(*arguments)
    assert isinstance(generator, Generator)
    assert loss.shape == (N_GROUPS,)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert torch.equal(generator.loss(*arguments), loss)


def test_loss_of_a_group_does_not_depend_on_the_others(name, task):
    generator = build(name)
    x, weight, z, condition, random = task()
    loss = generator.loss(x, weight, z, condition, random)
    for i in range(N_GROUPS):
        part = Condition(condition.mixtures[[i]], condition.measured[[i]], condition.batch[[i]])
        alone = generator.loss(x[[i]], weight[[i]], z[[i]], part, CounterRandom(0, 5, torch.tensor([i])))
        torch.testing.assert_close(alone, loss[[i]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n_padding", [1, 3, 11])
def test_cells_of_weight_zero_have_no_effect_on_the_loss(name, task, n_padding):
    generator = build(name)
    x, weight, z, condition, random = task()
    loss = generator.loss(x, weight, z, condition, random)
    batch = torch.nn.functional.pad(condition.batch, (0, n_padding), value=2)
    padded = torch.cat([x, 100 * torch.randn(N_GROUPS, n_padding, 3)], 1)
    mass = torch.nn.functional.pad(weight, (0, n_padding))
    torch.testing.assert_close(generator.loss(padded, mass, z, with_batch(condition, batch), random), loss)
    weight = weight.clone()
    weight[:, ::3] = 0
    loss = generator.loss(x, weight, z, condition, random)
    other = x.clone()
    other[:, ::3] = 7.0
    torch.testing.assert_close(generator.loss(other, weight, z, condition, random), loss)


@pytest.mark.parametrize("n_cells", [10, 24])
def test_every_cell_counts_in_whichever_slot_it_is(name, task, n_cells):
    """All mass on one slot: the expected loss is that of the cell there.

    The first slot, the last, and two more; 500 draws each. All pairs within 4.5 standard errors, which a right
    generator misses with probability 4e-5.
    """
    n_draws = 500
    generator = build(name, n_batch=0)
    x, _, z, condition, _ = task(n_groups=1, n_cells=1, n_batch=0)
    x, z = x.expand(n_draws, n_cells, -1), z.expand(n_draws, -1)
    condition = Condition(condition.mixtures[[0] * n_draws], condition.measured.expand(n_draws))
    losses = []
    for slot in (0, 3, n_cells - 3, n_cells - 1):
        weight = torch.zeros(n_draws, n_cells)
        weight[:, slot] = 1
        with torch.no_grad():
            losses.append(generator.loss(x, weight, z, condition, CounterRandom(0, slot, torch.arange(n_draws))))
    losses = torch.stack(losses).double()
    mean, variance = losses.mean(1), losses.var(1) / n_draws
    assert (losses.std(1) > 0).all()
    assert ((mean - mean[:, None]).abs() / (variance + variance[:, None]).sqrt()).max() < 4.5


def test_integer_weights_are_repeated_cells_in_expectation(name, task):
    """2,000 independent draws of both; within four standard errors, which a right generator misses with 6e-5."""
    n_draws = 2000
    generator = build(name, n_batch=0)
    x, _, z, condition, _ = task(n_groups=1, n_cells=6, n_batch=0)
    counts = torch.tensor([1, 3, 2, 1, 1, 8])
    condition = Condition(condition.mixtures[[0] * n_draws], condition.measured.expand(n_draws))
    z = z.expand(n_draws, -1)
    mean, variance = [], []
    for step, (cells, weight) in enumerate(
        [(x, counts / counts.sum()), (x.repeat_interleave(counts, dim=1), torch.full((16,), 1 / 16))]
    ):
        random = CounterRandom(1, step, torch.arange(n_draws))
        with torch.no_grad():
            loss = generator.loss(cells.expand(n_draws, -1, -1), weight.expand(n_draws, -1), z, condition, random)
        mean.append(loss.double().mean())
        variance.append(loss.double().var() / n_draws)
    assert abs(mean[0] - mean[1]) < 4 * (variance[0] + variance[1]) ** 0.5


@pytest.mark.parametrize("n_features", [3, 8])
def test_gradient_reaches_every_parameter(name, task, n_features, device):
    generator = build(name, n_features, device=device).train()
    generator.loss(*task(n_features, device=device)).sum().backward()
    missing = [key for key, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_gradient_reaches_the_embedding_and_every_batch(name, task):
    generator = build(name)
    x, weight, z, condition, random = task()
    z.requires_grad_()
    generator.loss(x, weight, z, condition, random).sum().backward()
    assert (z.grad.abs().sum(1) > 0).all()
    tables = [p for key, p in generator.named_parameters() if "batch" in key]
    assert tables
    assert all((table.grad.abs().sum(1) > 0).all() for table in tables)


@pytest.mark.parametrize("n_features", [3, 8])
@pytest.mark.parametrize("n_batch", [0, N_BATCH])
def test_samples(name, task, n_features, n_batch, device):
    generator = build(name, n_features, n_batch, device=device)
    _, _, z, condition, random = task(n_features, n_batch=n_batch, device=device)
    x = generator.sample(z, N_CELLS, condition, random)
    assert x.shape == (N_GROUPS, N_CELLS, n_features)
    assert x.dtype == torch.float32
    assert torch.isfinite(x).all()
    assert not x.requires_grad
    assert torch.equal(generator.sample(z, N_CELLS, condition, random), x)
    other = generator.sample(z, N_CELLS, condition, dataclasses.replace(random, seed=1))
    assert (other - x).abs().min() > 0
    batch = None if condition.batch is None else condition.batch[1:2]
    alone = generator.sample(
        z[1:2],
        N_CELLS,
        Condition(condition.mixtures[[1]], condition.measured[1:2], batch),
        CounterRandom(0, 5, random.group[1:2]),
    )
    torch.testing.assert_close(alone, x[1:2], atol=1e-4, rtol=1e-4)


def test_state_round_trip_and_determinism(name, task, tmp_path):
    arguments = task()
    generator, other = build(name, seed=0), build(name, seed=1)
    loss = generator.loss(*arguments)
    assert torch.equal(build(name, seed=0).loss(*arguments), loss)
    assert not torch.allclose(other.loss(*arguments), loss)
    torch.save(generator.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.loss(*arguments), loss)


def test_what_can_be_inverted_is_marked_and_inverts(name, task):
    generator = build(name)
    assert generator.invertible == isinstance(generator, InvertibleGenerator)
    if not generator.invertible:
        pytest.skip("not invertible")
    x, _, z, condition, _ = task()
    with torch.no_grad():
        back = generator.decode(generator.encode(x, z, condition), z, condition)
    assert ((back - x).square().mean() / x.var()).sqrt() < 0.05


@pytest.mark.parametrize("n_features", [3, 8])
def test_an_untrained_generator_samples_the_mixture(name, task, n_features):
    """A known answer: means within 0.1 and standard deviations within 8% of the mixture's, of 4,000 cells each.

    Those have standard deviations of 2 or less, so means a standard error of 0.03, and standard deviations one of 1.1%.
    """
    torch.manual_seed(0)
    generator = GENERATORS[name](n_features, N_LATENT, **SMALL).eval()
    _, _, z, condition, random = task(n_features, n_groups=2, n_batch=0)
    x = generator.sample(z, 4000, condition, random)
    mixtures = condition.mixtures
    mean = (mixtures.weight[..., None] * mixtures.mean).sum(1)
    covariance = mixtures.covariance()
    variance = covariance.diagonal(dim1=-2, dim2=-1) if mixtures.full else covariance
    second = (mixtures.weight[..., None] * (variance + (mixtures.mean - mean[:, None]).square())).sum(1)
    torch.testing.assert_close(x.mean(1), mean, atol=0.1, rtol=0)
    torch.testing.assert_close(x.std(1), second.sqrt(), atol=0, rtol=0.08)


def test_without_trust_the_mixture_is_sampled(name, task):
    generator = build(name)
    _, _, z, condition, random = task()
    torch.manual_seed(0)
    closed = GENERATORS[name](3, N_LATENT, N_BATCH, **SMALL).eval().sample(z, N_CELLS, condition, random)

    def learned(trust):
        return generator.sample(
            z, N_CELLS, dataclasses.replace(condition, trust=torch.full((N_GROUPS,), trust)), random
        )

    torch.testing.assert_close(learned(0.0), closed)
    torch.testing.assert_close(learned(1.0), generator.sample(z, N_CELLS, condition, random))
    assert 0 < (learned(0.25) - closed).abs().mean() < 0.6 * (learned(1.0) - closed).abs().mean()


def test_training_teaches_what_the_mixture_does_not_say(name, make_mixtures):
    """A ring: of a Gaussian with its two moments, 29% of the cells lie within 20% of radius 2."""
    torch.manual_seed(0)
    generator = GENERATORS[name](2, N_LATENT, width=32, n_layers=2)
    angle = 6.283 * torch.rand(16, 64)
    x = 2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.1 * torch.randn(16, 64, 2)
    mixtures = make_mixtures(16, 1, 2)
    mixtures.mean.zero_()
    mixtures.root.copy_(2**0.5 * torch.eye(2))
    condition, weight, z = Condition(mixtures, torch.ones(16)), torch.full((16, 64), 1 / 64), torch.zeros(16, N_LATENT)

    def near():
        sampled = generator.eval().sample(z, 200, condition, CounterRandom(1, 0, torch.arange(16)))
        return ((sampled.norm(dim=-1) - 2).abs() < 0.4).float().mean()

    assert 0.25 < near() < 0.33
    optimizer = torch.optim.AdamW(generator.train().parameters(), lr=5e-3)
    for step in range(200):
        optimizer.zero_grad()
        generator.loss(x, weight, z, condition, CounterRandom(0, step, torch.arange(16))).mean().backward()
        optimizer.step()
    assert near() > 0.8


# --- the flow --------------------------------------------------------------------------------------------------------


def small_flow(n_features, n_batch=0, **options):
    torch.manual_seed(0)
    return Flow(n_features, N_LATENT, n_batch, width=32, n_layers=2, **options)


@pytest.mark.parametrize("n_features", [3, 8])
def test_an_untrained_flow_follows_the_drift(task, n_features):
    """And so samples the mixture: see the tests of the drift."""
    flow = small_flow(n_features)
    _, _, z, condition, random = task(n_features, n_batch=0)
    x = flow.sample(z, 50, condition, random, n_steps=200)
    noise = random.normal("noise", 50 * n_features).view(N_GROUPS, 50, n_features)
    drift = Drift(condition.mixtures)
    expected = integrate(lambda x, t: drift(x, torch.full((N_GROUPS,), t))[0], noise, 0.0, 1.0, 500)
    torch.testing.assert_close(x, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("n_features", [3, 8])
@pytest.mark.parametrize("n_steps", [1, 8])
def test_an_untrained_flow_of_one_component_is_exact(task, make_mixtures, n_features, n_steps):
    """However narrow it is: codes arrive at mean + root code, and come back."""
    flow = small_flow(n_features, n_steps=n_steps)
    _, _, z, condition, _ = task(n_features, n_batch=0)
    mixtures = make_mixtures(N_GROUPS, 1, n_features)
    mixtures = dataclasses.replace(mixtures, root=0.02 * mixtures.root)
    condition, noise = dataclasses.replace(condition, mixtures=mixtures), torch.randn(N_GROUPS, 7, n_features)
    root = mixtures.root[:, 0]
    x = mixtures.mean + (noise @ root if mixtures.full else noise * root[:, None])
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(noise, z, condition), x, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(flow.encode(x, z, condition), noise, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_trust_weighs_the_learned_velocity(name, task):
    flow = build(name)
    x, _, z, condition, _ = task()
    t = torch.linspace(0.1, 0.9, N_GROUPS)
    velocity = []
    for trust in (0.0, 0.25, 1.0):
        velocity.append(flow.velocity(x, t, z, dataclasses.replace(condition, trust=torch.full_like(t, trust)))[0])
    closed, some, learned = velocity
    torch.testing.assert_close(closed, Drift(condition.mixtures)(x, t)[0])
    torch.testing.assert_close(some, torch.lerp(closed, learned, 0.25))
    assert (learned - closed).abs().max() > 1e-3
    torch.testing.assert_close(flow.velocity(x, t, z, condition)[0], learned)


@pytest.mark.parametrize("n_features", [3, 8])
def test_encoding_and_decoding_are_inverse_at_enough_steps(task, n_features):
    flow = small_flow(n_features, N_BATCH, n_steps=200)
    _, _, z, condition, random = task(n_features)
    x = flow.sample(z, N_CELLS, condition, random)
    with torch.no_grad():
        untrained = flow.encode(x, z, condition)
        torch.nn.init.normal_(flow.net.output.weight, std=0.1)
        code = flow.encode(x, z, condition)
        torch.testing.assert_close(flow.decode(code, z, condition), x, atol=1e-3, rtol=0)
    assert (code - untrained).abs().mean() > 0.01


class _SameNoise:
    """Noise of given cells, and one time, whatever the number of cells."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, stream, n):
        return self.noise.flatten(1)[:, :n]

    def uniform(self, stream, n):
        return torch.full((len(self.noise), n), 0.4)


def test_integer_weights_are_repeated_cells_with_the_same_noise(task):
    flow = small_flow(3, n_times=1)
    torch.nn.init.normal_(flow.net.output.weight, std=0.1)
    x, _, z, condition, _ = task(n_cells=5, n_batch=0)
    noise, counts = torch.randn(N_GROUPS, 5, 3), torch.tensor([1, 3, 0, 2, 1])
    weighted = flow.loss(x, (counts / 7).expand(N_GROUPS, -1), z, condition, _SameNoise(noise))
    repeated, same = (values.repeat_interleave(counts, dim=1) for values in (x, noise))
    unweighted = flow.loss(repeated, torch.full((N_GROUPS, 7), 1 / 7), z, condition, _SameNoise(same))
    torch.testing.assert_close(weighted, unweighted)


# --- the diffusion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [3, 8])
@pytest.mark.parametrize("options", [{}, {"sampler": "ancestral"}, {"sampler": "ancestral", "n_steps": 60}])
def test_samplers_agree_on_the_distribution(task, n_features, options):
    """Untrained, against many steps of the flow: energy distance of 500 cells each, with a spread of about 0.01."""
    diffusion, flow = (
        Diffusion(n_features, N_LATENT, **SMALL, **options),
        Flow(n_features, N_LATENT, **SMALL, n_steps=50),
    )
    _, _, z, condition, random = task(n_features, n_groups=2, n_batch=0)
    expected = flow.sample(z, 500, condition, dataclasses.replace(random, seed=1))
    for x, y in zip(diffusion.sample(z, 500, condition, random), expected, strict=True):
        assert abs(energy_distance(x, y)) < 0.04


def test_the_loss_is_the_error_of_the_noise(task):
    """At one level, against the mixture's prediction of the noise by Tweedie's formula and automatic differentiation."""
    diffusion = Diffusion(3, N_LATENT, n_times=1, width=16)
    x, weight, z, condition, _ = task(n_cells=5, n_batch=0)
    noise, level = torch.randn(N_GROUPS, 5, 3), 321
    loss = diffusion.loss(x, weight, z, condition, _SameNoise(noise))
    a, b = (f(torch.tensor(0.5 * torch.pi * level / 400)) for f in (torch.cos, torch.sin))
    point = (a * x + b * noise).requires_grad_()
    mixtures = condition.mixtures
    covariance = a.square() * mixtures.covariance() + b.square() * torch.eye(3)
    diffused = type(mixtures)(mixtures.weight, a * mixtures.mean, symmetric_root(covariance))
    (score,) = torch.autograd.grad(diffused.log_prob(point).sum(), point)
    expected = (weight * (noise + b * score).square().mean(-1)).sum(1)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_published_schedule_leaves_some_of_the_cell_in_the_noise():
    times = Diffusion(3, N_LATENT, schedule="linear").times
    assert times[0] == 1
    assert 0.1 < times[-1] < 0.13
    assert Diffusion(3, N_LATENT).times[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"), [({"schedule": "sine"}, "schedule='sine'"), ({"sampler": "ode"}, "'ode'")]
)
def test_unknown_options_of_the_diffusion(options, message):
    with pytest.raises(ValueError, match=f"{message} is unknown: choose from"):
        Diffusion(3, N_LATENT, **options)


def test_ancestral_sampling_has_a_number_of_levels(task):
    _, _, z, condition, random = task(n_batch=0)
    with pytest.raises(ValueError, match="n_steps=401: the ancestral sampler has 400 levels"):
        Diffusion(3, N_LATENT, sampler="ancestral").sample(z, 2, condition, random, n_steps=401)

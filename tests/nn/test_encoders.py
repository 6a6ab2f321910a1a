"""The contract of encoders: every entry of the registry is a smooth function of a weighted empirical measure."""

import inspect
import math

import pytest
import torch

from scgde.nn.encoders import ENCODERS, POOLINGS, Block, Encoder
from scgde.nn.encoders._pooling import REFUSED

N_FEATURES, N_CODE = 5, 3

NEURAL = [name for name in sorted(ENCODERS) if "pooling" in inspect.signature(ENCODERS[name].__init__).parameters]
OTHERS = [name for name in sorted(ENCODERS) if name not in NEURAL]

#: Every encoder, the neural ones with every pooling.
CASES = [*OTHERS, *(f"{name}-{pooling}" for name in NEURAL for pooling in sorted(POOLINGS))]


#: Largest error of an entry of the code, in units of its standard deviation between groups: of what users get, whose
#: groups' sums are float64, and of the forward pass in training, all of it float32. There a mean of 30 to 210 hidden
#: features of order 1 is off by some 1e-8, and codes of networks that are not trained differ by .002 only: up to 1.6e-5.
BAR, TRAINING_BAR = 1e-5, 5e-5


@pytest.fixture(params=CASES)
def name(request):
    return request.param


def build(case, seed=0, n_features=N_FEATURES):
    torch.manual_seed(seed)
    name, _, pooling = case.partition("-")
    return ENCODERS[name](n_features, N_CODE, **({"pooling": pooling} if pooling else {})).eval()


@pytest.fixture
def encoder(name, device):
    return build(name).to(device)


@pytest.fixture
def measure(device):
    """Four groups of 30 weighted cells with different means and spreads."""
    x = torch.randn(4, 30, N_FEATURES) * torch.tensor([0.5, 1, 2, 1])[:, None, None] + torch.randn(4, 1, N_FEATURES)
    weight = torch.rand(4, 30) + 0.1
    return x.to(device), (weight / weight.sum(1, keepdim=True)).to(device)


def streamed(encoder, x, weight):
    """The code as users get it: the sums of a group are float64."""
    return encoder.stream(lambda: [Block(x, weight, torch.arange(len(x), device=x.device))], len(x))


def same(encoder, measures, others):
    """Codes of the same measures, written differently, are equal to within :data:`BAR` for users, and in training."""
    with torch.no_grad():
        sd = streamed(encoder, *measures).std(0)
        for code, bar in ((streamed, BAR), (Encoder.forward, TRAINING_BAR)):
            difference = (code(encoder, *others) - code(encoder, *measures)).cpu().double().abs()
            assert (difference <= bar * sd).all()


def test_shape_and_dtype(encoder, measure):
    code = encoder(*measure)
    assert isinstance(encoder, Encoder)
    assert code.shape == (4, N_CODE)
    assert code.dtype == torch.float32
    assert code.device == measure[0].device
    assert (code - code.roll(1, 0)).abs().max() > 1e-2


def test_order_of_cells_does_not_matter(encoder, measure):
    x, weight = measure
    order = torch.randperm(30, device=x.device)
    same(encoder, measure, (x[:, order], weight[:, order]))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_duplicating_every_cell_changes_nothing(encoder, measure, k):
    x, weight = measure
    same(encoder, measure, (x.repeat(1, k, 1), weight.repeat(1, k) / k))


def test_integer_weights_are_repeated_cells(encoder, measure):
    x = measure[0]
    counts = torch.randint(1, 5, (30,), device=x.device)
    repeated = x.repeat_interleave(counts, dim=1)
    n = repeated.shape[1]
    same(encoder, (x, (counts / n).expand(4, -1)), (repeated, torch.full((4, n), 1 / n, device=x.device)))


def test_cells_of_weight_zero_have_no_effect(encoder, measure):
    x, weight = measure
    padding = 100 * torch.randn(4, 9, N_FEATURES, device=x.device)
    same(encoder, measure, (torch.cat([padding, x], 1), torch.nn.functional.pad(weight, (9, 0))))


def test_groups_do_not_see_each_other(encoder, measure):
    x, weight = measure
    with torch.no_grad():
        sd = streamed(encoder, x, weight).std(0)
        for code, bar in ((streamed, BAR), (Encoder.forward, TRAINING_BAR)):
            alone = torch.cat([code(encoder, x[i : i + 1], weight[i : i + 1]) for i in range(4)])
            assert ((alone - code(encoder, x, weight)).cpu().double().abs() <= bar * sd).all()


def test_a_group_of_one_cell_is_finite(encoder, measure):
    x = measure[0][:, :1]
    assert torch.isfinite(encoder(x, torch.ones(4, 1, device=x.device))).all()


def test_large_sets_converge_at_the_root_n_rate(name):
    """The code of n cells drawn from a known population is at a distance of order n^(-1/2) from the population's.

    The population has finitely many atoms, so that its code is exact. The mean square error over 256 independent draws
    has a coefficient of variation of at most (2 / 256)^(1/2) near the normal limit; the logarithm of the ratio of two of
    them has standard deviation at most 0.125, and five of those are exceeded with probability below 1e-6.
    """
    encoder = build(name)
    atoms, law = torch.randn(1, 200, N_FEATURES), torch.rand(200)
    law = law / law.sum()

    def mean_square_error(n):
        weight = torch.distributions.Multinomial(n, law).sample((256,)) / n
        with torch.no_grad():
            return (encoder(atoms.expand(256, -1, -1), weight) - encoder(atoms, law[None])).square().sum(1).mean()

    ratio = mean_square_error(400) / mean_square_error(6400)
    assert abs(math.log(ratio) - math.log(16)) < 5 * 0.125


def test_streaming_is_the_forward_pass(encoder, device):
    sizes = [1, 7, 300, 40]
    groups = [torch.randn(n, N_FEATURES, device=device) + i for i, n in enumerate(sizes)]
    masses = [torch.rand(n, device=device) + 0.1 for n in sizes]
    masses = [mass / mass.sum() for mass in masses]
    with torch.no_grad():
        expected, exact = (
            torch.cat([code(encoder, x[None], mass[None]) for x, mass in zip(groups, masses, strict=True)])
            for code in (Encoder.forward, streamed)
        )
    for size in (50, 1000):
        # Two blocks at a time, padded to the same length by far cells without mass.
        parts = [
            (x, mass, i)
            for i in (2, 0, 3, 1)
            for x, mass in zip(groups[i].split(size), masses[i].split(size), strict=True)
        ]

        def blocks(parts=parts):
            for some in (parts[i : i + 2] for i in range(0, len(parts), 2)):
                n = max(len(mass) for _, mass, _ in some)
                x = torch.stack([torch.nn.functional.pad(x, (0, 0, 0, n - len(x)), value=50.0) for x, _, _ in some])
                weight = torch.stack([torch.nn.functional.pad(mass, (0, n - len(mass))) for _, mass, _ in some])
                yield Block(x, weight, torch.tensor([i for _, _, i in some], device=device))

        with torch.no_grad():
            code = encoder.stream(blocks, 4)
        sd = exact.std(0)
        assert ((code - exact).abs() <= BAR * sd).all()
        assert ((code - expected.cpu().double()).abs() <= TRAINING_BAR * sd).all()


def test_gradient_reaches_every_parameter(encoder, measure):
    encoder.train()
    x, weight = measure
    x.requires_grad_()
    encoder(x, weight).square().sum().backward()
    assert x.grad.abs().sum() > 0
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_derivatives_are_right_in_cells_and_weights(name):
    """The derivative in the weights is what influence functions are made of."""
    encoder = build(name, n_features=2).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.full((2, 4), 0.25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, (x, weight))


def test_state_round_trip_and_determinism(name, measure, tmp_path):
    x, weight = measure
    encoder, other = build(name, seed=0).to(x.device), build(name, seed=1).to(x.device)
    code = encoder(x, weight)
    assert torch.equal(encoder(x, weight), code)
    assert torch.equal(build(name, seed=0).to(x.device)(x, weight), code)
    assert not torch.allclose(other(x, weight), code)
    torch.save(encoder.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other(x, weight), code)


@pytest.mark.parametrize("pooling", [*REFUSED, "topk", "Max", "mode"])
@pytest.mark.parametrize("name", NEURAL)
def test_poolings_that_break_the_theory_are_refused(name, pooling):
    with pytest.raises(ValueError, match="unknown" if pooling == "mode" else "refused: .* Choose from"):
        ENCODERS[name](N_FEATURES, N_CODE, pooling=pooling)


def test_a_hot_softmax_is_the_mean_and_a_cold_one_comes_near_the_maximum():
    hidden = 2 * torch.rand(1, 50, 3)

    def pool(temperature):
        pooling = POOLINGS["softmax"](temperature=temperature)
        return pooling.value(pooling.features(hidden).mean(1))

    torch.testing.assert_close(pool(1e4), hidden.mean(1), atol=1e-3, rtol=0)
    gap = {t: hidden.amax(1) - pool(t) for t in (0.3, 1, 10)}
    assert (gap[0.3] > 0).all()
    assert (gap[0.3] < 0.8 * gap[1]).all()
    assert (gap[1] < gap[10]).all()
    with pytest.raises(ValueError, match="temperature=0"):
        POOLINGS["softmax"](temperature=0)


@pytest.mark.parametrize("name", OTHERS)
def test_closed_form_is_fitted_to_the_training_cells(name):
    """After fitting, groups that differ by a shift differ in the code as the shift says, in the first entry."""
    encoder = build(name, n_features=4)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    shift = torch.linspace(-2, 2, 12)
    groups = [torch.randn(60, 4) + torch.tensor([s, 0, 0, 0]) for s in shift.tolist()]
    encoder.fit(groups, 0)
    assert any(not torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    if not list(encoder.parameters()):
        with torch.no_grad():
            code = torch.cat([encoder(x[None], torch.full((1, 60), 1 / 60)) for x in groups])
        assert abs(torch.corrcoef(torch.stack([code[:, 0], shift]))[0, 1]) > 0.95


def test_the_bandwidth_is_the_median_distance():
    encoder = build("kme", n_features=1)
    encoder.fit([torch.tensor([[0.0], [1.0], [3.0]])], 0)
    assert encoder.levels[0].bandwidth == 2


def test_codes_larger_than_the_statistics_end_in_zeros():
    for name in ("moments", "mixture"):
        encoder = ENCODERS[name](2, 40)
        encoder.fit([torch.randn(30, 2) + i for i in range(5)], 0)
        code = encoder(torch.randn(3, 20, 2), torch.full((3, 20), 1 / 20))
        assert code.shape == (3, 40)
        assert torch.isfinite(code).all()
        assert (code[:, -1] == 0).all()

"""Likelihoods of the variational autoencoder: how a cell scatters around what the decoder says."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from torch import Tensor, nn

from scgde.nn._random import CounterRandom
from scgde.nn.generators._base import Condition
from scgde.nn.generators._divergence import place

#: Logarithms of dispersions are parameters times this: they are far from where they start, and steps are small.
DISPERSION_RATE = 10.0


class Likelihood(nn.Module):
    """A distribution of cells, given a component of the group's mixture and the decoder's output."""

    #: Outputs of the decoder per feature.
    n_outputs: ClassVar[int] = 2

    #: Whether cells are counts.
    counts: ClassVar[bool] = False

    def __init__(self, n_features: int, n_latent: int) -> None:
        super().__init__()

    def loss(
        self,
        output: Tensor,
        x: Tensor,
        inner: Tensor,
        component: Tensor,
        z: Tensor,
        of: Condition,
        random: CounterRandom,
    ) -> Tensor:
        """Negative log density per feature, or a bound of it, up to constants, (groups, cells).

        Parameters
        ----------
        output
            (groups, cells, n_outputs, features).
        x, inner
            (groups, cells, features) cells, and their standardised positions in their components.
        component
            (groups, cells).
        z
            (groups, n_latent).
        of
            The groups' statistics.
        random
            Source of noise.
        """
        raise NotImplementedError

    def sample(self, output: Tensor, component: Tensor, z: Tensor, of: Condition, random: CounterRandom) -> Tensor:
        """Draw a cell of each output, (groups, cells, features)."""
        raise NotImplementedError


class Normal(Likelihood):
    """Normal in the standardised position within the component: outputs are location and log standard deviation."""

    def loss(
        self,
        output: Tensor,
        x: Tensor,
        inner: Tensor,
        component: Tensor,
        z: Tensor,
        of: Condition,
        random: CounterRandom,
    ) -> Tensor:
        location, log_scale = output.unbind(2)
        # Observation noise below a tenth of the component's spread would let a few cells be learned by heart.
        log_scale = log_scale.clamp_min(-2.3)
        return (0.5 * ((inner - location) / log_scale.exp()).square() + log_scale).mean(-1)

    def sample(self, output: Tensor, component: Tensor, z: Tensor, of: Condition, random: CounterRandom) -> Tensor:
        location, log_scale = output.unbind(2)
        noise = random.normal("observation", location[0].numel()).view_as(location)
        return place(location + log_scale.clamp_min(-2.3).exp() * noise, component, of.mixtures)


class Counts(Likelihood):
    """Negative binomial counts: library size times the profile of the component, corrected by the decoder.

    A cell's library size is latent and log-normal, around the total that the decoder gives: types of cells differ in
    it. Counts scatter around it, so their sum says where it is, and not what it is. Each gene has a dispersion.
    """

    n_outputs: ClassVar[int] = 1
    counts: ClassVar[bool] = True
    shift: Tensor
    scale: Tensor

    def __init__(self, n_features: int, n_latent: int) -> None:
        super().__init__(n_features, n_latent)
        self.register_buffer("shift", torch.ones(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.log_dispersion = nn.Parameter(torch.ones(n_features) / DISPERSION_RATE)
        self.library = nn.Linear(n_latent, 2)
        nn.init.zeros_(self.library.weight)
        nn.init.zeros_(self.library.bias)
        # Of the library size given the cell: how much the sum of counts says (a logit), and the log of what is left.
        self.posterior = nn.Parameter(torch.tensor([2.0, -2.0]))

    def loss(
        self,
        output: Tensor,
        x: Tensor,
        inner: Tensor,
        component: Tensor,
        z: Tensor,
        of: Condition,
        random: CounterRandom,
    ) -> Tensor:
        counts = (x * self.scale + self.shift).round().clamp_min(0)
        log_profile, center, spread = self._parts(output, component, z, of)
        deviation = self.posterior[0].sigmoid() * (counts.sum(-1, keepdim=True).clamp_min(1).log() - center)
        rest = self.posterior[1].exp()
        noise = random.normal("library", counts.shape[1])[..., None]
        total = (center + deviation + rest * noise).exp()
        density = self._distribution(output, total * log_profile.exp()).log_prob(counts)
        library = 0.5 * (rest.square() + deviation.square()) / spread.square() + (spread / rest).log()
        return library[..., 0] / x.shape[-1] - density.mean(-1)

    def _parts(self, output: Tensor, component: Tensor, z: Tensor, of: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """Log profile (groups, cells, features), and center and spread of the log library size (groups, cells, 1)."""
        mean = of.mixtures.mean * self.scale + self.shift
        # The mean of a rare component may fall below 0 where it is regularised.
        mean = torch.maximum(mean, 0.05 * self.shift.clamp_min(1e-4))
        mean = mean[torch.arange(len(mean), device=mean.device)[:, None], component]
        offset, log_spread = self.library(z)[:, None].chunk(2, dim=-1)
        log_mean = mean.log() + output[:, :, 0]
        log_total = log_mean.logsumexp(-1, keepdim=True)
        spread = 0.4 * log_spread.clamp(-5, 2).exp()
        # Half the variance less: the mean of the library size, and not of its logarithm, is the total.
        return log_mean - log_total, log_total + offset - 0.5 * spread.square(), spread

    def _distribution(self, output: Tensor, mu: Tensor) -> torch.distributions.Distribution:
        return NegativeBinomial(mu=mu, theta=self.dispersion)

    @property
    def dispersion(self) -> Tensor:
        """(features,) the inverse of what the variance exceeds the mean by, relative to its square."""
        return (DISPERSION_RATE * self.log_dispersion).exp()

    def sample(self, output: Tensor, component: Tensor, z: Tensor, of: Condition, random: CounterRandom) -> Tensor:
        log_profile, center, spread = self._parts(output, component, z, of)
        total = (center + spread * random.normal("library", component.shape[1])[..., None]).exp()
        mu = (total * log_profile.exp()).cpu().double().numpy()
        theta = self.dispersion.cpu().double().numpy()
        u = random.uniform("observation", mu[0].size).view_as(log_profile)
        # By quantiles: scvi-tools would draw from the global generator.
        counts = stats.nbinom.ppf(u.cpu().double().numpy(), theta, theta / (theta + mu)).astype(np.float32)
        return (torch.from_numpy(counts).to(self.shift) - self.shift) / self.scale


class ZeroInflatedCounts(Counts):
    """As :class:`Counts`, with further zeros."""

    n_outputs: ClassVar[int] = 2

    def __init__(self, n_features: int, n_latent: int) -> None:
        super().__init__(n_features, n_latent)
        self.logit = nn.Parameter(torch.full((n_features,), -3.0))

    def _distribution(self, output: Tensor, mu: Tensor) -> torch.distributions.Distribution:
        logits = self.logit + output[:, :, 1]
        return ZeroInflatedNegativeBinomial(mu=mu, theta=self.dispersion, zi_logits=logits)

    def sample(self, output: Tensor, component: Tensor, z: Tensor, of: Condition, random: CounterRandom) -> Tensor:
        x = super().sample(output, component, z, of, random)
        zero = random.uniform("zeros", x[0].numel()).view_as(x) < (self.logit + output[:, :, 1]).sigmoid()
        return torch.where(zero, -self.shift / self.scale, x)


#: Likelihoods by name.
LIKELIHOODS: dict[str, type[Likelihood]] = {"normal": Normal, "nb": Counts, "zinb": ZeroInflatedCounts}

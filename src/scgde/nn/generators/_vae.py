"""Conditional variational autoencoder within the components of the group's mixture."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from scgde.nn._blocks import ConditionalMLP
from scgde.nn._random import CounterRandom
from scgde.nn.gaussians import single
from scgde.nn.generators._base import Condition, Generator
from scgde.nn.generators._divergence import draw_components
from scgde.nn.generators._likelihoods import LIKELIHOODS, Counts
from scgde.nn.mixtures import Mixtures

#: Correlation of a feature and its code in an untrained model, and the log standard deviation of what is left.
CORRELATION = 0.9
REST = 0.5 * math.log(1 - CORRELATION**2)


def components_of(x: Tensor, mixtures: Mixtures, u: Tensor) -> tuple[Tensor, Tensor]:
    """A component of each cell, drawn from its responsibilities by ``u`` (groups, cells), and its position in it.

    Parameters
    ----------
    x
        (groups, cells, features).
    mixtures
        Of the groups.
    u
        Uniform numbers.

    Returns
    -------
    Components (groups, cells), and positions in units of the root of their covariance (groups, cells, features).
    """
    centred = x[:, :, None] - mixtures.mean[:, None]
    if mixtures.full:
        inner = torch.einsum("gkij,gnkj->gnki", mixtures.root.inverse(), centred)
        log_det = mixtures.root.logdet()
    else:
        inner = centred / mixtures.root[:, None]
        log_det = mixtures.root.log().sum(-1)
    share = (mixtures.weight.log()[:, None] - log_det[:, None] - 0.5 * inner.square().sum(-1)).softmax(-1)
    component = (u[..., None] > share.cumsum(-1)).sum(-1).clamp_max(share.shape[-1] - 1)
    index = component[..., None, None].expand(-1, -1, 1, x.shape[-1])
    return component, inner.gather(2, index).squeeze(2)


class VAE(Generator):
    """A variational autoencoder of cells, conditioned on the group.

    A cell has a component c of the group's mixture, known given the cell in closed form, and a code h ~ N(0, I),
    learned given the cell::

        x = mean_c + root_c u,     u ~ N(f(h, mean_c, z), g(h, mean_c, z)^2)

    An untrained model is probabilistic PCA within each component, and generates the mixture exactly: h explains a share
    of the variance of the leading features, and g leaves the rest. (Started with a code that says nothing, neither half
    would learn.) With a likelihood of counts there is one component, the group's mean profile, and f starts at 0 and is
    added to its logarithm.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of the embedding.
    n_batch
        Number of batches; 0 where cells have none.
    likelihood
        "normal"; "nb" and "zinb" (negative binomial, with further zeros) for raw counts.
    n_code
        Size of the code of a cell, at most the number of features; by default that, or 16.
    width
        Hidden features; by default 128 up to 6 features and 256 above.
    n_layers
        Number of residual layers, in encoder and decoder.
    dropout
        Share of hidden features set to zero in training.

    Notes
    -----
    Kingma and Welling, "Auto-encoding variational Bayes" (2014); counts as in Lopez et al., "Deep generative
    modeling for single-cell transcriptomics" (2018).
    """

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        likelihood: str = "normal",
        n_code: int | None = None,
        width: int | None = None,
        n_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        if likelihood not in LIKELIHOODS:
            msg = f"likelihood={likelihood!r} is unknown: choose from {list(LIKELIHOODS)}."
            raise ValueError(msg)
        super().__init__(n_features, n_latent, n_batch)
        self.n_code = n_code = min(n_code or 16, n_features)
        self.likelihood = LIKELIHOODS[likelihood](n_features, n_latent)
        self.counts = self.likelihood.counts
        width = width or (128 if n_features <= 6 else 256)
        self.encoder, self.decoder = (
            ConditionalMLP(
                n_input,
                n_latent + 1,
                n_output,
                n_batch=n_batch,
                width=width,
                n_layers=n_layers,
                dropout=dropout,
            )
            for n_input, n_output in (
                (2 * n_features, 2 * n_code),
                (n_code + n_features, self.likelihood.n_outputs * n_features),
            )
        )

        if self.counts:
            # Where neither half says anything of the cell, neither learns; nothing in closed form says something here.
            self.encoder.output.reset_parameters()

    def fit(self, shift: Tensor, scale: Tensor) -> None:
        if isinstance(self.likelihood, Counts):
            self.likelihood.shift.copy_(shift)
            self.likelihood.scale.copy_(scale)

    def loss(self, x: Tensor, weight: Tensor, z: Tensor, condition: Condition, random: CounterRandom) -> Tensor:
        groups, cells, features = x.shape
        condition = self._base(condition)
        component, inner = components_of(x, condition.mixtures, random.uniform("component", cells))
        known = torch.cat([z, condition.measured[:, None]], dim=-1)
        location, log_scale = self.encoder(torch.cat([x, inner], dim=-1), known, condition.batch).float().chunk(2, -1)
        if condition.trust is not None:
            trust = condition.trust[:, None, None]
            location, log_scale = trust * location, trust * log_scale
        if not self.counts:
            location = location + CORRELATION * inner[..., : self.n_code]
            log_scale = log_scale + REST
        log_scale = log_scale.clamp(-7, 3)
        noise = random.normal("noise", cells * self.n_code).view(groups, cells, -1)
        output = self._decoded(location + log_scale.exp() * noise, component, z, condition)
        divergence = 0.5 * (location.square() + (2 * log_scale).exp() - 1) - log_scale
        loss = self.likelihood.loss(output, x, inner, component, z, condition, random) + divergence.sum(-1) / features
        return (weight * loss).sum(1) / weight.sum(1).clamp_min(1e-12)

    def _base(self, condition: Condition) -> Condition:
        # Counts are skewed: which component a cell is of under Gaussians is not what their weights say.
        return replace(condition, mixtures=single(condition.mixtures)) if self.counts else condition

    def _decoded(self, code: Tensor, component: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Output of the decoder, (groups, cells, outputs, features)."""
        group = torch.arange(len(z), device=z.device)[:, None]
        known = torch.cat([z, condition.measured[:, None]], dim=-1)
        inputs = torch.cat([code, condition.mixtures.mean[group, component]], dim=-1)
        output = self.decoder(inputs, known, condition.batch).float().unflatten(-1, (-1, self.n_features))
        output = output if condition.trust is None else condition.trust[:, None, None, None] * output
        if self.counts:
            return output
        explained = nn.functional.pad(CORRELATION * code, (0, self.n_features - self.n_code))
        rest = nn.functional.pad(torch.full_like(code, REST), (0, self.n_features - self.n_code))
        return output + torch.stack([explained, rest], dim=2)

    def sample(
        self, z: Tensor, n: int, condition: Condition, random: CounterRandom, *, n_steps: int | None = None
    ) -> Tensor:
        condition = self._base(condition)
        component, _ = draw_components(condition.mixtures, n, random)
        code = random.normal("noise", n * self.n_code).view(len(z), n, -1)
        with torch.no_grad():
            output = self._decoded(code, component, z, condition)
            return self.likelihood.sample(output, component, z, condition, random)

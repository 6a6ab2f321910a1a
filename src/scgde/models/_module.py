"""The network of a GDE: shared statistics, encoder and generator, and how they make an embedding."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from scgde._validation import unknown_key
from scgde.nn.encoders import ENCODERS, Encoder
from scgde.nn.generators import GENERATORS, Condition, Generator
from scgde.nn.heads import Heads
from scgde.nn.mixtures import Mixtures
from scgde.nn.statistics import MixtureStatistics
from scgde.nn.transport import TRANSPORTS, Transport

#: Total variance of the code in an embedding, relative to that of the statistics. The statistics carry the geometry.
CODE_VARIANCE = 0.1


def generator_class(generator: str, method: str) -> type[Generator] | type[Transport]:
    """What a model learns besides the encoder: a generator of single populations, or a transport of pairs."""
    return GENERATORS[generator] if method == "composition" else TRANSPORTS[method]


def probe_generator(options: dict[str, Any]) -> Generator | Transport:
    """A generator with a model's options and without memory, to ask what it can; raise where the options do not fit."""
    kind = generator_class(options["generator"], options["method"])
    given = options["generator_kwargs"]
    known = sorted(
        name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    )
    for name in given:
        if name not in known:
            chosen = options["generator"] if options["method"] == "composition" else options["method"]
            raise ValueError(unknown_key(name, known, f"the options of {chosen!r} (generator_kwargs=)").args[0])
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return kind(2, 2, 0, **given)


class GDEModule(nn.Module):
    """Statistics, encoder and generator of a GDE.

    The embedding is ``z = [coordinates, code]``: principal coordinates of the group's statistics in the units of the
    representation, and a learned code, centred and scaled by constants. Until :meth:`build` is called the module is
    empty, since its shapes depend on data.
    """

    statistics: MixtureStatistics
    encoder: Encoder
    generator: Generator | Transport
    heads: Heads
    shift: Tensor
    scale: Tensor
    code_center: Tensor
    code_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.spec: dict[str, Any] = {}

    def build(
        self,
        *,
        n_features: int,
        n_components: int,
        n_coordinates: int,
        n_code: int,
        n_batch: int,
        encoder: str,
        generator: str,
        encoder_kwargs: dict[str, Any],
        generator_kwargs: dict[str, Any],
        seed: int,
        method: str = "composition",
        heads: list[dict[str, Any]] | None = None,
        statistics: MixtureStatistics | None = None,
        n_crossed: int = 0,
        n_whole: int = 0,
    ) -> None:
        """Make the parts. Initial weights are a function of ``seed`` alone.

        Parameters
        ----------
        n_features, n_components, n_coordinates, n_code, n_batch
            Shapes.
        encoder, generator
            Names in the registries.
        encoder_kwargs, generator_kwargs
            Their options.
        seed
            Seed of the initial weights.
        method
            "composition", with a generator of single populations, or the name of a transport of pairs in its place.
        heads
            For each label that is trained on, what its head is built from.
        statistics
            Fitted statistics; without, empty ones for a saved state to fill.
        n_crossed
            Number of features whose correlations the statistics have; none in models saved before there were any.
        n_whole
            Number of moments of whole populations in the embedding; none in models saved before there were any.
        """
        self.spec = {name: value for name, value in locals().items() if name not in {"self", "statistics", "__class__"}}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            n_latent = n_coordinates + n_code
            try:
                self.encoder = ENCODERS[encoder](n_features, n_code, **encoder_kwargs)
                self.generator = generator_class(generator, method)(n_features, n_latent, n_batch, **generator_kwargs)
            except TypeError as error:
                msg = f"encoder_kwargs={encoder_kwargs} or generator_kwargs={generator_kwargs} do not fit: {error}"
                raise TypeError(msg) from error
            self.heads = Heads(n_latent, heads or [])
        if statistics is None:
            statistics = MixtureStatistics(n_features, n_components, n_coordinates, n_crossed, n_whole)
        self.statistics = statistics
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("code_center", torch.zeros(n_code))
        self.register_buffer("code_scale", torch.ones(()))

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Called by scvi-tools before a saved state is loaded: build what the state belongs to."""
        if model.spec_:
            self.build(**model.spec_)

    @property
    def built(self) -> bool:
        """Whether the shapes are known."""
        return bool(self.spec)

    @property
    def device(self) -> torch.device:
        """Where the module lives."""
        return self.shift.device if self.built else torch.device("cpu")

    @property
    def n_coordinates(self) -> int:
        """Number of entries of an embedding that are statistics."""
        return self.spec["n_coordinates"]

    def standardize(self, x: Tensor) -> Tensor:
        """From the units of the representation to standardised features."""
        return (x - self.shift) / self.scale

    def restore(self, x: Tensor) -> Tensor:
        """From standardised features to the units of the representation."""
        x = x * self.scale + self.shift
        return x.round() if getattr(self.generator, "counts", False) else x

    def embedding(self, coordinates: Tensor, code: Tensor) -> Tensor:
        """(groups, n_latent) embedding as users see it."""
        return torch.cat([coordinates, self.code_scale.to(code) * (code - self.code_center.to(code))], dim=-1)

    def latent(self, z: Tensor) -> Tensor:
        """The embedding in units of its spread, as the generator reads it."""
        coordinates, code = z.tensor_split([self.n_coordinates], dim=-1)
        return torch.cat([coordinates / self.statistics.spread, code / self.code_scale + self.code_center], dim=-1)

    def read_back(self, z: Tensor) -> Mixtures:
        """The statistics that an embedding stands for."""
        return self.statistics.read_back(z[:, : self.n_coordinates])

    def blocks(self, z: Tensor) -> list[Tensor]:
        """Features that predictions read, each (groups, n): embeddings, and :meth:`MixtureStatistics.blocks`."""
        blocks = self.statistics.blocks(z[:, : self.n_coordinates].float().to(self.device))
        return [z, *(block.to(z) for block in blocks.values())]

    def condition(
        self, z: Tensor, mixtures: Mixtures | None = None, batch: Tensor | None = None, trust: Tensor | None = None
    ) -> Condition:
        """What the generator is told: measured statistics, or those read back from the embedding."""
        measured = torch.full((len(z),), float(mixtures is not None), device=z.device)
        return Condition(self.read_back(z) if mixtures is None else mixtures, measured, batch, trust)

    @torch.no_grad()
    def calibrate_code(self, coordinates: Tensor, code: Tensor) -> None:
        """Set the constants that centre the code and scale it to its share of the embedding's variance.

        Parameters
        ----------
        coordinates, code
            Of the training groups: (groups, n_coordinates) and (groups, n_code).
        """
        target = CODE_VARIANCE * coordinates.var(0).sum()
        self.code_center.copy_(code.mean(0))
        self.code_scale.copy_((target / code.var(0).sum().clamp_min(1e-12)).sqrt().clamp(1e-6, 1e6))

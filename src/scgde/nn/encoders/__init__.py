"""Encoders: functions of a weighted empirical measure."""

from scgde.nn.encoders._attention import Attention
from scgde.nn.encoders._base import Block, Blocks, Encoder, Level
from scgde.nn.encoders._closed_form import Mixture, Moments
from scgde.nn.encoders._deepsets import DeepSets
from scgde.nn.encoders._kme import KernelMean
from scgde.nn.encoders._pooling import POOLINGS, Pooling
from scgde.nn.encoders._resnet import ResNet

#: Encoders by name. Every entry is found by the contract tests.
ENCODERS: dict[str, type[Encoder]] = {
    "attention": Attention,
    "deepsets": DeepSets,
    "kme": KernelMean,
    "mixture": Mixture,
    "moments": Moments,
    "resnet": ResNet,
}

__all__ = [
    "ENCODERS",
    "POOLINGS",
    "Attention",
    "Block",
    "Blocks",
    "DeepSets",
    "Encoder",
    "KernelMean",
    "Level",
    "Mixture",
    "Moments",
    "Pooling",
    "ResNet",
]

"""Encoders: functions of a weighted empirical measure."""

from scgde.nn.encoders._base import Encoder, Level
from scgde.nn.encoders._deepsets import DeepSets
from scgde.nn.encoders._resnet import ResNet

#: Encoders by name. Every entry is found by the contract tests.
ENCODERS: dict[str, type[Encoder]] = {"deepsets": DeepSets, "resnet": ResNet}

__all__ = ["ENCODERS", "DeepSets", "Encoder", "Level", "ResNet"]

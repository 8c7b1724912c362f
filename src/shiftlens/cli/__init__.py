"""Provides the commands `analyze` and `train`."""

from shiftlens.cli.analyze_command import analyze, train

__all__ = ["analyze", "train"]

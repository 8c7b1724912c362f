"""Tune a language model and watch the shift happen."""

from shiftlens.cli import train

if __name__ == "__main__":
    train()

"""Compare a base and a tuned language model: ``python analyze.py model=vicuna``."""

from shiftlens.cli import analyze

if __name__ == "__main__":
    analyze()

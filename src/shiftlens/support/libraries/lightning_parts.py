"""Private parts of Lightning: the trainer that a progress bar holds, and the size of a mesh."""

from __future__ import annotations

from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import ModelParallelStrategy


def forget_trainer(bar: RichProgressBar) -> None:
    """Have a progress bar let go of its trainer, which would keep the model in memory.

    Args:
        bar: The bar.
    """
    assert hasattr(bar, "_trainer"), "RichProgressBar keeps its trainer in _trainer"
    bar._trainer = None


def set_data_parallel_size(strategy: ModelParallelStrategy, size: int) -> None:
    """Say how many processes share the data, before the strategy makes its mesh.

    Args:
        strategy: The strategy.
        size: Number of processes.
    """
    assert hasattr(strategy, "_data_parallel_size"), "ModelParallelStrategy keeps its size in _data_parallel_size"
    strategy._data_parallel_size = size

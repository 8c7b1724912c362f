"""Shards a model over several processes (FSDP2) and gathers or sets its whole weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from shiftlens.support.libraries.lightning_parts import set_data_parallel_size


class Sharded(ModelParallelStrategy):
    """Strategy in which each process holds a shard of every weight, gradient and optimizer state (FSDP2).

    Args:
        **settings: Further arguments of Lightning's ``ModelParallelStrategy``, such as ``timeout``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False, **settings
        )

    def setup_environment(self) -> None:
        """Use all processes for data parallelism and none for tensor parallelism."""
        set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()


def shard(model: nn.Module, mesh: Any) -> None:
    """Shard a model in place, layer by layer, over the processes of a mesh.

    Args:
        model: Hugging Face causal language model, with or without LoRA.
        mesh: Device mesh with the dimension ``data_parallel``.
    """
    from torch.distributed.fsdp import fully_shard

    for layer in _repeated(model):
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])


def _repeated(model: nn.Module) -> list[nn.Module]:
    """Return the transformer layers, taken to be the longest ``ModuleList`` of the model."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def is_sharded(model: nn.Module) -> bool:
    """Return whether the weights of a model are sharded over processes."""
    return any(hasattr(weight, "full_tensor") for weight in model.parameters())


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights of a model, gathered if they are sharded; every process must call this function.

    Args:
        model: Model, sharded or not.

    Returns:
        Weight name -> whole weight; on the CPU if the model is sharded.
    """
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Any = get_model_state_dict(model, options=options)
    return dict(weights)


def set_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set weights of a model, sharded or not.

    Args:
        model: Model to change.
        weights: Weight name -> whole weight; weights without an entry are unchanged.
    """
    if not is_sharded(model):
        model.load_state_dict(weights, strict=False)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(
        model, dict[str, Any](weights), options=StateDictOptions(full_state_dict=True, strict=False)
    )


def agree(value: str, what: str) -> None:
    """Check that a value is the same on all processes of a run; without several processes, do nothing.

    Args:
        value: The value on this process.
        what: What the value stands for, for the error message.

    Raises:
        ConfigError: The value differs between processes.
    """
    from shiftlens.errors import ConfigError

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    if len(set(values)) > 1:
        raise ConfigError(
            f"the processes of this run differ in {what}: {sorted(set(values))}; set hydra.run.dir=DIR"
        )

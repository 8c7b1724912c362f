"""One model cut over several processes (FSDP), and its weights put together again."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from shiftlens.support.libraries.lightning_parts import set_data_parallel_size


class Sharded(ModelParallelStrategy):
    """Every process keeps a part of each weight, its gradient and its optimizer state (FSDP2).

    Args:
        **settings: of Lightning's ``ModelParallelStrategy``, such as ``timeout``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False, **settings
        )

    def setup_environment(self) -> None:
        """All processes share the data; none splits a single product."""
        set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()


def shard(model: nn.Module, mesh: Any) -> None:
    """Cut a model, layer by layer, over the processes of a mesh.

    Args:
        model: causal language model of Hugging Face, or the same under LoRA.
        mesh: a device mesh with the dimension ``data_parallel``.
    """
    from torch.distributed.fsdp import fully_shard

    for layer in _repeated(model):
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])


def _repeated(model: nn.Module) -> list[nn.Module]:
    """The layers of the body: the longest list of modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def is_sharded(model: nn.Module) -> bool:
    """Whether weights of a model are cut over processes."""
    return any(hasattr(weight, "full_tensor") for weight in model.parameters())


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights under their names, put together if they are cut; every process has to ask for them.

    Args:
        model: the model.

    Returns:
        Name -> weight; on the CPU if the model is cut.
    """
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: Any = get_model_state_dict(model, options=options)
    return dict(found)


def set_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put some weights into a model, cut or not.

    Args:
        model: the model.
        weights: name -> whole weight; others stay.
    """
    if not is_sharded(model):
        model.load_state_dict(weights, strict=False)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(
        model, dict[str, Any](weights), options=StateDictOptions(full_state_dict=True, strict=False)
    )


def agree(value: str, what: str) -> None:
    """Make sure that all processes of a run mean the same.

    Raises:
        ConfigError: they do not.
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

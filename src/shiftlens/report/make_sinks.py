"""Makes the configured sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from shiftlens.errors import ConfigError
from shiftlens.report.sink import LoggerSink, Sink
from shiftlens.report.tensorboard_sink import TensorBoardSink
from shiftlens.report.wandb_sink import WandbSink

_BEHIND: tuple[tuple[type[Logger], type[Sink]], ...] = (
    (WandbLogger, WandbSink),
    (TensorBoardLogger, TensorBoardSink),
    (Logger, LoggerSink),
)
"""Kind of Lightning logger -> the sink that takes most from it; the first that fits."""


def make_sinks(group: Mapping[str, Any] | None, config: Mapping[str, Any]) -> list[Sink]:
    """Instantiate the ``logger`` group and start every sink.

    Args:
        group: Name -> a node with ``_target_``: a :class:`~shiftlens.report.sink.Sink` or a Lightning ``Logger``.
        config: The whole resolved configuration, as plain values.

    Returns:
        The sinks, started.

    Raises:
        ConfigError: A node is neither.
    """
    sinks = [sink_of(name, instantiate(dict(node))) for name, node in (group or {}).items()]
    for sink in sinks:
        sink.start(config)
    return sinks


def sink_of(name: str, destination: Any) -> Sink:
    """The sink that a node of the configuration means.

    Args:
        name: Name of the node.
        destination: What the node gave when instantiated.

    Raises:
        ConfigError: It is neither a sink nor a Lightning logger.

    Example:
        >>> sink_of("mine", 3)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: logger.mine: expected a Sink or a Lightning Logger as _target_, got int
    """
    if isinstance(destination, Sink):
        return destination
    for kind, sink in _BEHIND:
        if isinstance(destination, kind):
            return sink(destination)  # type: ignore[call-arg]
    raise ConfigError(
        f"logger.{name}: expected a Sink or a Lightning Logger as _target_, got {type(destination).__name__}"
    )


def finish(sinks: Sequence[Sink], exit_code: int = 0) -> list[str]:
    """Close all sinks; returns the lines that a user should see.

    Args:
        sinks: The sinks.
        exit_code: 0 where the run succeeded.
    """
    return [line for sink in sinks for line in sink.finish(exit_code)]

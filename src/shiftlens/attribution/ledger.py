"""The ledger: raw attributions on disk, keyed by content, so that the model is needed only once.

Rows lie in Parquet shards, one folder per model. Each writer makes shards of its own, written to a
temporary file, synced and renamed: a reader never sees half a shard, and a killed run loses only
what was not yet flushed.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from shiftlens.models.identity import Identity, digest

log = logging.getLogger(__name__)

ATTRIBUTION_VERSION = 2
"""Raised whenever the numbers an attribution gives could change; old rows are then misses."""

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("prompt_index", pa.list_(pa.int32())),
        ("gradient", pa.list_(pa.float32())),
        ("log_probability", pa.list_(pa.float32())),
        ("rank", pa.list_(pa.int32())),
        ("response", pa.string()),
        ("finished", pa.bool_()),
        ("engine", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """The raw attribution of one sample. N prompt tokens, M response tokens.

    Args:
        key: content key, see :func:`row_key`.
        input_ids: [total] exact ids fed, template included; the last M are the response.
        prompt_index: [N] positions of the user's prompt tokens in ``input_ids``.
        gradient: [N, M] ``<d f(y_m) / d E[x_n], E[x_n]>`` with f = log p, which does not underflow, or another
            target of :mod:`shiftlens.attribution.targets`; [N + M, M] where response tokens are sources too.
        log_probability: [M] log p(y_m), nats.
        rank: [M] place of y_m among all tokens by probability; 1 is the model's first choice (in half
            precision generation can round to another).
        response: the response as text.
        finished: whether the model ended the response itself.
        engine: the engine that explained it.
    """

    key: str
    input_ids: Int[np.ndarray, " total"]
    prompt_index: Int[np.ndarray, " prompt"]
    gradient: Float[np.ndarray, "sources response"]
    log_probability: Float[np.ndarray, " response"]
    rank: Int[np.ndarray, " response"]
    response: str
    finished: bool
    engine: str

    @property
    def probability(self) -> Float[np.ndarray, " response"]:
        """[M] p(y_m)."""
        return np.exp(self.log_probability)

    def importance(self, target: str = "probability") -> Float[np.ndarray, "sources response"]:
        """Raw importance I, float32 (paper, section 3.1), in the shape of ``gradient``.

        Args:
            target: what was asked for; with ``probability`` the stored gradient of log p is multiplied by p.
        """
        return self.gradient * self.probability if target == "probability" else self.gradient

    @property
    def response_ids(self) -> Int[np.ndarray, " response"]:
        """[M] ids of the response."""
        return self.input_ids[len(self.input_ids) - len(self.log_probability) :]


def row_key(
    identity: Identity,
    input_ids: Sequence[int],
    prompt_index: Sequence[int],
    response: Any,
    settings: dict[str, Any],
) -> str:
    """The content key of a sample: everything its numbers depend on.

    Args:
        identity: the model.
        input_ids: [prompt total] ids fed before the response.
        prompt_index: positions of the user's tokens.
        response: given response ids, or how one is generated.
        settings: attribution settings that change numbers.

    Example:
        >>> model = Identity("m", "f00", "", "float32")
        >>> a = row_key(model, [1, 2], [1], {"max_new_tokens": 5}, {})
        >>> a == row_key(model, [1, 2], [1], {"max_new_tokens": 6}, {})
        False
    """
    ids = {"fed": list(input_ids), "prompt": list(prompt_index), "response": response}
    return digest({"model": identity.hash, **ids, "settings": settings, "version": ATTRIBUTION_VERSION})


class Ledger:
    """Rows of one model in a folder of shards. Safe for several writers and readers at once.

    Args:
        root: folder of all ledgers.
        identity: the model whose rows these are.
    """

    def __init__(self, root: str | Path, identity: Identity) -> None:
        self.folder = Path(root).expanduser() / identity.hash
        self.folder.mkdir(parents=True, exist_ok=True)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys that have no row yet, in the order given, each once."""
        have: set[str] = set()
        for table in self._tables(["key"]):
            have.update(table["key"].to_pylist())
        return [key for key in dict.fromkeys(keys) if key not in have]

    def read(self, keys: Iterable[str]) -> dict[str, Row]:
        """Rows by key; keys without a row are absent."""
        wanted = set(keys)
        rows: dict[str, Row] = {}
        for table in self._tables(None, wanted):
            rows.update((record["key"], _row(record)) for record in table.to_pylist())
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one new shard; on return they are on disk.

        Raises:
            OSError: the disk is full or the folder cannot be written; nothing half-written remains visible.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([_record(row) for row in rows], schema=_SCHEMA)
        target = self.folder / f"{uuid.uuid4().hex}.parquet"
        partial = target.with_suffix(".part")
        try:
            with partial.open("wb") as stream:
                pq.write_table(table, stream, compression="zstd")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must survive a power cut
        finally:
            os.close(folder)

    def _tables(self, columns: list[str] | None, keys: set[str] | None = None) -> Iterable[pa.Table]:
        only = [("key", "in", keys)] if keys is not None else None
        for shard in sorted(self.folder.glob("*.parquet")):
            try:
                yield pq.read_table(shard, columns=columns, filters=only)
            except (pa.ArrowInvalid, OSError) as error:
                # Its samples are simply missing and are computed again.
                log.warning("%s cannot be read and is left out: %s", shard, error)


def _record(row: Row) -> dict[str, Any]:
    return {**vars(row), "gradient": np.ascontiguousarray(row.gradient, np.float32).ravel()}


def _row(record: dict[str, Any]) -> Row:
    prompt_index = np.asarray(record["prompt_index"], np.int32)
    log_probability = np.asarray(record["log_probability"], np.float32)
    # An empty response has no gradient from which the number of sources could be read.
    sources = len(record["gradient"]) // len(log_probability) if len(log_probability) else len(prompt_index)
    gradient = np.asarray(record["gradient"], np.float32).reshape(sources, len(log_probability))
    return Row(
        key=record["key"],
        input_ids=np.asarray(record["input_ids"], np.int32),
        prompt_index=prompt_index,
        gradient=gradient,
        log_probability=log_probability,
        rank=np.asarray(record["rank"], np.int32),
        response=record["response"],
        finished=record["finished"],
        engine=record["engine"],
    )

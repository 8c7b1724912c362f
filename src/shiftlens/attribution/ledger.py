"""Keeps raw attributions on disk by content, so that the model is needed only once.

Rows lie in Parquet shards, one folder per model. Each writer makes shards of its own, written whole and synced: a
reader never sees half a shard, and a killed run loses only what was not yet flushed. The name of a shard ends in
the SHA-256 of its bytes, its pages carry checksums, and each row is compared with what was asked; what does not
hold is missing, and is computed again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from shiftlens.attribution.request import Request
from shiftlens.models.identity import Identity, digest
from shiftlens.support.whole_files import write_whole

log = logging.getLogger(__name__)

ATTRIBUTION_VERSION = 2
"""Raised whenever the numbers an attribution gives could change; old rows are then misses."""

DAMAGED = "damaged"
"""Folder within that of a model for shards that were set aside."""

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
        ("method", pa.string()),
        ("unit", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """The raw attribution of one sample. N prompt tokens, M response tokens.

    Args:
        key: content key, see :func:`row_key`.
        input_ids: [total] exact ids fed, template included; the last M are the response.
        prompt_index: [N] positions of the user's prompt tokens in ``input_ids``.
        values: [N, M] Attribution of each source to each response token, by ``method``. For the target probability
            it is importance divided by p(y_m), which does not underflow (for the gradient, that of log p); for
            other targets of :mod:`shiftlens.attribution.targets` the importance itself. [N + M, M] where response
            tokens are sources too.
        log_probability: [M] log p(y_m), nats.
        rank: [M] place of y_m among all tokens by probability; 1 is the model's first choice (in half
            precision generation can round to another).
        response: the response as text.
        finished: whether the model ended the response itself.
        engine: Mode of the engine that explained it.
        method: Name of the method of attribution.
        unit: What one source is: ``token``.
    """

    key: str
    input_ids: Int[np.ndarray, " total"]
    prompt_index: Int[np.ndarray, " prompt"]
    values: Float[np.ndarray, "sources response"]
    log_probability: Float[np.ndarray, " response"]
    rank: Int[np.ndarray, " response"]
    response: str
    finished: bool
    engine: str
    method: str = "gradient"
    unit: str = "token"

    @property
    def probability(self) -> Float[np.ndarray, " response"]:
        """[M] p(y_m)."""
        return np.exp(self.log_probability)

    def importance(self, target: str = "probability") -> Float[np.ndarray, "sources response"]:
        """Raw importance I, float32 (paper, section 3.1), in the shape of ``values``.

        Args:
            target: what was asked for; with ``probability`` the stored values are multiplied by p.
        """
        return self.values * self.probability if target == "probability" else self.values

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
        root: Folder of all ledgers.
        identity: Model whose rows these are.
    """

    def __init__(self, root: str | Path, identity: Identity) -> None:
        self.folder = Path(root).expanduser() / identity.hash
        self.folder.mkdir(parents=True, exist_ok=True)
        self._asked: set[str] = set()
        self._scanned: set[Path] = set()
        self._rows: dict[str, Row] = {}

    def missing(self, wanted: Iterable[str] | Mapping[str, Request]) -> list[str]:
        """The keys that have no sound row yet, in the order given, each once.

        Args:
            wanted: Keys, or key -> the request that a row has to answer.
        """
        rows = self.read(wanted)
        return [key for key in dict.fromkeys(wanted) if key not in rows]

    def read(self, wanted: Iterable[str] | Mapping[str, Request]) -> dict[str, Row]:
        """Rows by key; keys without a sound row are absent.

        A row is sound if it lies in an undamaged shard, its arrays fit each other and are finite, and, where the
        request is given, it answers that request.

        Args:
            wanted: Keys, or key -> the request that a row has to answer.
        """
        requests: Mapping[str, Request] = wanted if isinstance(wanted, Mapping) else {}
        keys = list(dict.fromkeys(wanted))
        if not self._asked.issuperset(keys):
            self._asked.update(keys)
            self._scanned.clear()
        shards = sorted(self.folder.glob("*.parquet"))
        for shard in shards:
            if shard not in self._scanned:
                self._rows |= {key: row for key, row in self._shard(shard) if key not in self._rows}
                self._scanned.add(shard)
        have = {key: self._rows[key] for key in keys if key in self._rows}
        return {key: row for key, row in have.items() if key not in requests or answers(row, requests[key])}

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one new shard; on return they are on disk.

        Raises:
            OSError: The disk is full or the folder cannot be written; nothing half-written remains visible.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([_record(row) for row in rows], schema=_SCHEMA)
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
        data = stream.getvalue()
        name = f"{uuid.uuid4().hex[:16]}-{_digest(data)}.parquet"
        write_whole(self.folder / name, lambda partial: partial.write_bytes(data))

    def _shard(self, shard: Path) -> Iterator[tuple[str, Row]]:
        """Sound rows of a shard among those asked for; a damaged shard is set aside."""
        try:
            data = shard.read_bytes()
        except FileNotFoundError:  # another reader has set it aside
            return
        except OSError as error:
            log.warning("%s cannot be read and is left out: %s", shard, error)
            return
        _, dash, expected = shard.stem.partition("-")
        try:
            if dash and _digest(data) != expected:
                raise pa.ArrowInvalid("its bytes are not those that were written")
            table = pq.read_table(
                io.BytesIO(data), filters=[("key", "in", self._asked)], page_checksum_verification=True
            )
            records = table.to_pylist()
        except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError) as error:
            self._set_aside(shard, error)
            return
        for record in records:
            row = _row(record)
            if row is not None:
                yield row.key, row

    def _set_aside(self, shard: Path, error: Exception) -> None:
        aside = self.folder / DAMAGED / shard.name
        try:
            aside.parent.mkdir(exist_ok=True)
            shard.replace(aside)
        except FileNotFoundError:  # another reader was faster
            return
        except OSError:  # a folder that cannot be written: left where it is
            aside = shard
        log.warning(
            "%s is damaged (%s) and is set aside as %s; its samples are computed again", shard.name, error, aside
        )


def answers(row: Row, request: Request) -> bool:
    """Whether a row answers a request: ids fed, given response, positions, shape, method.

    Args:
        row: Row with the request's key.
        request: Request that was made.
    """
    fed, response = row.input_ids.tolist(), row.response_ids.tolist()
    sources = len(request.prompt_index) + (len(response) if request.include_response else 0)
    return (
        fed[: len(fed) - len(response)] == list(request.input_ids)
        and row.prompt_index.tolist() == list(request.prompt_index)
        and (request.response_ids is None or response == list(request.response_ids))
        and (request.response_ids is not None or len(response) <= request.max_new_tokens)
        and row.values.shape == (sources, len(response))
        and row.method == request.method.name
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _record(row: Row) -> dict[str, Any]:
    # The column of the values keeps its first name, so that old and new shards are read alike.
    values = {name: value for name, value in vars(row).items() if name != "values"}
    return {**values, "gradient": np.ascontiguousarray(row.values, np.float32).ravel()}


def _row(record: dict[str, Any]) -> Row | None:
    """The row of a record; ``None`` where its arrays do not fit each other or are not finite."""
    lists = [record.get(name) for name in ("input_ids", "prompt_index", "gradient", "log_probability", "rank")]
    texts = [record.get(name) for name in ("key", "response", "engine")]
    whole = (
        all(isinstance(text, str) for text in texts)
        and all(numbers is not None and None not in numbers for numbers in lists)
        and isinstance(record.get("finished"), bool)
    )
    if not whole:
        return None
    prompt_index = np.asarray(record["prompt_index"], np.int32)
    log_probability = np.asarray(record["log_probability"], np.float32)
    flat, rank = np.asarray(record["gradient"], np.float32), np.asarray(record["rank"], np.int32)
    response = len(log_probability)
    # An empty response has no values from which the number of sources could be read.
    sources = len(flat) // response if response else len(prompt_index)
    sound = (
        len(flat) == sources * response
        and len(rank) == response
        and len(record["input_ids"]) >= response
        and bool(np.isfinite(flat).all() and np.isfinite(log_probability).all())
    )
    if not sound:
        return None
    # Rows of earlier versions name no method: those of ablation name it as their engine.
    usual = "ablation" if record["engine"] == "ablation" else "gradient"
    return Row(
        key=record["key"],
        input_ids=np.asarray(record["input_ids"], np.int32),
        prompt_index=prompt_index,
        values=flat.reshape(sources, response),
        log_probability=log_probability,
        rank=rank,
        response=record["response"],
        finished=record["finished"],
        engine=record["engine"],
        method=record.get("method") or usual,
        unit=record.get("unit") or "token",
    )

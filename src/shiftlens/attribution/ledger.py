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
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shiftlens.attribution.request import Request
from shiftlens.attribution.row import SCHEMA, Row, answers, from_record, to_record
from shiftlens.models.identity import Identity
from shiftlens.support.whole_files import write_whole

log = logging.getLogger(__name__)

DAMAGED = "damaged"
"""Folder within that of a model for shards that were set aside."""
_TOLD: set[Path] = set()
"""Damaged shards that were reported and could not be moved."""


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
        self._rows: dict[str, list[Row]] = {}

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
            self._rows.clear()
        shards = sorted(self.folder.glob("*.parquet"))
        for shard in shards:
            if shard not in self._scanned:
                for row in self._shard(shard):
                    self._rows.setdefault(row.key, []).append(row)
                self._scanned.add(shard)
        # A row that does not answer must not hide one of the same key, computed in its place, that does.
        sound = ((key, self._first(key, requests.get(key))) for key in keys)
        return {key: row for key, row in sound if row is not None}

    def _first(self, key: str, request: Request | None) -> Row | None:
        rows = self._rows.get(key, [])
        return next((row for row in rows if request is None or answers(row, request)), None)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one new shard; on return they are on disk.

        Raises:
            OSError: The disk is full or the folder cannot be written; nothing half-written remains visible.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([to_record(row) for row in rows], schema=SCHEMA)
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
        data = stream.getvalue()
        name = f"{uuid.uuid4().hex[:16]}-{_digest(data)}.parquet"
        write_whole(self.folder / name, lambda partial: partial.write_bytes(data))

    def _shard(self, shard: Path) -> Iterator[Row]:
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
            # Not by pq.read_table: with filters it waits for ever where the type of a column is damaged.
            table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
            asked = pc.is_in(table["key"], pa.array(sorted(self._asked), pa.string()))
            rows = [from_record(record) for record in table.filter(asked).to_pylist()]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            self._set_aside(shard, error)
            return
        yield from (row for row in rows if row is not None)

    def _set_aside(self, shard: Path, error: Exception) -> None:
        aside = self.folder / DAMAGED / shard.name
        try:
            aside.parent.mkdir(exist_ok=True)
            shard.replace(aside)
        except FileNotFoundError:  # another reader was faster
            return
        except OSError:  # a folder that cannot be written
            if shard not in _TOLD:
                _TOLD.add(shard)
                log.warning("%s is damaged (%s) and is left out; its samples are computed again", shard, error)
            return
        log.warning(
            "%s is damaged (%s) and is set aside as %s; its samples are computed again", shard.name, error, aside
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]

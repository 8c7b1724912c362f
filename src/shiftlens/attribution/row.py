"""Defines a row of the ledger: the attribution of one sample, its key, and its form in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from shiftlens.attribution.request import Request
from shiftlens.models.identity import Identity, digest

ATTRIBUTION_VERSION = 2
"""Raised whenever the numbers an attribution gives could change; old rows are then misses."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("prompt_index", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
        ("log_probability", pa.list_(pa.float32())),
        ("rank", pa.list_(pa.int32())),
        ("response", pa.string()),
        ("finished", pa.bool_()),
        ("engine", pa.string()),
        ("method", pa.string()),
        ("unit", pa.string()),
        ("form", pa.string()),
        ("target", pa.string()),
        ("outside", pa.list_(pa.int32())),
        ("unit_of", pa.list_(pa.int32())),
        ("residual", pa.list_(pa.float32())),
        ("choice", pa.list_(pa.int32())),
    ]
)
"""Columns of a shard."""


@dataclass(frozen=True)
class Row:
    """The raw attribution of one sample. N prompt tokens, M response tokens.

    Args:
        key: content key, see :func:`row_key`.
        input_ids: [total] exact ids fed, template included; the last M are the response.
        prompt_index: [N] positions of the user's prompt tokens in ``input_ids``.
        values: [sources, M] Attribution of each source to each response token, by ``method``, in the form
            ``form``. Sources are the N tokens of the prompt or their units, then, where asked for, T tokens
            outside the user's text, then the M response tokens.
        log_probability: [M] log p(y_m), nats.
        rank: [M] place of y_m among all tokens by probability; 1 is the model's first choice (in half
            precision generation can round to another).
        response: the response as text.
        finished: whether the model ended the response itself.
        engine: Mode of the engine that explained it.
        method: Name of the method of attribution.
        unit: What one source of the prompt is: ``token``, ``word``, ``sentence`` or ``region``; ``set`` where the
            request gave sets.
        form: What ``values`` are where the target is a probability, see
            :attr:`~shiftlens.attribution.methods.method.Method.form`.
        target: What was explained, one of :data:`~shiftlens.attribution.targets.TARGETS`; rows of methods whose
            ``shares`` is true may be read for log_probability as well.
        outside: [T] positions of the tokens outside the user's text in ``input_ids``; ``None`` without any.
        unit_of: [N] unit of each prompt token; ``None`` for tokens.
        residual: [M] what the sources together miss of the difference that the method divides up; ``None`` for
            methods that divide up none.
        choice: [M] id of the model's first choice in the place of y_m; ``None`` where it was not kept.
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
    form: str = "ratio"
    target: str = "probability"
    outside: Int[np.ndarray, " outside"] | None = None
    unit_of: Int[np.ndarray, " prompt"] | None = None
    residual: Float[np.ndarray, " response"] | None = None
    choice: Int[np.ndarray, " response"] | None = None

    @property
    def probability(self) -> Float[np.ndarray, " response"]:
        """[M] p(y_m)."""
        return np.exp(self.log_probability)

    def relative(self) -> Float[np.ndarray, "sources response"]:
        """Importance up to one positive factor per response token, in the shape of ``values``; does not underflow.

        For the target probability it is I / p(y), else I. Scores are the same for both.
        """
        if self.target == "probability" and self.form == "loss":
            # 1 - p'/p without cancellation; where p is next to nothing, p'/p need not fit in float32.
            with np.errstate(over="ignore"):
                ratio = np.expm1(-self.values.astype(np.float64))
            return -np.minimum(ratio, np.finfo(np.float32).max).astype(np.float32)
        return self.values

    def importance(self) -> Float[np.ndarray, "sources response"]:
        """Raw importance I, float32 (paper, section 3.1), in the shape of ``values``."""
        return self.relative() * self.probability if self.target == "probability" else self.values

    def by_token(self) -> Float[np.ndarray, "sources response"]:
        """:meth:`relative` importance of the prompt's tokens; the tokens of a unit share its importance equally.

        Returns:
            [N, M], or [N + M, M] where response tokens are sources too; without tokens outside the user's text.
        """
        return self._spread(self.relative())

    def logarithmic(self) -> Float[np.ndarray, "sources response"]:
        """Return the importance of every token for log p(y) in nats, or for the target logit_difference in logits.

        For methods whose values are of log p(y), see
        :meth:`~shiftlens.attribution.methods.method.Method.logarithmic`; tokens of a unit share its importance.

        Returns:
            [N, M], or [N + M, M] where response tokens are sources too; without tokens outside the user's text.
        """
        return self._spread(self.values)

    def _spread(self, values: Float[np.ndarray, "sources response"]) -> Float[np.ndarray, "tokens response"]:
        values = np.delete(values, self._outside_rows, axis=0)
        if self.unit_of is None:
            return values
        units = int(self.unit_of.max(initial=-1)) + 1
        sizes = np.bincount(self.unit_of, minlength=units)
        spread = (values[:units] / sizes[:, None])[self.unit_of].astype(np.float32)
        return np.concatenate([spread, values[units:]])

    def beside(self) -> Float[np.ndarray, "outside response"]:
        """[T, M] :meth:`relative` importance of the tokens outside the user's text."""
        return self.relative()[self._outside_rows]

    @property
    def _outside_rows(self) -> slice:
        units = len(self.prompt_index) if self.unit_of is None else int(self.unit_of.max(initial=-1)) + 1
        return slice(units, units + (0 if self.outside is None else len(self.outside)))

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


def answers(row: Row, request: Request) -> bool:
    """Whether a row answers a request: ids fed, given response, positions, shape, method, unit, target.

    A request without sources only reads the response, and is answered by a row that has the model's choices.

    Args:
        row: Row with the request's key.
        request: Request that was made.
    """
    fed, response = row.input_ids.tolist(), row.response_ids.tolist()
    units = request.units if request.method.jointly else None
    if units is not None and units.used(len(response)):
        unit, of, sources = units.name, list(units.of), max(units.of, default=-1) + 1
    elif request.sets is not None:
        unit, of, sources = "set", None, len(request.sets)
    else:
        unit, of, sources = "token", None, len(request.prompt_index)
    sources += len(request.outside) + (len(response) if request.include_response else 0)
    return (
        fed[: len(fed) - len(response)] == list(request.input_ids)
        and row.prompt_index.tolist() == list(request.prompt_index)
        and (request.response_ids is None or response == list(request.response_ids))
        and (request.response_ids is not None or len(response) <= request.max_new_tokens)
        and row.values.shape == (sources, len(response))
        and row.method == request.method.name
        and tuple([] if row.outside is None else row.outside.tolist()) == request.outside
        and row.unit == unit
        and (request.foils is None or row.target == "logit_difference")
        and (row.choice is not None or bool(request.prompt_index))
        and (None if row.unit_of is None else row.unit_of.tolist()) == of
    )


def to_record(row: Row) -> dict[str, Any]:
    """The values of a row by column."""
    return {**vars(row), "values": np.ascontiguousarray(row.values, np.float32).ravel()}


def from_record(record: dict[str, Any]) -> Row | None:
    """The row of a record; ``None`` where its arrays do not fit each other or are not finite."""
    # Shards of earlier versions call the values of every method gradient.
    numbers = record.get("values") if record.get("values") is not None else record.get("gradient")
    lists = [numbers, *(record.get(name) for name in ("input_ids", "prompt_index", "log_probability", "rank"))]
    texts = [record.get(name) for name in ("key", "response", "engine")]
    whole = (
        all(isinstance(text, str) for text in texts)
        and all(some is not None and None not in some for some in lists)
        and isinstance(record.get("finished"), bool)
    )
    if not whole:
        return None
    prompt_index = np.asarray(record["prompt_index"], np.int32)
    log_probability = np.asarray(record["log_probability"], np.float32)
    flat, rank = np.asarray(numbers, np.float32), np.asarray(record["rank"], np.int32)
    response = len(log_probability)
    unit_of, residual, choice = record.get("unit_of"), record.get("residual"), record.get("choice")
    outside = record.get("outside")
    units = len(prompt_index) if unit_of is None else max(unit_of, default=-1) + 1
    units += len(outside or ())
    # An empty response has no values from which the number of sources could be read.
    sources = len(flat) // response if response else units
    sound = (
        len(flat) == sources * response
        and (unit_of is None or len(unit_of) == len(prompt_index))
        and (residual is None or len(residual) == response)
        and (choice is None or len(choice) == response)
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
        form=record.get("form") or "ratio",
        target=record.get("target") or "probability",
        outside=None if outside is None else np.asarray(outside, np.int32),
        unit_of=None if unit_of is None else np.asarray(unit_of, np.int32),
        residual=None if residual is None else np.asarray(residual, np.float32),
        choice=None if choice is None else np.asarray(choice, np.int32),
    )

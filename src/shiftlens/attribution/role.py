"""One model of a pair made ready to explain, and the requests that it can be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from shiftlens.attribution.engine import Engine
from shiftlens.attribution.methods import Gradient, Method
from shiftlens.attribution.request import Request
from shiftlens.attribution.row import Row, row_key
from shiftlens.models.identity import Identity
from shiftlens.models.pair import Layers, RoleSpec
from shiftlens.prompts.encode import Encoded

Rows = Mapping[str, Mapping[str, Row]]
"""Role -> key -> row, as far as they are known."""


@dataclass(frozen=True)
class Role:
    """One role made ready: everything but its weights in memory.

    Args:
        spec: how it is loaded.
        layers: its folders.
        identity: who it is, by content.
        tokenizer: its tokenizer.
        template: how prompts are wrapped.
        context: most tokens that the model reads; ``None`` if not known.
        engine: How responses are explained.
        encoded: the prompts, in the order of the other role.
        requests: each prompt with the role's own response, or the one that it brings.
        methods: Methods of the run; the first one is that of ``requests``.
    """

    spec: RoleSpec
    layers: Layers
    identity: Identity
    tokenizer: PreTrainedTokenizerBase
    template: str
    context: int | None
    engine: Engine
    encoded: tuple[Encoded, ...]
    requests: tuple[Request, ...]
    methods: tuple[Method, ...] = (Gradient(),)


def given(request: Request, reader: Role, row: Row, writer: Role) -> Request:
    """Build the request in which ``reader`` explains the response that ``writer`` gave (``row``).

    The response goes over token by token where its ids mean the same to both tokenizers; otherwise its text is
    tokenized anew for the reader, and cut where the reader's context ends.

    Args:
        request: the reader's request of the same prompt.
        reader: who explains.
        row: the row with the response.
        writer: whose row it is.
    """
    ids = row.response_ids.tolist()
    if reader.tokenizer.convert_ids_to_tokens(ids) != writer.tokenizer.convert_ids_to_tokens(ids):
        room = None if reader.context is None else max(reader.context - len(request.input_ids), 0)
        ids = reader.tokenizer(row.response, add_special_tokens=False)["input_ids"][:room]
    return keyed(replace(request, response_ids=tuple(ids)), reader)


def reading(roles: Mapping[str, Role], rows: Rows, reader: str, writer: str) -> list[Request]:
    """Build the requests in which ``reader`` explains ``writer``'s responses, in prompt order.

    Args:
        roles: both roles.
        rows: what is known.
        reader: who explains.
        writer: whose responses; for the reader's own ones they need not be known.

    Returns:
        One request for each prompt; none while another's responses are not known.
    """
    own = roles[reader].requests
    if reader == writer:
        return list(own)
    written = [rows[writer].get(request.key) for request in roles[writer].requests]
    pairs = [(request, row) for request, row in zip(own, written, strict=True) if row is not None]
    if len(pairs) < len(own):
        return []
    return [given(request, roles[reader], row, roles[writer]) for request, row in pairs]


def by_method(requests: Sequence[Request], role: Role, rows: Mapping[str, Row], method: Method) -> list[Request]:
    """Build the requests that explain known responses by another method.

    Args:
        requests: Requests of the role, by its headline method.
        role: Who explains.
        rows: The role's rows that are known.
        method: The other method.

    Returns:
        One request for each given one, in order; none while a response is not known.
    """
    if any(request.key not in rows for request in requests):
        return []
    if requests and requests[0].method == method:
        return list(requests)
    texts = [given(request, role, rows[request.key], role) for request in requests]
    return [keyed(replace(request, method=method), role) for request in texts]


def reading_only(request: Request, role: Role) -> Request:
    """Build the request that only reads a response: one forward pass, for log p, ranks and the model's choices.

    Args:
        request: Request of the response.
        role: Who reads.
    """
    # Without source tokens, every method runs only the forward pass.
    plain = replace(request, prompt_index=(), include_response=False, units=None, foils=None, method=Gradient())
    return keyed(plain, role)


def in_float32(role: Role) -> Role:
    """The same role, loaded in float32."""
    spec = replace(role.spec, dtype="float32")
    return replace(role, spec=spec, identity=replace(role.identity, dtype="float32"))


def keyed(request: Request, role: Role) -> Request:
    """Give a request the key that its content, the model, the engine and the method make.

    Args:
        request: Request with any key.
        role: Model that explains it.
    """
    own: Any = {"greedy": request.max_new_tokens, "stops": list(request.stops)}
    engine = request.target_of(role.engine)
    settings: dict[str, Any] = {**engine.identity(), **_of_method(request.method)}
    if not request.method.shares:
        settings["target"] = engine.target
    if request.units is not None and request.method.jointly:
        settings["units"] = dataclasses.asdict(request.units)
    if request.sets is not None:
        settings["sets"] = [list(places) for places in request.sets]
    if request.outside:
        settings["outside"] = list(request.outside)
    if request.include_response:
        settings["include_response"] = True
    response = own if request.response_ids is None else list(request.response_ids)
    return replace(
        request, key=row_key(role.identity, request.input_ids, request.prompt_index, response, settings)
    )


def _of_method(method: Method) -> dict[str, Any]:
    """What tells rows of a method from those of others, whatever its ``identity()`` is called and returns."""
    if type(method) is Gradient:  # stored before there were other methods
        return method.identity()
    return {"method": {"name": method.name, "settings": method.identity()}}

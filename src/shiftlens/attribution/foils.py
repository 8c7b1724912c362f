"""Names the requests of a run, also where each response token is contrasted with the other model's choice.

The other model's choice at a response token is its most probable token there, given the same text. So both models
read every response first, by one forward pass without derivatives; then it is explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from shiftlens.attribution.request import Request
from shiftlens.attribution.role import Role, Rows, keyed, reading, reading_only
from shiftlens.models.roles import ROLES

FOILS = ("runner_up", "other_model")
"""What a response token can be contrasted with: the strongest other token, or the other model's choice; or any
text, which stands for its first token."""


def first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the id of the first token of a text; ``None`` where the text has no token.

    Args:
        tokenizer: Tokenizer of the model that is explained.
        text: The text; a leading space counts.
    """
    return next(iter(tokenizer(text, add_special_tokens=False)["input_ids"]), None)


@dataclass(frozen=True)
class Asked:
    """The requests of a run: which model explains which responses, contrasted with what.

    Args:
        roles: Both roles.
        by_other: Whether each response token is contrasted with the other model's choice.
        writers: Roles whose responses are explained.
    """

    roles: Mapping[str, Role]
    by_other: bool
    writers: Sequence[str] = ROLES

    @cached_property
    def _readers(self) -> dict[str, Role]:
        return {
            name: replace(role, requests=tuple(reading_only(each, role) for each in role.requests))
            for name, role in self.roles.items()
        }

    def written(self, rows: Rows, writer: str) -> list[Request]:
        """Return the requests whose rows hold a role's own responses first, in prompt order.

        Args:
            rows: The rows that are known.
            writer: Name of the role.
        """
        return reading(self._readers if self.by_other else self.roles, rows, writer, writer)

    def first(self, rows: Rows, name: str) -> list[Request]:
        """Return what a role has to read before responses can be explained.

        Args:
            rows: The rows that are known.
            name: Name of the role.
        """
        if not self.by_other:
            return []
        return [request for writer in self.writers for request in reading(self._readers, rows, name, writer)]

    def explained(self, rows: Rows, reader: str, writer: str) -> list[Request]:
        """Return the requests in which a role explains a role's responses by the headline method, in prompt order.

        A response token is contrasted with the strongest other token where both models choose it, where the reader
        has no token for the other model's choice, and where the other model cuts the response into other tokens.

        Args:
            rows: The rows that are known.
            reader: Name of the role that explains.
            writer: Name of the role whose responses are explained.

        Returns:
            One request for each prompt; none while a response or the other model's choices are not known.
        """
        if not self.by_other:
            return reading(self.roles, rows, reader, writer)
        other = next(name for name in ROLES if name != reader)
        mine, theirs = (
            [rows[name].get(each.key) for each in reading(self._readers, rows, name, writer)]
            for name in (reader, other)
        )
        role, requests = self.roles[reader], []
        for request, row, choices in zip(role.requests, mine, theirs, strict=False):
            if row is None or choices is None or choices.choice is None:
                return []
            ids = row.response_ids.tolist()
            same = _pieces(role, ids) == _pieces(self.roles[other], choices.response_ids.tolist())
            chosen = _pieces(self.roles[other], choices.choice.tolist()) if same else [None] * len(ids)
            known = role.tokenizer.get_vocab()
            # The response token itself stands for the strongest other one.
            foils = tuple(known.get(piece, own) for piece, own in zip(chosen, ids, strict=True))
            requests.append(keyed(replace(request, response_ids=tuple(ids), foils=foils), role))
        return requests


def _pieces(role: Role, ids: list[int]) -> list[str | None]:
    pieces: list[str | None] = role.tokenizer.convert_ids_to_tokens(ids)
    return pieces

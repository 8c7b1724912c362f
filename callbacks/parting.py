"""Explains, in both models, the first token at which their own responses part ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from shiftlens.analyses.parting.compute import Parting as Part
from shiftlens.analyses.parting.compute import parting_at
from shiftlens.analyses.parting.section import parting_section
from shiftlens.attribution import Request
from shiftlens.attribution.role import Role, Rows, keyed, reading_only
from shiftlens.callbacks.base import RowView
from shiftlens.models.roles import ROLES
from shiftlens.prompts.encode import token_texts
from shiftlens.results.method_agreement import Named
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import SEED, Rule, refuse, setting_problems

GIVEN = "with a given response"
OTHER_TOKENS = "that the two tokenizers cut differently"
SAME = "with identical responses"
ENDED = "where one response is the beginning of the other"


class Parting(RowView):
    """Measures what pushes each model towards the tuned model's token where the greedy responses part ways.

    The definition is in :mod:`shiftlens.analyses.parting.compute`. A prompt costs each model the explanation of
    one token by every method of the run, and one forward pass. Prompts whose responses do not part are left out,
    and counted.

    Args:
        seed: Random seed for the bootstrap intervals.

    Raises:
        ConfigError: The seed cannot be used.
    """

    rules: ClassVar[Mapping[str, Rule]] = {"seed": SEED}

    def __init__(self, seed: int = 0) -> None:
        refuse(setting_problems({"seed": seed}, self.rules, "callbacks.parting."))
        self.seed = seed

    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """Return requests for the role's own responses; once both are known, for the tokens at which they part."""
        role = roles[name]
        if any(request.key not in rows[each] for each in ROLES for request in roles[each].requests):
            return list(role.requests)
        asked = []
        for i in range(len(role.requests)):
            place = _place(i, roles, rows)
            if isinstance(place, int):
                asked += [*_explained(i, place, name, roles, rows), _read(i, place, name, roles, rows)]
        return asked

    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Return the section with the tables ``parting`` and ``parting_regions`` and their findings."""
        left_out: Counter[str] = Counter()
        found: dict[str, list[Part]] = {name: [] for name in ROLES}
        methods = roles["tuned"].methods
        for i in range(len(roles["tuned"].requests)):
            place = _place(i, roles, rows)
            if isinstance(place, str):
                left_out[place] += 1
                continue
            for name in ROLES:
                role = roles[name]
                explained = {
                    method.label: rows[name][request.key]
                    for method, request in zip(methods, _explained(i, place, name, roles, rows), strict=True)
                }
                other = rows[name][_read(i, place, name, roles, rows).key]
                row = explained[methods[0].label]
                base, tuned = token_texts(role.tokenizer, [int(other.response_ids[0]), int(row.response_ids[0])])
                contrast = float(row.log_probability[0] - other.log_probability[0])
                found[name].append(Part(role.encoded[i], place, tuned, base, contrast, explained))
        named = [Named(method.label, method.words, method.exact) for method in methods]
        return parting_section(found, named, left_out, self.seed)


def _place(i: int, roles: Mapping[str, Role], rows: Rows) -> int | str:
    """Return where the responses to prompt i part, or why they do not."""
    requests = [roles[name].requests[i] for name in ROLES]
    base, tuned = (rows[name][each.key].response_ids.tolist() for name, each in zip(ROLES, requests, strict=True))
    pieces = [roles[name].tokenizer.convert_ids_to_tokens([*base, *tuned]) for name in ROLES]
    if any(request.response_ids is not None for request in requests):
        return GIVEN
    if pieces[0] != pieces[1]:
        return OTHER_TOKENS
    place = parting_at(base, tuned)
    if place is None:
        return SAME if base == tuned else ENDED
    return place


def _explained(i: int, place: int, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
    """Build the requests that explain, by every method, the tuned model's token against the base model's."""
    base, tuned = (rows[each][roles[each].requests[i].key].response_ids.tolist() for each in ROLES)
    request = roles[name].requests[i]
    units = request.units if request.units is not None and request.units.always else None
    contrast = replace(
        request, input_ids=(*request.input_ids, *tuned[:place]), response_ids=(tuned[place],),
        foils=(base[place],), include_response=False, units=units,
    )  # fmt: skip
    return [keyed(replace(contrast, method=method), roles[name]) for method in roles[name].methods]


def _read(i: int, place: int, name: str, roles: Mapping[str, Role], rows: Rows) -> Request:
    """Build the request that reads the base model's token in the same place."""
    base = rows["base"][roles["base"].requests[i].key].response_ids.tolist()
    request = roles[name].requests[i]
    text = replace(request, input_ids=(*request.input_ids, *base[:place]), response_ids=(base[place],))
    return reading_only(text, roles[name])

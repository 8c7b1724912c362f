"""Feeds the tuned model's responses to the base model and records how the base model ranks each token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd

from shiftlens.analyses.token_shift.compute import instruction_share, shift_rows
from shiftlens.analyses.token_shift.section import token_shift_section
from shiftlens.attribution import Request
from shiftlens.attribution.role import Role, Rows, reading, reading_only
from shiftlens.callbacks.base import RowView
from shiftlens.prompts.encode import token_texts
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import SEED, Rule, refuse, setting_problems

_EMPTY = shift_rows("", "", [], np.zeros(0, np.int32), np.zeros(0))


class TokenShift(RowView):
    """Measures the token shift of the tuned model's own responses.

    The definition is in :mod:`shiftlens.analyses.token_shift.compute`. A response costs the base model one forward
    pass and no derivatives. A prompt is left out, and counted, if it has a given response, or if the base model's
    tokenizer splits the response into other tokens.

    Args:
        seed: Random seed for the bootstrap intervals.

    Raises:
        ConfigError: The seed cannot be used.
    """

    rules: ClassVar[Mapping[str, Rule]] = {"seed": SEED}

    def __init__(self, seed: int = 0) -> None:
        refuse(setting_problems({"seed": seed}, self.rules, "callbacks.token_shift."))
        self.seed = seed

    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """Return requests for the tuned model's own responses; once known, for the base model's ranks of them."""
        asked = reading(roles, rows, name, "tuned")
        if name == "tuned":
            return asked
        return [reading_only(request, roles[name]) for request in asked]

    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Return the section with the tables ``token_shift`` and ``token_shift_profile`` and their findings."""
        base, tuned = roles["base"], roles["tuned"]
        frames, left_out = [], {encoded.prompt.dataset: Counter[str]() for encoded in tuned.encoded}
        readers = self.requests("base", roles, rows)
        for encoded, own, reader in zip(tuned.encoded, tuned.requests, readers, strict=True):
            row, read = rows["tuned"][own.key], rows["base"][reader.key]
            ids = row.response_ids.tolist()
            if own.response_ids is not None:
                left_out[encoded.prompt.dataset]["with a given response"] += 1
            elif base.tokenizer.convert_ids_to_tokens(read.response_ids.tolist()) != (
                tuned.tokenizer.convert_ids_to_tokens(ids)
            ):
                left_out[encoded.prompt.dataset]["cut into other tokens by the base's tokenizer"] += 1
            else:
                share = instruction_share(row.by_token(), encoded.instruction)
                tokens = token_texts(tuned.tokenizer, ids)
                frames.append(shift_rows(encoded.prompt.id, encoded.prompt.dataset, tokens, read.rank, share))
        notes = {
            dataset: [f"left out: {count} {why}" for why, count in counts.items()]
            for dataset, counts in left_out.items()
        }
        table = pd.concat([_EMPTY, *frames], ignore_index=True)
        return token_shift_section(table, notes, self.seed)

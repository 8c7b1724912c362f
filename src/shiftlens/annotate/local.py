"""Annotates concepts with a causal language model on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shiftlens.annotate.annotation import CANNOT_TELL, Annotation, Concept
from shiftlens.annotate.annotator_prompt import question, read_answer
from shiftlens.annotate.answer_cache import AnswerCache
from shiftlens.attribution.generate import greedy
from shiftlens.models.loading import LM
from shiftlens.prompts.encode import encode
from shiftlens.prompts.schema import Prompt
from shiftlens.support.setting_rules import Number, Rule, setting_problems

RULES: Mapping[str, Rule] = {"max_new_tokens": Number(1), "batch_size": Number(1)}
"""Rules of the numeric keys of ``conf/annotator/local.yaml``."""


def problems(values: Mapping[str, Any]) -> list[str]:
    """Return a message for every invalid key of ``conf/annotator/local.yaml``.

    Args:
        values: Settings by name.
    """
    faults = [] if values.get("source") else ["annotator.source is missing: the model that annotates"]
    return faults + setting_problems(values, RULES, "annotator.")


class LocalAnnotator:
    """Annotator that prompts a loaded model with greedy decoding, so that the same model gives the same answers.

    An answer that cannot be parsed counts as "cannot tell"; repeating the prompt would give the same answer.

    Args:
        lm: Model from :func:`shiftlens.load`; use an instruction-tuned model of a few billion parameters or more.
        cache: Folder for stored answers.
        max_new_tokens: Largest number of tokens in an answer.
        batch_size: Number of concepts in one batch.
    """

    name = "local"

    def __init__(self, lm: LM, cache: Path, max_new_tokens: int = 80, batch_size: int = 8) -> None:
        self._lm, self._max_new_tokens, self._batch_size = lm, max_new_tokens, batch_size
        asked = {"model": lm.identity.hash, "template": lm.template, "max_new_tokens": max_new_tokens}
        self._cache = AnswerCache(cache, asked)

    def annotate(self, concepts: Sequence[Concept]) -> list[Annotation]:
        """Annotate concepts.

        Args:
            concepts: Concepts to annotate; the model is run only for those without a stored answer.

        Returns:
            One annotation per concept, in the same order.
        """
        answers = [self._cache.get(concept) for concept in concepts]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        for start in range(0, len(missing), self._batch_size):
            batch = missing[start : start + self._batch_size]
            texts = self._generate([question(concepts[i]) for i in batch])
            for i, text in zip(batch, texts, strict=True):
                answer = read_answer(text) or replace(CANNOT_TELL, note="no readable answer")
                self._cache.put(concepts[i], answer)
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def _generate(self, texts: Sequence[str]) -> list[str]:
        """Return the model's answer to each question."""
        lm = self._lm
        prompts = [Prompt("concept", text, ((0, len(text)),)) for text in texts]
        ids = [encode(prompt, lm.tokenizer, lm.template).input_ids for prompt in prompts]
        responses = greedy(lm.model, ids, self._max_new_tokens, lm.stops)
        return [lm.tokenizer.decode(response, skip_special_tokens=True) for response, _ in responses]

"""Matches the responses of two sources to the same prompts."""

from __future__ import annotations

from dataclasses import replace

from shiftlens.analyses.imported.imported_sample import Sample, Source
from shiftlens.errors import Problem, PromptError


def match(base: Source, tuned: Source, skip: bool = False) -> tuple[list[tuple[Sample, Sample]], list[Problem]]:
    """Pair the base and tuned responses to the same prompts, by data set and id.

    Args:
        base: Responses of the base model.
        tuned: Responses of the tuned model.
        skip: Whether prompts without a match are left out instead of raising an error.

    Returns:
        Pairs in the order of ``base``, and the problems of the prompts that are left out. If an id occurs in
        several data sets, every id gets its data set as a prefix, so that each id names one prompt.

    Raises:
        PromptError: Prompts have no match, or another text in the other source; the message lists all of them.
    """
    known = [{sample.key: sample for sample in source.samples} for source in (base, tuned)]
    problems = [
        Problem(sample.row, "id", f"{_named(sample)} is in the {source.role} scores only")
        for source, other in ((base, known[1]), (tuned, known[0]))
        for sample in source.samples
        if sample.key not in other
    ]
    pairs = []
    for sample in base.samples:
        partner = known[1].get(sample.key)
        if partner is None:
            continue
        if sample.told and partner.told and sample.prompt != partner.prompt:
            other_text = f"{_named(sample)} is another text in row {partner.row} of the tuned scores"
            problems.append(Problem(sample.row, "prompt", other_text))
        else:
            pairs.append((sample, partner))
    if problems and not (skip and pairs):
        raise PromptError(f"{base.path} and {tuned.path}", problems)
    ids = [sample.scored.id for sample, _ in pairs]
    if len(set(ids)) < len(ids):
        pairs = [(_full_id(sample), _full_id(partner)) for sample, partner in pairs]
    return pairs, problems


def _full_id(sample: Sample) -> Sample:
    return replace(sample, scored=replace(sample.scored, id="/".join(sample.key)))


def _named(sample: Sample) -> str:
    return f"{sample.scored.id!r} of {sample.scored.dataset}"

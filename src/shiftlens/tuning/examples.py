"""From prompts with answers to dialogues that a model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from shiftlens.errors import ConfigError, Problem, PromptError
from shiftlens.models.identity import digest
from shiftlens.prompts.encode import EncodeError, encode
from shiftlens.prompts.schema import Prompt


@dataclass(frozen=True)
class Example:
    """One dialogue.

    Args:
        ids: [length] token ids as fed, prompt and response.
        prompt: how many of them, from the left, carry no loss; the first token never does, as nothing predicts it.

    Example:
        >>> Example((5, 6, 7, 8), prompt=2).targets
        2
        >>> Example((5, 6, 7, 8), prompt=0).targets
        3
    """

    ids: tuple[int, ...]
    prompt: int

    @property
    def start(self) -> int:
        """The first position that carries loss."""
        return max(self.prompt, 1)

    @property
    def targets(self) -> int:
        """How many tokens carry loss."""
        return max(len(self.ids) - self.start, 0)


def examples(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_tokens: int | None = None,
    where: str = "prompts",
) -> list[Example]:
    """Encode prompts with their answers: the prompt exactly as an analysis feeds it, the answer, an end token.

    The answer is the prompt's ``response``, or else its ``reference``.

    Args:
        prompts: the prompts.
        tokenizer: a tokenizer that gives character offsets.
        template: how a prompt is wrapped, see :func:`shiftlens.prompts.encode.encode`.
        max_tokens: most tokens of a dialogue; ``None`` is no limit.
        where: the data set, for messages.

    Returns:
        One example for each prompt.

    Raises:
        ConfigError: the tokenizer names no end token.
        PromptError: prompts without an answer, or too long; all at once.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            f"{tokenizer.name_or_path}: the tokenizer names no end token, so a model could not learn to stop; "
            "set eos_token in its tokenizer_config.json"
        )
    found, problems = [], []
    for number, prompt in enumerate(prompts, start=1):
        answer = prompt.response if prompt.response is not None else prompt.reference
        try:
            if not answer:
                raise EncodeError("response", "is missing, and there is no reference: nothing to learn")
            fed = encode(prompt, tokenizer, template).input_ids
            ids = (*fed, *tokenizer(answer, add_special_tokens=False)["input_ids"], int(end))
            if max_tokens is not None and len(ids) > max_tokens:
                raise EncodeError(
                    "text",
                    f"and its answer are {len(ids)} tokens long, {max_tokens} fit; shorten them, or "
                    "set tune.max_tokens higher",
                )
        except EncodeError as error:
            problems.append(Problem(number, error.field, f"{error} (prompt {prompt.id})"))
            continue
        found.append(Example(ids, len(fed)))
    if problems:
        raise PromptError(where, problems)
    return found


def data_hash(some: Sequence[Example]) -> str:
    """32 hex digits that name a list of examples by content and order.

    Example:
        >>> data_hash([Example((1, 2), 1)]) == data_hash([Example((1, 2), 0)])
        False
    """
    return digest([[example.ids, example.prompt] for example in some])

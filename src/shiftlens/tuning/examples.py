"""Encodes prompts with answers as training examples."""

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
    """One dialogue to train on.

    Args:
        ids: [length] Token ids of prompt and response, as the model reads them.
        prompt: Number of tokens, from the left, that carry no loss. The first token never carries loss, because
            no token precedes it.

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
        """First position whose token carries loss."""
        return max(self.prompt, 1)

    @property
    def targets(self) -> int:
        """Number of tokens that carry loss."""
        return max(len(self.ids) - self.start, 0)


def examples(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_tokens: int | None = None,
    where: str = "prompts",
) -> list[Example]:
    """Encode each prompt with its answer as one training example.

    An example is the prompt, encoded exactly as in an analysis, then the answer, then an end token. The answer is
    the prompt's ``response``, or its ``reference`` if there is no response.

    Args:
        prompts: Prompts with answers.
        tokenizer: Tokenizer that gives character offsets.
        template: Template that surrounds the prompt, see :func:`shiftlens.prompts.encode.encode`.
        max_tokens: Largest number of tokens of a dialogue; ``None`` sets no limit.
        where: Name of the data set, for error messages.

    Returns:
        One example per prompt, in the same order.

    Raises:
        ConfigError: The tokenizer defines no end token.
        PromptError: Lists every prompt that has no answer, cannot be encoded, or is too long.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            f"{tokenizer.name_or_path}: the tokenizer names no end token, so a model could not learn to stop; "
            "set eos_token in its tokenizer_config.json"
        )
    encoded, problems = [], []
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
        encoded.append(Example(ids, len(fed)))
    if problems:
        raise PromptError(where, problems)
    return encoded


def data_hash(some: Sequence[Example]) -> str:
    """Return a hash (32 hexadecimal digits) of the content and the order of examples.

    Example:
        >>> data_hash([Example((1, 2), 1)]) == data_hash([Example((1, 2), 0)])
        False
    """
    return digest([[example.ids, example.prompt] for example in some])

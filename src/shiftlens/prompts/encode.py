"""Encodes a prompt as the exact token ids fed to a model, and maps its spans to token masks."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

import jinja2
import numpy as np
from jaxtyping import Bool
from transformers import PreTrainedTokenizerBase

from shiftlens.errors import ConfigError
from shiftlens.prompts.schema import Prompt, Span

log = logging.getLogger(__name__)
DATE = "26 Jul 2024"
"""Fixed date for chat templates that write today's date."""
_PLACEHOLDER = "\ue000\ue001"  # private-use characters: no template contains or changes them


class EncodeError(ValueError):
    """Raised when a prompt cannot be encoded.

    Args:
        field: Field of the prompt that is at fault: ``text``, ``instruction`` or ``context``.
        message: Description of the fault, to follow the name of the field.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and the regions of its tokens. N is the number of tokens of the user's text.

    Args:
        prompt: Prompt that was encoded.
        input_ids: [total] exact ids fed to the model, including template and special tokens.
        prompt_index: [N] positions of the tokens of the user's text in ``input_ids``.
        tokens: [N] texts of these tokens.
        instruction: [N] whether each of these tokens overlaps an instruction span.
        context: [N] whether each of these tokens overlaps a context span.
        cut: Number of tokens cut off the end of the user's text to fit the limit.
        offsets: [N] characters of these tokens in the prompt's text, from and to.
    """

    prompt: Prompt
    input_ids: tuple[int, ...]
    prompt_index: tuple[int, ...]
    tokens: tuple[str, ...]
    instruction: Bool[np.ndarray, " prompt"]
    context: Bool[np.ndarray, " prompt"]
    cut: int = 0
    offsets: tuple[Span, ...] = ()

    @property
    def regions(self) -> list[str]:
        """[N] region of each token: ``instruction`` (also if it overlaps both), ``context`` or ``other``."""
        pairs = zip(self.instruction, self.context, strict=True)
        return ["instruction" if i else "context" if c else "other" for i, c in pairs]


def encode(
    prompt: Prompt,
    tokenizer: PreTrainedTokenizerBase,
    template: str = "none",
    max_tokens: int | None = None,
    on_long: str = "refuse",
) -> Encoded:
    """Wrap a prompt in a template, tokenize the result, and map the prompt's spans to tokens.

    Template and text are tokenized together, so the ids are those that a chat application would feed. A token
    belongs to the user's text if it overlaps at least one character of that text.

    Args:
        prompt: Prompt to encode.
        tokenizer: Tokenizer that returns character offsets.
        template: ``none``, a text that contains ``{prompt}``, or ``jinja:`` followed by a chat template.
        max_tokens: Maximum number of ids, template included; ``None`` sets no limit.
        on_long: What to do with a longer prompt: ``refuse`` it, or ``cut`` the end of the user's text.

    Returns:
        The ids, the positions and texts of the user's tokens, and one mask per kind of span.

    Raises:
        EncodeError: The prompt is too long and ``on_long`` is ``refuse``, a span overlaps no token that is kept,
            or the user's text has no token.
        ConfigError: The template cannot be rendered, leaves out the user's message, or rewrites it.
    """
    before, text, after, trimmed = _wrap(prompt.text, tokenizer, template)
    # A chat template already contains its special tokens; adding them here would double the BOS token.
    output = tokenizer(
        before + text + after,
        add_special_tokens=not template.startswith("jinja:"),
        return_offsets_mapping=True,
    )
    ids: list[int] = list(output["input_ids"])
    offsets = _mend_offsets(output["offset_mapping"], len(before + text + after))
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        _warn_double_bos(tokenizer.name_or_path)
        ids, offsets = ids[1:], offsets[1:]
    index = [i for i, span in enumerate(offsets) if _overlap(span, (len(before), len(before) + len(text)))]
    cut = 0
    if max_tokens is not None and len(ids) > max_tokens:
        cut = len(ids) - max_tokens
        if on_long != "cut":
            raise EncodeError(
                "text", f"is {len(ids)} tokens long, {max_tokens} fit; shorten it or set data.on_long=cut"
            )
        if cut >= len(index):
            raise EncodeError("text", f"does not fit: the template alone leaves no room in {max_tokens} tokens")
        dropped = set(index[len(index) - cut :])
        ids = [token for i, token in enumerate(ids) if i not in dropped]
        offsets = [span for i, span in enumerate(offsets) if i not in dropped]
        index = index[: len(index) - cut]
    if not index:
        raise EncodeError("text", "has no token of its own under this tokenizer")
    shift = len(before) - trimmed  # from offsets in the prompt's text to offsets in the whole text
    user_offsets = [offsets[i] for i in index]
    masks = {
        name: _mask(user_offsets, [(s + shift, e + shift) for s, e in spans], spans, name, cut)
        for name, spans in (("instruction", prompt.instruction), ("context", prompt.context))
    }
    tokens = tuple(token_texts(tokenizer, [ids[i] for i in index]))
    within = tuple((max(start - shift, 0), min(end - shift, len(prompt.text))) for start, end in user_offsets)
    return Encoded(prompt, tuple(ids), tuple(index), tokens, masks["instruction"], masks["context"], cut, within)


def _mask(
    offsets: list[Span], shifted: list[Span], spans: tuple[Span, ...], name: str, cut: int
) -> Bool[np.ndarray, " prompt"]:
    """Mark the tokens that overlap a span.

    Args:
        offsets: [N] character offsets of the user's tokens in the whole text.
        shifted: Spans in the whole text.
        spans: The same spans in the prompt's text, for the error message.
        name: ``instruction`` or ``context``, for the error.
        cut: Number of tokens cut off, for the error message.

    Returns:
        [N] mask.

    Raises:
        EncodeError: A span overlaps no token.
    """
    mask = np.zeros(len(offsets), dtype=bool)
    for span, original in zip(shifted, spans, strict=True):
        hits = [_overlap(offset, span) for offset in offsets]
        if not any(hits):
            why = f"was lost when {cut} tokens were cut off" if cut else "touches no token"
            raise EncodeError(name, f"span {list(original)} {why}")
        mask |= hits
    return mask


def _overlap(a: Span, b: Span) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def _mend_offsets(offsets: list[Span], length: int) -> list[Span]:
    """Extend zero-width offsets up to the start of the next token.

    Some byte-level tokenizers report ``(s, s)`` for every token. Special tokens added before or after the text
    have ``(0, 0)``: those before stay empty, those after are placed at the end of the text.

    Args:
        offsets: [total] offsets as the tokenizer reports them.
        length: Number of characters in the text.

    Returns:
        [total] repaired offsets.
    """
    last = len(offsets)
    while last > 1 and offsets[last - 1] == (0, 0):  # special tokens added after the text
        last -= 1
    repaired: list[Span] = []
    next_start = length
    for start, end in reversed(offsets[:last]):
        repaired.append((start, end if end > start else max(start, next_start)))
        next_start = min(start, next_start)
    return [*reversed(repaired), *[(length, length)] * (len(offsets) - last)]


def _wrap(text: str, tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, str, str, int]:
    """Split the rendered template at the user's text.

    Returns:
        Template text before the user's text, the user's text as the template writes it, template text after it,
        and the number of characters that the template trims from the start of the user's text.

    Raises:
        ConfigError: The template leaves out the user's message or rewrites it.
    """
    if template == "none":
        return "", text, "", 0
    if not template.startswith("jinja:"):
        before, after = template.split("{prompt}", 1)
        return before, text, after, 0
    render = functools.partial(_render, tokenizer, template.removeprefix("jinja:"))
    before, placeholder, after = render(_PLACEHOLDER).partition(_PLACEHOLDER)
    if not placeholder:
        raise ConfigError("the chat template does not write the user's message; set model.template=none or a text")
    rendered = render(text)
    for kept in (text, text.strip()):
        if rendered == before + kept + after:
            return before, kept, after, text.index(kept) if kept else 0
    raise ConfigError("the chat template rewrites the user's message, so spans cannot be followed; use another")


def _render(tokenizer: PreTrainedTokenizerBase, template: str, text: str) -> str:
    message = [{"role": "user", "content": text}]
    try:
        return str(
            tokenizer.apply_chat_template(
                message,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                # A template that writes today's date would give other ids every day.
                date_string=DATE,
                strftime_now=lambda _: DATE,
            )
        )
    except jinja2.TemplateError as error:
        raise ConfigError(f"the chat template cannot be rendered: {error}") from error


@functools.lru_cache(maxsize=8)
def _warn_double_bos(name: str) -> None:
    log.warning("%s: the template writes a BOS token and the tokenizer adds one; the second was dropped", name)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Decode each token by itself, keeping its leading space.

    Args:
        tokenizer: Tokenizer of the ids.
        ids: [tokens] token ids.

    Returns:
        [tokens] texts; a token that is only part of a character becomes the replacement character.
    """
    texts = []
    for piece, token in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True):
        text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # SentencePiece decoders drop the space before a word.
        texts.append(" " + text if piece.startswith("▁") and not text.startswith(" ") else text)
    return texts

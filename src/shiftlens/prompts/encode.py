"""From a prompt to the exact token ids a model reads, with its spans as token masks."""

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
"""What a chat template writes where it asks for today's date."""
_PLACE = "\ue000\ue001"  # private-use characters: no template contains or changes them


class EncodeError(ValueError):
    """A prompt that cannot be encoded; ``field`` is the part of it at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Encoded:
    """A prompt as a model reads it. N is the number of the user's own prompt tokens.

    Args:
        prompt: the prompt.
        input_ids: [total] exact ids fed, template and special tokens included.
        prompt_index: [N] positions of the user's prompt tokens in ``input_ids``.
        tokens: [N] those tokens as text.
        instruction: [N] whether a token touches an instruction span.
        context: [N] whether a token touches a context span.
        cut: number of the user's tokens that were cut off at the end to fit.
    """

    prompt: Prompt
    input_ids: tuple[int, ...]
    prompt_index: tuple[int, ...]
    tokens: tuple[str, ...]
    instruction: Bool[np.ndarray, " prompt"]
    context: Bool[np.ndarray, " prompt"]
    cut: int = 0

    @property
    def regions(self) -> list[str]:
        """[N] ``instruction``, ``context`` or ``other``; a token in both counts as instruction."""
        pairs = zip(self.instruction, self.context, strict=True)
        return ["instruction" if i else "context" if c else "other" for i, c in pairs]


def encode(
    prompt: Prompt,
    tokenizer: PreTrainedTokenizerBase,
    template: str = "none",
    max_tokens: int | None = None,
    on_long: str = "refuse",
) -> Encoded:
    """Wrap a prompt in its template, tokenize it once, and map its spans to tokens.

    The whole text is tokenized in one piece, so that the ids are those a chat application would
    feed; the user's tokens are those that touch a character of the user's text.

    Args:
        prompt: the prompt.
        tokenizer: a tokenizer that gives character offsets.
        template: ``none``, a text with ``{prompt}``, or ``jinja:`` and a chat template.
        max_tokens: the most prompt tokens that fit, template included; ``None`` is no limit.
        on_long: ``refuse`` a longer prompt, or ``cut`` the end of the user's text.

    Raises:
        EncodeError: too long and refused, a span lost by the cut, or no token of the user's left.
        ConfigError: the template cannot hold the prompt.
    """
    before, text, after, shift = _wrap(prompt.text, tokenizer, template)
    # A chat template writes its special tokens itself; adding them again would double the BOS.
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
    index = [i for i, span in enumerate(offsets) if _touches(span, (len(before), len(before) + len(text)))]
    cut = 0
    if max_tokens is not None and len(ids) > max_tokens:
        cut = len(ids) - max_tokens
        if on_long != "cut":
            raise EncodeError(
                "text", f"is {len(ids)} tokens long, {max_tokens} fit; shorten it or set data.on_long=cut"
            )
        if cut >= len(index):
            raise EncodeError("text", f"does not fit: the template alone leaves no room in {max_tokens} tokens")
        gone = set(index[len(index) - cut :])
        ids = [token for i, token in enumerate(ids) if i not in gone]
        offsets = [span for i, span in enumerate(offsets) if i not in gone]
        index = index[: len(index) - cut]
    if not index:
        raise EncodeError("text", "has no token of its own under this tokenizer")
    shifted = len(before) - shift
    own = [offsets[i] for i in index]
    masks = {
        name: _mask(own, [(s + shifted, e + shifted) for s, e in spans], spans, name, cut)
        for name, spans in (("instruction", prompt.instruction), ("context", prompt.context))
    }
    tokens = tuple(token_texts(tokenizer, [ids[i] for i in index]))
    return Encoded(prompt, tuple(ids), tuple(index), tokens, masks["instruction"], masks["context"], cut)


def _mask(
    offsets: list[Span], shifted: list[Span], spans: tuple[Span, ...], name: str, cut: int
) -> Bool[np.ndarray, " prompt"]:
    mask = np.zeros(len(offsets), dtype=bool)
    for span, original in zip(shifted, spans, strict=True):
        hits = [_touches(offset, span) for offset in offsets]
        if not any(hits):
            why = f"was lost when {cut} tokens were cut off" if cut else "touches no token"
            raise EncodeError(name, f"span {list(original)} {why}")
        mask |= hits
    return mask


def _touches(a: Span, b: Span) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def _mend_offsets(offsets: list[Span], length: int) -> list[Span]:
    """Give zero-width tokens the characters up to the next token's start.

    Some byte-level tokenizers report ``(s, s)`` for every token. Special tokens added around
    the text are ``(0, 0)`` too: in front they stay empty, behind they lie at the end.
    """
    last = len(offsets)
    while last > 1 and offsets[last - 1] == (0, 0):  # special tokens added behind the text
        last -= 1
    mended: list[Span] = []
    next_start = length
    for start, end in reversed(offsets[:last]):
        mended.append((start, end if end > start else max(start, next_start)))
        next_start = min(start, next_start)
    return [*reversed(mended), *[(length, length)] * (len(offsets) - last)]


def _wrap(text: str, tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, str, str, int]:
    """Text before the prompt, the prompt as the template writes it, text after, characters trimmed in front."""
    if template == "none":
        return "", text, "", 0
    if not template.startswith("jinja:"):
        before, after = template.split("{prompt}", 1)
        return before, text, after, 0
    render = functools.partial(_render, tokenizer, template.removeprefix("jinja:"))
    before, place, after = render(_PLACE).partition(_PLACE)
    if not place:
        raise ConfigError("the chat template does not write the user's message; set model.template=none or a text")
    whole = render(text)
    for kept in (text, text.strip()):
        if whole == before + kept + after:
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
                # Templates that write today's date would make every day another prompt.
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
    """Each token as a person reads it: leading spaces kept, bytes decoded where they are a character.

    Args:
        tokenizer: the tokenizer.
        ids: [tokens] token ids.

    Returns:
        [tokens] texts; a token that is part of a character shows the replacement character.
    """
    texts = []
    for piece, token in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True):
        text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # SentencePiece decoders drop the space that a word starts with.
        texts.append(" " + text if piece.startswith("▁") and not text.startswith(" ") else text)
    return texts

"""A byte-level tokenizer made for a text."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BEGIN, END, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = (BEGIN, END, USER, ASSISTANT)
"""Special tokens; their ids are 0 to 3."""
LEAST_VOCABULARY = len(SPECIAL) + 256
"""The special tokens and every byte."""
CHAT_TEMPLATE = (
    f"{BEGIN}{{% for message in messages %}}<|{{{{ message['role'] }}}}|>{{{{ message['content'] }}}}"
    f"{{% if message['role'] == 'assistant' %}}{END}{{% endif %}}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def make_tokenizer(documents: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding learnt from a text, with the tokens and the template of a dialogue.

    Every byte is a token, so any text can be written; digits stand alone, so that numbers can be copied. The same
    text gives the same tokenizer.

    Args:
        documents: the text.
        vocabulary: most tokens, special ones and the 256 bytes included.
        context: most tokens that the model will read.

    Returns:
        A tokenizer with character offsets; a text gets ``<|begin|>`` in front, ``<|end|>`` is its end token.

    Example:
        >>> tokenizer = make_tokenizer(["the cat and the dog"], vocabulary=300, context=64)
        >>> tokenizer.convert_ids_to_tokens(tokenizer("the 12")["input_ids"])
        ['<|begin|>', 'the', 'Ġ', '1', '2']
        >>> tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False,
        ...     add_generation_prompt=True)
        '<|begin|><|user|>Hi<|assistant|>'
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(documents, trainer, length=len(documents))
    core.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, core.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )

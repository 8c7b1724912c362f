"""Trains a byte-level tokenizer on a text."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BEGIN, END, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = (BEGIN, END, USER, ASSISTANT)
"""Special tokens; their ids are 0 to 3."""
LEAST_VOCABULARY = len(SPECIAL) + 256
"""Smallest vocabulary: the special tokens and all 256 bytes."""
CHAT_TEMPLATE = (
    f"{BEGIN}{{% for message in messages %}}<|{{{{ message['role'] }}}}|>{{{{ message['content'] }}}}"
    f"{{% if message['role'] == 'assistant' %}}{END}{{% endif %}}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def make_tokenizer(documents: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer (byte-pair encoding) on a text, with special tokens and a template for dialogues.

    Every byte is a token, so any text can be encoded; every digit is a token of its own, so that a model can copy
    numbers digit by digit. The same text gives the same tokenizer.

    Args:
        documents: Text to train on.
        vocabulary: Largest number of tokens, including special tokens and the 256 bytes.
        context: Largest number of tokens that the model can read.

    Returns:
        A tokenizer that gives character offsets and puts ``<|begin|>`` before a text, with end token ``<|end|>``.

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

"""Defines prompts with instruction and context spans, reads them, and encodes them as token ids."""

from shiftlens.prompts.encode import Encoded, EncodeError, encode
from shiftlens.prompts.readers import PromptSet, read_prompts
from shiftlens.prompts.schema import Prompt, Span

__all__ = ["EncodeError", "Encoded", "Prompt", "PromptSet", "Span", "encode", "read_prompts"]

"""Counts tokens with the encoder's tokenizer, without the encoder: for estimates of what a prompt costs."""

from __future__ import annotations

from collections.abc import Callable

from hein.folder import tokenizer_file


def token_counter(model: str) -> Callable[[str], int]:
    """A function from a text to the number of its tokens, none cut off, special tokens not counted.

    Args:
        model: The setting ``encoder.model``.

    Raises:
        SettingsError: There is no such folder, or no tokenizer in it.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file(model)))
    tokenizer.no_truncation()  # MiniLM's cuts at 128
    tokenizer.no_padding()  # and pads to as many
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

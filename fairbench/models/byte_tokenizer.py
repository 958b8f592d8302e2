"""A tokenizer made in code, for backbones that need no download: one token per byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAD = "<pad>"


def tiny_tokenizer(special: Sequence[str], chat_template: str, end: str = PAD) -> Any:
    """Return a transformers tokenizer that reads any text byte by byte, with some special tokens.

    Ids 0 to 255 are bytes, 256 is padding, the special tokens follow in their order; `end` ends an answer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, chat_template=chat_template)
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.eos_token = end
    return fast

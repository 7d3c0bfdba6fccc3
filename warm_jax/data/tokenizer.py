# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tokenizers: made with `tokenizers`, saved and opened with transformers.

Both kinds made here share four special tokens, with padding apart from the end
of sequence (a reward model whose two ids agree reads its score at the wrong
token).
"""

import dataclasses
import pathlib
from typing import Any

from warm_jax import errors

PAD, BOS, EOS, UNK = '<pad>', '<bos>', '<eos>', '<unk>'


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A transformers tokenizer, reduced to what the package needs.

  Attributes:
    hf: the transformers tokenizer; saved beside every exported model.
    vocab_size, pad_id, bos_id, eos_id: what the models need to know; bos_id is
      None where the family has none.
  """

  hf: Any
  vocab_size: int
  pad_id: int
  bos_id: int | None
  eos_id: int

  def encode(self, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    if not texts:
      return []
    return self.hf(texts, add_special_tokens=False)['input_ids']

  def decode(self, ids, mask=None) -> list[str]:
    """Texts of ids [B, T], special tokens left out; mask [B, T] optional."""
    rows = [
      [int(t) for t, keep in zip(row, kept) if keep]
      for row, kept in zip(ids, mask if mask is not None else _all_true(ids))
    ]
    return self.hf.batch_decode(rows, skip_special_tokens=True)


def _all_true(ids):
  return [[True] * len(row) for row in ids]


def make_word_tokenizer(words, folder) -> Tokenizer:
  """Makes a tokenizer with one token a word and saves it in a folder."""
  import tokenizers

  vocab = {w: i for i, w in enumerate((PAD, BOS, EOS, UNK, *words))}
  model = tokenizers.models.WordLevel(vocab, unk_token=UNK)
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return _save(tokenizer, folder)


def train_bpe_tokenizer(texts, vocab_size: int, folder) -> Tokenizer:
  """Trains a byte-level BPE tokenizer on texts and saves it in a folder.

  Args:
    texts: iterable of strings.
    vocab_size: number of tokens, special ones included; at least 260.
    folder: where the tokenizer files go.

  Returns:
    The tokenizer, opened from the folder.

  Raises:
    UserError: vocab_size too small to hold all bytes.
  """
  import tokenizers

  if vocab_size < 260:
    raise errors.UserError(
      f'tokenizer: vocab_size is {vocab_size}; a byte-level vocabulary needs '
      'at least 260 (256 bytes and 4 special tokens)'
    )
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=True
  )
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[PAD, BOS, EOS, UNK],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  return _save(tokenizer, folder)


def _save(tokenizer, folder) -> Tokenizer:
  import transformers

  hf = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    pad_token=PAD,
    bos_token=BOS,
    eos_token=EOS,
    unk_token=UNK,
    padding_side='right',
    model_input_names=['input_ids', 'attention_mask'],
    clean_up_tokenization_spaces=False,
  )
  hf.save_pretrained(folder)
  return load(folder)


def load(folder) -> Tokenizer:
  """Opens a tokenizer folder.

  Raises:
    UserError: no tokenizer there, no end of sequence or padding token, or
      both the same token (trap P3).
  """
  import transformers

  if not (pathlib.Path(folder) / 'tokenizer_config.json').exists():
    raise errors.UserError(f'tokenizer: no tokenizer_config.json in {folder}')
  hf = transformers.AutoTokenizer.from_pretrained(
    str(folder), local_files_only=True, trust_remote_code=False
  )
  for name in ('eos', 'pad'):
    if getattr(hf, f'{name}_token_id') is None:
      raise errors.UserError(
        f'tokenizer: {folder} names no {name}_token; set it in '
        'tokenizer_config.json'
      )
  if hf.pad_token_id == hf.eos_token_id:
    raise errors.UserError(
      f'tokenizer: {folder} pads with its end-of-sequence token '
      f'{hf.eos_token!r}; rewards would be read at the wrong token, give it a '
      'padding token of its own'
    )
  return Tokenizer(
    hf, len(hf), hf.pad_token_id, hf.bos_token_id, hf.eos_token_id
  )

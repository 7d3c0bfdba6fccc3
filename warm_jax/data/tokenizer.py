# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tokenizers: made with `tokenizers`, saved and opened with transformers.

Padding has a token of its own: a reward model whose padding is the end of
sequence reads its score at the wrong token.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from warm_jax import errors, files

_MOST_TOKENS = 2**24
PAD, BOS, EOS, UNK = '<pad>', '<bos>', '<eos>', '<unk>'

# Tokens that families keep for padding, whether or not they declare it; the
# last three are GPT-NeoX's, Llama 3.1's and Qwen 2.5's.
_PADDING_TOKENS = (PAD, '[PAD]', '<|pad|>', '<|padding|>')
_PADDING_TOKENS += ('<|finetune_right_pad_id|>', '<|fim_pad|>')


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A transformers tokenizer, reduced to what the package needs."""

  hf: Any  # saved beside every exported model
  vocab_size: int  # the largest id and one: ids may have gaps
  pad_id: int
  bos_id: int | None  # None: rows do not begin with one
  eos_id: int

  def encode(self, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, no special tokens; equal texts share a list."""
    if not texts:
      return []
    # Many rows share a prompt, a short response, a remark.
    different = list(dict.fromkeys(texts))
    ids = self.hf(
      different, add_special_tokens=False, return_attention_mask=False
    )['input_ids']
    made = dict(zip(different, ids, strict=True))
    return [made[text] for text in texts]

  def decode(self, ids, mask=None) -> list[str]:
    """Texts of ids [B, T], special tokens left out; mask [B, T] optional."""
    rows = [np.asarray(row) for row in ids]
    if mask is not None:
      rows = [row[np.asarray(kept, bool)] for row, kept in zip(rows, mask)]
    return self.hf.batch_decode(
      [row.tolist() for row in rows], skip_special_tokens=True
    )


def make_word_tokenizer(words, folder) -> Tokenizer:
  """Makes a tokenizer with one token a word and saves it in a folder."""
  import tokenizers

  vocab = {w: i for i, w in enumerate((PAD, BOS, EOS, UNK, *words))}
  model = tokenizers.models.WordLevel(vocab, unk_token=UNK)
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return _save(tokenizer, folder)


def train_bpe_tokenizer(texts, vocab_size: int, folder) -> Tokenizer:
  """Trains a byte-level BPE tokenizer on texts and saves it in a folder."""
  import tokenizers

  errors.need(
    vocab_size >= 260,
    f'tokenizer: vocab_size is {vocab_size}; a byte-level vocabulary needs at '
    'least 260 (256 bytes and 4 special tokens)',
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
  """Opens a tokenizer that we saved; `load_pretrained` opens others."""
  hf = _open(folder)
  return _reduced(hf, hf.bos_token_id)


def load_pretrained(folder) -> Tokenizer:
  """Opens the tokenizer of a checkpoint and gives it a padding token.

  In this order: its own if it differs from the end of sequence; a token of the
  vocabulary that families keep for it; the unknown token if it is neither end
  nor begin of sequence; else a new '<pad>' after the last token, for which the
  embedding may need one more row. Padding is on the right, inputs are ids and
  mask, whatever the folder says. No code of the folder is run. UserError if it
  cannot be opened, or has no end of sequence.
  """
  path = pathlib.Path(folder)
  names = ('tokenizer', 'tokenizer_config', 'vocab')
  known = [*(path / f'{n}.json' for n in names), path / 'tokenizer.model']
  errors.need(
    any(file.exists() for file in known),
    f'tokenizer: no tokenizer.json in {folder}; copy the tokenizer files of '
    'the model there',
  )
  _check_files(path)
  hf = _open(folder)
  with _guarded(folder):
    hf.padding_side = 'right'
    # Others, token_type_ids among them, make some models fail.
    hf.model_input_names = ['input_ids', 'attention_mask']
    if hf.pad_token_id is None or hf.pad_token_id == hf.eos_token_id:
      kept = [token for token in _PADDING_TOKENS if token in hf.get_vocab()]
      taken = {hf.eos_token, hf.bos_token, None}
      free = [token for token in (*kept, hf.unk_token) if token not in taken]
      hf.add_special_tokens({'pad_token': [*free, PAD][0]})
    # Rows begin as its users' rows do: GPT-2, NeoX and Qwen name a beginning of
    # sequence, or none, but do not write it.
    begins = hf('a')['input_ids'][:1] == [hf.bos_token_id]
    return _reduced(hf, hf.bos_token_id if begins else None)


def _check_files(folder: pathlib.Path) -> None:
  """Refuses what transformers would open without looking."""
  templates = folder / 'additional_chat_templates'
  is_link = templates.is_symlink()
  errors.need(not is_link, f'{templates} is a link; copy the folder there')
  for path in sorted([*folder.iterdir(), *templates.glob('*.jinja')]):
    if path.suffix in ('.json', '.jinja', '.model', '.txt'):
      files.check_file(path, files.MAX_JSON)
  if (folder / 'tokenizer_config.json').exists():
    config = files.read_json(folder / 'tokenizer_config.json')
    names = config.get('fast_tokenizer_files')
    for name in names if isinstance(names, list) else ():
      errors.need(
        pathlib.PurePath(str(name)).name == name,
        f'tokenizer: {folder}: tokenizer_config.json names {name!r}, which is '
        'no file in the folder; remove the entry fast_tokenizer_files',
      )
  if (folder / 'tokenizer.json').exists():
    model = files.read_json(folder / 'tokenizer.json').get('model')
    vocab = model.get('vocab') if isinstance(model, dict) else None
    for token, number in vocab.items() if isinstance(vocab, dict) else ():
      # No embedding has a row for such an id.
      if type(number) is not int or not 0 <= number < _MOST_TOKENS:
        raise errors.UserError(
          f'tokenizer: {folder}: tokenizer.json gives {token!r} the id '
          f'{number!r}; fetch it again'
        )


def _open(folder):
  import transformers

  with _guarded(folder):
    hf = transformers.AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True, trust_remote_code=False
    )
  errors.need(
    isinstance(hf.eos_token_id, int),
    f'tokenizer: {folder} names no eos_token; set it in tokenizer_config.json',
  )
  return hf


@contextlib.contextmanager
def _guarded(folder):
  # Damaged files, missing converters and remote code have no type in common,
  # and a panic in the library tokenizers is no Exception.
  try:
    yield
  except BaseException as e:
    if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
      raise
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    raise errors.UserError(f'tokenizer: cannot open {folder}: {reason}') from e


def _reduced(hf, bos_id: int | None) -> Tokenizer:
  size = max(hf.get_vocab().values()) + 1
  return Tokenizer(hf, size, hf.pad_token_id, bos_id, hf.eos_token_id)

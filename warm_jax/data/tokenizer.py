# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tokenizers: made with `tokenizers`, saved and opened with transformers.

Padding has a token of its own: a reward model whose padding is the end of
sequence reads its score at the wrong token.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import pathlib
import re
from typing import Any

import numpy as np

from warm_jax import errors, files

_MOST_TOKENS = 2**24
PAD, BOS, EOS, UNK = '<pad>', '<bos>', '<eos>', '<unk>'

# Tokens that families keep for padding, whether or not they declare it; the
# last three are GPT-NeoX's, Llama 3.1's and Qwen 2.5's.
_PADDING_TOKENS = (PAD, '[PAD]', '<|pad|>', '<|padding|>')
_PADDING_TOKENS += ('<|finetune_right_pad_id|>', '<|fim_pad|>')

# Stands before the name of a special token that is part of somebody's text. A
# character that Unicode keeps out of texts.
_MARK = '\ufdd0'
# Texts that tokenizers of different kinds split differently.
PROBES = (
  'the cat sat on 1234 mats',
  "It's  two\n\nlines, isn't it?\tYES",
  ' leading',
  'trailing ',
  'a  b   c',
  'def f(x):\n    return x',
  '\n\tif x:\n\t\ty += 1\r\n',
  'caf\u00e9 na\u00efve \u00c5ngstr\u00f6m e\u0301',
  '\u4f60\u597d\uff0c\u4e16\u754c',
  '\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467',
  'x=3.14e-10; {"a": [1, 2]}',
  '2024-07-26 <b>100%</b> \u20ac5',
)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A transformers tokenizer, reduced to what the package needs."""

  hf: Any  # saved beside every exported model
  vocab_size: int  # the largest id and one: ids may have gaps
  pad_id: int
  bos_id: int | None  # None: rows do not begin with one
  eos_id: int
  # What else ends a response: of the model's config, or of a turn.
  other_ends: tuple[int, ...] = ()
  appends_eos: bool = True  # to rows that have no end

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """All tokens that end a response, `eos_id` first."""
    return self.eos_id, *self.other_ends

  def literal(self, text: str) -> str:
    """Marks special tokens that are spelt in a text, so that they stay text."""
    return self._special.sub(f'{_MARK}\\g<0>', text)

  @functools.cached_property
  def _special(self) -> re.Pattern:
    added = self.hf.added_tokens_decoder.values()
    # Thoughts are tagged in answers, and the tags are meant.
    names = [
      re.escape(t.content)
      for t in added
      if t.special and 'think' not in t.content
    ]
    # A longer name may begin with a shorter one.
    return re.compile('|'.join(sorted(names, key=len, reverse=True)) or '(?!)')

  @functools.cached_property
  def _renamed(self) -> tuple[Any, dict[int, int]]:
    """The tokenizer with a mark before all special names, and its ids in ours."""
    import tokenizers

    spec = json.loads(self.hf.backend_tokenizer.to_str())
    spec['post_processor'], ids = None, {}
    for token in spec['added_tokens']:
      if self._special.fullmatch(token['content']):
        token |= {'content': _MARK + token['content'], 'normalized': False}
      ids[token['content']] = token['id']
    made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    return made, {made.token_to_id(name): i for name, i in ids.items()}

  def _encode_marked(self, text: str) -> list[int]:
    made, ids = self._renamed
    text = re.sub(
      f'{_MARK}?(?:{self._special.pattern})',
      lambda m: m[0][1:] if m[0][0] == _MARK else _MARK + m[0],
      text,
    )
    found = made.encode(text, add_special_tokens=False).ids
    return [ids.get(i, i) for i in found]

  def encode(self, texts: list[str]) -> list[list[int]]:
    """Token ids of each text; equal texts share a list.

    Special tokens are those that the text spells, but for marked ones.
    """
    if not texts:
      return []
    # Many rows share a prompt, a short response, a remark.
    different = list(dict.fromkeys(texts))
    ids = self.hf(
      different, add_special_tokens=False, return_attention_mask=False
    )['input_ids']
    made = dict(zip(different, ids, strict=True))
    made |= {t: self._encode_marked(t) for t in different if _MARK in t}
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


def load_pretrained(folder, chat_template: str = '') -> Tokenizer:
  """Opens the tokenizer of a checkpoint and gives it a padding token.

  `chat_template` is a file that holds one; empty: the folder's. Where
  transformers' class makes other ids than tokenizer.json, the file wins. The
  padding token is its own, unless that ends sequences; else one of the
  vocabulary that families keep for it, or the unknown token, if it neither
  begins nor ends them; else a new '<pad>' after the last token, for which the
  embedding may need a row. Padding is on the right, inputs are ids and mask. No code of the folder
  is run. UserError if it cannot be opened, or has no end of sequence.
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
  hf = _as_in_file(path, _open(folder))
  with guarded(folder):
    if chat_template:
      hf.chat_template = pathlib.Path(chat_template).expanduser().read_text()
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
    found = _reduced(hf, hf.bos_token_id if begins else None)
    # And what ends a turn, which may also be a line break, or letters.
    special = [i for i, t in hf.added_tokens_decoder.items() if t.special]
    end = hf(turn_parts(hf)[2], add_special_tokens=False)['input_ids'][:1]
    ends = dict.fromkeys([*ends_of(path), *(i for i in end if i in special)])
    ends.pop(found.eos_id, None)
    ends = tuple(i for i in ends if 0 <= i < found.vocab_size)
    return dataclasses.replace(found, other_ends=ends)


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

  model = pathlib.Path(folder) / 'tokenizer.model'
  if not (model.parent / 'tokenizer.json').exists() and model.exists():
    # That of tiktoken is text.
    names = ('sentencepiece', 'google.protobuf', 'tiktoken')
    names = names[:2] if model.read_bytes()[:1] == b'\n' else names[2:]
    lacking = [n for n in names if not _is_installed(n)]
    text = f'tokenizer: {folder} has tokenizer.model and no tokenizer.json; to '
    names = ' '.join(name.removeprefix('google.') for name in lacking)
    errors.need(not lacking, f'{text}read it: pip install {names}')
  with guarded(folder):
    hf = transformers.AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True, trust_remote_code=False
    )
  errors.need(
    isinstance(hf.eos_token_id, int),
    f'tokenizer: {folder} names no eos_token; set it in tokenizer_config.json',
  )
  return hf


def _as_in_file(folder: pathlib.Path, hf):
  """The tokenizer as opened if it makes the ids of tokenizer.json, or another."""
  import tokenizers
  import transformers

  if not (folder / 'tokenizer.json').exists():
    return hf
  with guarded(folder):
    ours = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
    ours.no_truncation()
    ours.no_padding()
    added = ours.get_added_tokens_decoder().values()
    probes = [*PROBES, *(f'a{token.content} b' for token in added)]
    try:
      wanted = ours.encode_batch(probes, add_special_tokens=False)
    except Exception:  # words that it does not know, and no token for them
      return hf

    def differ(hf):
      ids = hf(probes, add_special_tokens=False)['input_ids']
      both = zip(probes, ids, wanted)
      return [text for text, ids, own in both if ids != own.ids]

    opened = type(hf).__name__
    if differ(hf):
      hf = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    wrong = differ(hf)
  errors.need(
    not wrong,
    f'tokenizer: {folder}: transformers opens it as {opened} and makes other '
    f'ids of {"".join(wrong[:1])!r} than tokenizer.json; correct '
    'tokenizer_class in tokenizer_config.json',
  )
  return hf


def ends_of(folder: pathlib.Path) -> list[int]:
  """Returns the ids that end a response by a folder's configs."""
  found = []
  for name in ('generation_config.json', 'config.json'):
    if (folder / name).exists():
      ends = files.read_json(folder / name).get('eos_token_id')
      found += ends if isinstance(ends, list) else [ends]
  return list(dict.fromkeys(i for i in found if type(i) is int))


def turn_parts(hf, **options) -> tuple[str, str, str]:
  """What a chat template writes around an answer.

  What it opens a prompt's answer with; what it writes before an answer that is
  there; and what behind it. Empty without a template, or if it refuses.
  """
  user = {'role': 'user', 'content': 'x'}
  answer = {'role': 'assistant', 'content': _MARK}

  def render(*turns, **more):
    return hf.apply_chat_template([*turns], tokenize=False, **more, **options)

  try:
    closed, prompt = render(user), render(user, add_generation_prompt=True)
    before, mark, after = render(user, answer).partition(_MARK)
  except Exception:  # a template is a program, and raises what it likes
    return '', '', ''
  if not (mark and prompt.startswith(closed) and before.startswith(closed)):
    return '', '', after
  return prompt[len(closed) :], before[len(closed) :], after


@contextlib.contextmanager
def guarded(folder):
  """Turns whatever opening a folder's tokenizer raises into a UserError."""
  # Damaged files, missing converters and remote code have no type in common,
  # and a panic in the library tokenizers is no Exception.
  try:
    yield
  except BaseException as e:
    if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
      raise
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    raise errors.UserError(f'tokenizer: cannot open {folder}: {reason}') from e


def _is_installed(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:  # of the package that it is in
    return False


def _reduced(hf, bos_id: int | None) -> Tokenizer:
  size = max(hf.get_vocab().values()) + 1
  return Tokenizer(hf, size, hf.pad_token_id, bos_id, hf.eos_token_id)

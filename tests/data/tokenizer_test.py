# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tokenizers of checkpoints: which token pads, and what is refused."""

import json

import pytest
import tokenizers
import transformers

from warm_jax import errors
from warm_jax.data import tokenizer

pytestmark = pytest.mark.hf


def save(folder, words, **special):
  """A tokenizer as a checkpoint's author would have saved it."""
  vocab = {word: i for i, word in enumerate(words)}
  model = tokenizers.models.WordLevel(vocab, unk_token=special.get('unk_token'))
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  hf = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
  hf.save_pretrained(folder)
  return folder


@pytest.mark.parametrize(
  ('words', 'special', 'pad', 'size'),
  [
    # Its own token, though another would be there; Llama 2 pads with <unk>.
    (['<unk>', '</s>', '<pad>', 'a'], {'pad_token': '<unk>'}, 0, 4),
    # None declared, but one kept for it (Pythia).
    (['<unk>', '</s>', '<|padding|>', 'a'], {}, 2, 4),
    # The end of sequence declared, one kept for it (Qwen 2.5).
    (['<unk>', '</s>', '<|fim_pad|>', 'a'], {'pad_token': '</s>'}, 2, 4),
    # Only the unknown token is left (Mistral).
    (['<unk>', '</s>', 'a'], {'unk_token': '<unk>'}, 0, 3),
    # One token for everything (GPT-2): a new one.
    (['</s>', 'a'], {'unk_token': '</s>', 'bos_token': '</s>'}, 2, 3),
    (['</s>', 'a'], {'unk_token': '</s>', 'pad_token': '</s>'}, 2, 3),
    # The unknown token begins sequences and must not pad them.
    (['<s>', '</s>', 'a'], {'unk_token': '<s>', 'bos_token': '<s>'}, 3, 4),
  ],
)
def test_the_padding_token(tmp_path, words, special, pad, size):
  save(tmp_path, words, eos_token='</s>', **special)
  found = tokenizer.load_pretrained(tmp_path)
  assert found.pad_id == found.hf.pad_token_id == pad
  assert found.eos_id == words.index('</s>') != found.pad_id
  assert found.vocab_size == size
  assert found.encode(['a'])[0] == [words.index('a')]


def test_a_new_padding_token_survives_saving(tmp_path):
  save(tmp_path / 'made', ['</s>', 'a'], eos_token='</s>', unk_token='</s>')
  found = tokenizer.load_pretrained(tmp_path / 'made')
  found.hf.save_pretrained(tmp_path / 'saved')
  again = tokenizer.load(tmp_path / 'saved')
  assert (again.pad_id, again.eos_id, again.vocab_size) == (2, 0, 3)
  assert again.hf.pad_token == '<pad>'


def test_padding_goes_right_and_inputs_are_ids_and_mask(tmp_path):
  save(
    tmp_path,
    ['<pad>', '</s>', 'a'],
    eos_token='</s>',
    pad_token='<pad>',
    padding_side='left',
    model_input_names=['input_ids', 'token_type_ids', 'attention_mask'],
  )
  found = tokenizer.load_pretrained(tmp_path)
  batch = found.hf(['a', 'a a'], padding=True)
  assert set(batch) == {'input_ids', 'attention_mask'}
  assert batch['input_ids'] == [[2, 0], [2, 2]]


def test_code_of_a_checkpoint_is_not_run(tmp_path):
  mark = tmp_path / 'ran'
  (tmp_path / 'evil.py').write_text(
    f'open({str(mark)!r}, "w").close()\nclass Evil: pass\n'
  )
  config = {
    'tokenizer_class': 'Evil',
    'auto_map': {'AutoTokenizer': ['evil.Evil', None]},
  }
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  with pytest.raises(errors.UserError, match='cannot open'):
    tokenizer.load_pretrained(tmp_path)
  assert not mark.exists()


def test_what_is_missing_or_damaged_is_named_in_one_line(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  for make, message in (
    (lambda: None, 'no tokenizer.json'),
    (
      lambda: save(tmp_path, ['<pad>'], pad_token='<pad>'),
      'names no eos_token',
    ),
    (lambda: (tmp_path / 'tokenizer.json').write_text('{"v":'), 'cannot read'),
  ):
    make()
    with pytest.raises(errors.UserError, match=message) as e:
      tokenizer.load_pretrained(tmp_path)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('number', [2**32 - 1, 2**24, -1, 1.5])
def test_ids_that_no_embedding_has(tmp_path, number):
  path = save(tmp_path, ['</s>', 'a'], eos_token='</s>') / 'tokenizer.json'
  content = json.loads(path.read_text())
  content['model']['vocab']['a'] = number
  path.write_text(json.dumps(content))
  with pytest.raises(errors.UserError, match="gives 'a' the id"):
    tokenizer.load_pretrained(tmp_path)


def test_files_elsewhere_are_not_opened(tmp_path):
  """Also those that another file names: see tests/fuzz."""
  folder, away = tmp_path / 'model', tmp_path / 'away'
  for place in (folder, away):
    save(place, ['<pad>', '</s>', 'a'], eos_token='</s>')
  (folder / 'chat_template.jinja').symlink_to(away / 'tokenizer_config.json')
  with pytest.raises(errors.UserError, match='leads out of its folder'):
    tokenizer.load_pretrained(folder)

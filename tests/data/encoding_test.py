# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of token ids: borders, ends, padding, and what does not fit."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import encoding, tokenizer

WORDS = ('one', 'two', 'three', ',')


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  return tokenizer.make_word_tokenizer(WORDS, tmp_path_factory.mktemp('tok'))


@pytest.fixture(scope='module')
def bpe(tmp_path_factory):
  texts = ['hello world, hello again', 'the world is wide'] * 20
  return tokenizer.train_bpe_tokenizer(
    texts, 280, tmp_path_factory.mktemp('bpe')
  )


def test_the_tokenizer_returns_ids_and_mask_only(words):
  assert set(words.hf(['one two'])) == {'input_ids', 'attention_mask'}
  assert words.pad_id != words.eos_id
  assert words.vocab_size == len(WORDS) + 4


def test_pad_equal_to_eos_is_refused(words, tmp_path):
  words.hf.save_pretrained(tmp_path)
  config = (tmp_path / 'tokenizer_config.json').read_text()
  changed = config.replace('"pad_token": "<pad>"', '"pad_token": "<eos>"')
  assert changed != config
  (tmp_path / 'tokenizer_config.json').write_text(changed)
  with pytest.raises(errors.UserError, match='pads with its end-of-sequence'):
    tokenizer.load(tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path):
  with pytest.raises(errors.UserError, match='no tokenizer_config.json'):
    tokenizer.load(tmp_path)


def test_rows_are_bos_prompt_response_eos_and_padding(words):
  sequences, fits = encoding.encode(words, ['one two'], ['three'], 8)
  one, two, three = (words.encode([w])[0][0] for w in ('one', 'two', 'three'))
  assert sequences.ids[0].tolist() == [
    words.bos_id, one, two, three, words.eos_id, *[words.pad_id] * 3
  ]  # fmt: skip
  assert sequences.mask[0].tolist() == [True] * 5 + [False] * 3
  assert sequences.response_start[0] == 3 and fits.all()
  assert (sequences.ids == words.bos_id).sum() == 1  # one BOS


def test_the_border_is_that_of_tokenisation(bpe):
  prompts = ['hello wor', 'the world is', '']
  responses = ['ld again', ' wide', 'hello']
  sequences, _ = encoding.encode(bpe, prompts, responses, 64)
  for row, (prompt, response) in enumerate(zip(prompts, responses)):
    start = sequences.response_start[row]
    ids = sequences.ids[row]
    assert ids[1:start].tolist() == bpe.encode([prompt])[0]
    length = sequences.mask[row].sum()
    assert ids[start : length - 1].tolist() == bpe.encode([response])[0]
    assert ids[length - 1] == bpe.eos_id


def test_text_survives_the_way_there_and_back(bpe, words):
  assert words.decode(words.encode(['one , two'])) == ['one , two']
  ids = bpe.encode(['the world, again — ünïcode'])
  assert bpe.decode(ids)[0].strip() == 'the world, again — ünïcode'


def test_overlong_pairs_are_left_out_and_counted(words):
  rows = [
    {'prompt': 'one', 'chosen': 'two', 'rejected': 'three'},
    {'prompt': 'one', 'chosen': 'two ' * 9, 'rejected': 'three'},
    {'prompt': 'one', 'chosen': 'two', 'rejected': 'three ' * 9},
    {'prompt': 'one', 'chosen': 'two', 'rejected': 'one', 'flipped': True},
  ]
  pairs = encoding.encode_preferences(words, rows, 6, 'rows')
  assert pairs.rows.tolist() == [0, 3]
  assert pairs.flipped.tolist() == [False, True]
  for side in (pairs.chosen, pairs.rejected):
    last = side.mask.sum(axis=1) - 1
    assert (side.ids[np.arange(2), last] == words.eos_id).all()


def test_cut_responses_keep_their_end(words):
  prompts = ['one', 'one', 'one two three one', 'one ' * 5]
  responses = ['two', 'two one two three', 'two', 'two']
  sequences, fits = encoding.encode(
    words, prompts, responses, 5, overlong='truncate'
  )
  assert fits.tolist() == [True, True, False, False]
  assert words.decode(sequences.ids, sequences.mask) == [
    'one two', 'one two one', '', ''
  ]  # fmt: skip
  lengths = sequences.mask.sum(axis=1)
  assert lengths.tolist() == [4, 5, 0, 0]
  assert sequences.ids[1, 4] == words.eos_id
  assert sequences.response_start.tolist() == [2, 2, 0, 0]
  heads = encoding.prompt_ids(words, prompts)
  lines = encoding.join(heads, None, 5, 'truncate')  # prompts are never cut
  assert lines.fits.tolist() == [True, True, True, False]
  assert not lines.is_cut.any()


def test_begin_and_end_that_a_text_has_already_are_not_doubled(bpe):
  for encoded in (
    encoding.encode(bpe, ['<bos>hello'], [' world<eos>'], 32)[0],
    encoding.encode(bpe, ['hello'], [' world'], 32)[0],
  ):
    ids = encoded.ids[0, encoded.mask[0]]
    assert ids[0] == bpe.bos_id and ids[-1] == bpe.eos_id
    assert np.isin(ids, [bpe.bos_id, bpe.eos_id]).sum() == 2


def test_batches_hold_chosen_rows_then_rejected_rows(words):
  rows = [
    {'prompt': 'one', 'chosen': c, 'rejected': r}
    for c, r in (('one', 'two'), ('two', 'three'), ('three', 'one'))
  ]
  pairs = encoding.encode_preferences(words, rows, 6, 'rows')
  batch = pairs.batch(np.array([[2, 0], [1, 1]]))  # two members, two pairs
  assert batch['ids'].shape == (2, 4, 4)  # cut to the longest row
  np.testing.assert_array_equal(batch['ids'][0, 0], pairs.chosen.ids[2])
  np.testing.assert_array_equal(batch['ids'][0, 3], pairs.rejected.ids[0])
  np.testing.assert_array_equal(batch['mask'][1, 2], pairs.rejected.mask[1])


def test_pairs_of_one_prompt_have_one_prompt_id(words):
  prompts = ['one', 'one two', 'one', 'two']
  rows = [{'prompt': p, 'chosen': 'two', 'rejected': 'one'} for p in prompts]
  pairs = encoding.encode_preferences(words, rows, 6, 'rows')
  assert pairs.prompt_ids.tolist() == [0, 1, 0, 2]
  assert pairs.prompt_ids.dtype == np.int64
  assert pairs.select(np.array([1, 3])).prompt_ids.tolist() == [0, 1]


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([], 'no preference pairs'),
    ([{'prompt': 'a', 'chosen': 'b', 'rejected': 'b'}], 'nothing to prefer'),
    ([{'prompt': 'a', 'chosen': ' ', 'rejected': ''}], 'row 1: chosen and'),
    (
      [{'prompt': 'a', 'chosen': 'b ' * 99, 'rejected': 'c'}],
      'none of its 1 rows fits into 8 tokens',
    ),
  ],
)
def test_sets_that_cannot_work_are_refused(words, rows, message):
  with pytest.raises(errors.UserError, match=f'mine.jsonl.*{message}'):
    encoding.encode_preferences(words, rows, 8, 'mine.jsonl')


def test_a_prompt_longer_than_the_context_is_named(words):
  with pytest.raises(errors.UserError, match='posts, row 2: the prompt is'):
    encoding.encode_prompts(words, ['one', 'two ' * 20], 8, 'posts')


@pytest.fixture(scope='module')
def llama_like(tmp_path_factory):
  """A tokenizer that puts a space before a text and <s> in front of it."""
  import tokenizers
  import transformers

  special = ['<unk>', '<s>', '</s>']
  made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='<unk>'))
  made.normalizer = tokenizers.normalizers.Sequence(
    [
      tokenizers.normalizers.Prepend('▁'),
      tokenizers.normalizers.Replace(' ', '▁'),
    ]
  )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=60, special_tokens=special, show_progress=False
  )
  made.train_from_iterator(
    ['hello', 'world', 'is', 'it', 'wide', '\n'] * 20, trainer
  )
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single='<s> $A', special_tokens=[('<s>', 1)]
  )
  folder = tmp_path_factory.mktemp('llama')
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, bos_token='<s>', eos_token='</s>', unk_token='<unk>'
  ).save_pretrained(folder)
  return tokenizer.load_pretrained(folder)


def test_a_users_row_has_the_ids_of_its_whole_text(llama_like):
  prompts = ['is it\n', 'hello wor', '', 'hello']
  responses = ['wide', 'ld', 'hello', ' world']
  heads, tails = encoding.text_ids(llama_like, prompts, responses)
  for prompt, response, head, tail in zip(prompts, responses, heads, tails):
    expected = llama_like.hf(prompt + response)['input_ids']
    assert head + tail == [*expected, llama_like.eos_id]
    assert head[0] == llama_like.bos_id and len(tail) > 1
  # Apart, the response would begin with a space that the text does not have.
  apart = llama_like.encode([responses[0]])[0]
  assert apart + [llama_like.eos_id] != tails[0]
  assert heads[0] == llama_like.hf(prompts[0])['input_ids']


def test_rows_begin_as_their_tokenizer_begins_them(llama_like, bpe, tmp_path):
  assert llama_like.bos_id == llama_like.hf.bos_token_id
  bpe.hf.save_pretrained(tmp_path)  # names a <bos>, but does not write it
  assert bpe.hf('a')['input_ids'][0] != bpe.hf.bos_token_id
  assert tokenizer.load_pretrained(tmp_path).bos_id is None

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of token ids: borders, ends, padding, overlong rows; sets on disk."""

import pathlib
import random

import numpy as np
import pytest

from warm_jax import errors, files
from warm_jax.data import encoding, tokenizer

WORDS = tuple('abcdefgh')


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  return tokenizer.make_word_tokenizer(WORDS, tmp_path_factory.mktemp('tok'))


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


def test_rows_are_bos_prompt_response_eos_and_padding(words):
  rows, fits, _ = encoding.encode(words, ['a b', 'a'], ['c', 'b'], 8)
  a, b, c = (words.encode([w])[0][0] for w in 'abc')
  bos, eos, pad = words.bos_id, words.eos_id, words.pad_id
  assert rows.ids.tolist() == [[bos, a, b, c, eos], [bos, a, b, eos, pad]]
  assert rows.mask.tolist() == [[True] * 5, [True] * 4 + [False]]
  assert rows.response_start.tolist() == [3, 2] and fits.all()
  assert rows.response_length == 2
  assert rows.ids.dtype == rows.response_start.dtype == np.int32
  # Rows in any shape, padded further.
  part = rows.take(np.array([[1, 1], [0, 1]])).padded_to(6)
  assert part.ids.shape == part.mask.shape == (2, 2, 6)
  assert part.ids[1, 0].tolist() == [bos, a, b, c, eos, pad]
  assert part.response_start.tolist() == [[2, 2], [3, 2]]


def test_a_users_row_has_the_ids_of_its_whole_text(llama_like):
  prompts = ['is it\n', 'hello wor', '', 'hello']
  responses = ['wide', 'ld', 'hello', ' world']
  rows, _, _ = encoding.encode(llama_like, prompts, responses, 64, apart=False)
  for prompt, response, ids in zip(prompts, responses, rows):
    expected = llama_like.hf(prompt + response)['input_ids']
    assert ids.tolist() == [*expected, llama_like.eos_id]
    assert ids[0] == llama_like.bos_id
  begin = llama_like.hf(prompts[0])['input_ids']
  assert rows.response_start[0] == len(begin)
  # Apart, the response would begin with a space that the text does not have.
  apart, _, _ = encoding.encode(llama_like, prompts[:1], responses[:1], 64)
  assert apart.ids[0].tolist() != next(iter(rows)).tolist()


def test_cut_responses_keep_their_end(words):
  prompts = ['a', 'a', 'a b c a', 'a ' * 5]
  responses = ['b', 'b a b c', 'b', 'b']
  rows, fits, is_cut = encoding.encode(
    words, prompts, responses, 5, overlong='truncate'
  )
  assert fits.tolist() == [True, True, False, False]
  assert is_cut.tolist() == [False, True, False, False]
  assert words.decode(rows.ids, rows.mask) == ['a b', 'a b a', '', '']
  assert rows.lengths.tolist() == [4, 5, 0, 0]
  assert rows.ids[1, 4] == words.eos_id
  assert rows.response_start.tolist() == [2, 2, 0, 0]
  _, fits, is_cut = encoding.encode(
    words, prompts, None, 5, overlong='truncate'
  )
  assert fits.tolist() == [True, True, True, False]  # prompts are never cut
  assert not is_cut.any()


def test_remarks_follow_the_end_of_the_response(words):
  rows = [
    {'prompt': 'a', 'response': 'b', 'remark': 'c'},
    {'prompt': 'a', 'response': 'b', 'remark': ''},
    {'prompt': 'a', 'response': 'b ' * 9, 'remark': ''},
  ]
  made = encoding.encode_rows(words, rows, 8, 'rows')
  texts = words.hf.batch_decode(list(made))
  assert texts == ['<bos> a b <eos> c <eos>', '<bos> a b <eos>']
  assert made.length == 6


@pytest.fixture
def small_chunks(monkeypatch):
  """Sets of a few rows take several chunks."""
  monkeypatch.setattr(encoding, 'CHUNK', 7)


def text(rng, most=6):
  return ' '.join(rng.choice(WORDS) for _ in range(rng.randrange(1, most)))


def make_pairs(num=40, **more):
  rng = random.Random(0)
  return [
    {
      'prompt': f'a {rng.choice(WORDS)} ',
      'chosen': text(rng) + ' a',
      'rejected': text(rng) + ' b',
      'flipped': rng.random() < 0.3,
      'row': 100 + i,
    }
    | more
    for i in range(num)
  ]


def opened(words, path, rows, most=16, overlong='filter', seed=None):
  counts = encoding.write(path, rows, words, most, 'mine', overlong)
  return counts, encoding.open_rows(path, seed)


def test_stored_responses_are_those_in_memory(words, tmp_path, small_chunks):
  rng = random.Random(0)
  rows = [{'prompt': text(rng) + ' ', 'response': text(rng)} for _ in range(50)]
  rows[3]['response'] = 'a ' * 20
  counts, stored = opened(words, tmp_path / 'x', rows, 12)
  assert counts == {'rows': 49, 'too_long': 1, 'truncated': 0}
  assert isinstance(stored.flat, np.memmap)
  columns = ([row[key] for row in rows] for key in ('prompt', 'response'))
  expected, fits, _ = encoding.encode(words, *columns, 12)
  expected, places = expected.take(fits), np.array([[4, 0, 48], [7, 7, 1]])
  # With a space between words, apart or together is the same.
  for one, other in (
    (stored, expected),
    (stored.take(places), expected.take(places)),
  ):
    for name in ('ids', 'mask', 'response_start'):
      np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_stored_pairs_are_what_was_given(words, tmp_path, small_chunks):
  rows = make_pairs()
  rows[11]['rejected'] = 'h ' * 30
  kept = [row for i, row in enumerate(rows) if i != 11]
  swapped = sum(row['flipped'] for row in kept)
  counts, pairs = opened(words, tmp_path / 'p', rows)
  expected = {'rows': 39, 'too_long': 1, 'truncated': 0, 'swapped': swapped}
  assert counts == expected
  assert pairs.flipped.tolist() == [row['flipped'] for row in kept]
  assert pairs.rows.tolist() == [row['row'] for row in kept]
  assert pairs.margin is None
  prompts = [row['prompt'] for row in kept]
  assert pairs.prompt_ids.tolist() == [
    list(dict.fromkeys(prompts)).index(prompt) for prompt in prompts
  ]
  assert pairs.chosen.length == pairs.rejected.length
  for side in ('chosen', 'rejected'):
    sequences = getattr(pairs, side)
    assert words.decode(sequences.ids, sequences.mask) == [
      row['prompt'] + row[side] for row in kept
    ]
  part = pairs.select(pairs.flipped)
  assert isinstance(part.chosen.flat, np.memmap) and len(part) == swapped


@pytest.mark.parametrize(
  'name, size',
  [('ids', 400), ('rows', 80), ('starts', 0), ('margin', 3), ('pad_id', 0)],
)
def test_a_cut_or_missing_column_is_refused(words, tmp_path, name, size):
  opened(words, tmp_path / 'p', make_pairs())
  (path,) = (tmp_path / 'p').glob(f'{name}.*')
  whole = path.read_bytes()
  for harm in (lambda: path.write_bytes(whole[:size]), path.unlink):
    harm()
    with pytest.raises(errors.UserError, match=r'p is incomplete .* --workdir'):
      encoding.open_rows(tmp_path / 'p')


def test_an_order_moves_whole_rows(words, tmp_path):
  plain, mixed, again, other = (
    opened(words, tmp_path / 'p', make_pairs(), seed=seed)[1]
    for seed in (None, 3, 3, 4)
  )
  np.testing.assert_array_equal(mixed.rows, again.rows)
  assert (mixed.rows != other.rows).any() and (mixed.rows != plain.rows).any()
  back = mixed.select(np.argsort(mixed.rows))
  for name in ('flipped', 'rows', 'prompts'):
    np.testing.assert_array_equal(getattr(back, name), getattr(plain, name))
  for side in ('chosen', 'rejected'):
    np.testing.assert_array_equal(
      getattr(back, side).ids, getattr(plain, side).ids
    )


def test_margins_go_along_with_their_pairs(words, tmp_path, small_chunks):
  rows = make_pairs(20)
  rows[9]['margin'] = 2.5  # in the second chunk; the others have none
  rows[4]['chosen'] = 'a ' * 40
  _, pairs = opened(words, tmp_path / 'p', rows, seed=1)
  assert pairs.margin.dtype == np.float32
  assert dict(zip(pairs.rows.tolist(), pairs.margin.tolist())) == {
    100 + i: 2.5 if i == 9 else 0.0 for i in range(20) if i != 4
  }
  numbers = np.array([[3, 0], [5, 5]])
  batch = pairs.training_batch(numbers)
  np.testing.assert_array_equal(batch['margin'], pairs.margin[numbers])


def test_truncation_keeps_the_end_and_is_counted(words, tmp_path):
  fits = {'prompt': 'a ', 'chosen': 'b', 'rejected': 'c'}
  rows = [
    fits,
    fits | {'chosen': 'b c d e f g'},  # 9 tokens
    fits | {'chosen': 'b c d e f', 'rejected': 'b c d e g'},  # equal once cut
    fits | {'prompt': 'a b c d e f '},  # no room for a token and an end
    fits | {'prompt': 'a b c d ', 'chosen': 'e f', 'rejected': 'g'},
  ]
  rows = [r | {'flipped': True, 'row': i} for i, r in enumerate(rows)]
  for overlong, counts, kept in (
    ('filter', {'rows': 1, 'too_long': 4, 'truncated': 0, 'swapped': 1}, [0]),
    (
      'truncate',
      {'rows': 3, 'too_long': 2, 'truncated': 2, 'swapped': 3},
      [0, 1, 4],
    ),
  ):
    found, pairs = opened(words, tmp_path / 'p', rows, 7, overlong)
    assert found == counts and pairs.rows.tolist() == kept
    for side in (pairs.chosen, pairs.rejected):
      assert {ids[-1] for ids in side} == {words.eos_id}
  # What was cut begins as the whole did.
  assert words.decode(pairs.chosen.ids, pairs.chosen.mask) == [
    'a b', 'a b c d e', 'a b c d e'
  ]  # fmt: skip


def test_a_set_appears_whole_or_not_at_all(words, tmp_path):
  def rows():
    yield from make_pairs(10)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    opened(words, tmp_path / 'p', rows())
  with pytest.raises(errors.UserError, match='mine: none of its 9 rows fits'):
    opened(words, tmp_path / 'p', make_pairs(9), 3)
  assert not list(tmp_path.iterdir())
  # A second set of the same name takes the place of the first.
  for num in (30, 12):
    _, pairs = opened(words, tmp_path / 'p', make_pairs(num, margin=1.0))
  assert len(pairs) == 12 and pairs.margin is not None
  assert opened(words, tmp_path / 'p', make_pairs(3))[1].margin is None
  assert [p.name for p in tmp_path.iterdir()] == ['p']


def test_a_full_disk_says_so(words, tmp_path, monkeypatch):
  plain = pathlib.Path.open
  monkeypatch.setattr(
    pathlib.Path,
    'open',
    lambda path, mode: plain(pathlib.Path('/dev/full'), mode),
  )
  with pytest.raises(OSError) as caught:
    opened(words, tmp_path / 'p', make_pairs(3))
  assert files.disk_trouble(caught.value) == 'No space left on device'

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sets on disk against the same sets in memory."""

import random

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import encoding, tokenizer

WORDS = tuple('abcdefgh')


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  return tokenizer.make_word_tokenizer(WORDS, tmp_path_factory.mktemp('tok'))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  """Sets of a few rows take several chunks."""
  monkeypatch.setattr(encoding, 'CHUNK', 7)


def text(rng, most=6):
  return ' '.join(rng.choice(WORDS) for _ in range(rng.randrange(1, most)))


def make_pairs(num=40, seed=0, **more):
  rng = random.Random(seed)
  rows = []
  for i in range(num):
    rows.append(
      {
        'prompt': f'a {rng.choice(WORDS)} ',
        'chosen': text(rng) + ' a',
        'rejected': text(rng) + ' b',
        'flipped': rng.random() < 0.3,
        'row': 100 + i,
      }
      | more
    )
  return rows


def equal(sequences, expected, length):
  """The same rows, whatever they are padded to."""
  for name in ('ids', 'mask'):
    np.testing.assert_array_equal(
      getattr(sequences, name), getattr(expected, name)[:, :length]
    )
  np.testing.assert_array_equal(
    sequences.response_start, expected.response_start
  )
  assert sequences.response_length == expected.response_length


def test_responses_are_those_in_memory(words, tmp_path):
  rng = random.Random(0)
  rows = [{'prompt': text(rng) + ' ', 'response': text(rng)} for _ in range(50)]
  rows[3]['response'] = 'a ' * 20
  counts = encoding.write_responses(tmp_path / 'x', rows, words, 12, 'mine')
  assert counts == {'rows': 49, 'too_long': 1, 'truncated': 0}
  stored = encoding.open_sequences(tmp_path / 'x', words.pad_id)
  # With a space between words, apart or together is the same.
  expected, fits = encoding.encode(
    words, [r['prompt'] for r in rows], [r['response'] for r in rows], 12
  )
  expected = expected.take(fits)
  assert len(stored) == 49 and stored.ids.dtype == np.int32
  assert stored.length == expected.mask.sum(axis=1).max() <= 12
  equal(stored, expected, stored.length)
  rows = np.array([[4, 0, 48], [7, 7, 1]])
  part, wanted = stored.take(rows), expected.take(rows)
  assert part.ids.shape == (2, 3, stored.length)
  np.testing.assert_array_equal(part.ids, wanted.ids[..., : stored.length])
  np.testing.assert_array_equal(part.mask, wanted.mask[..., : stored.length])
  np.testing.assert_array_equal(part.response_start, wanted.response_start)


def test_prompts_too_long_are_left_out(words, tmp_path):
  rows = [{'prompt': p} for p in ('a', 'b ' * 9, 'c d')]
  counts = encoding.write_prompts(tmp_path / 'x', rows, words, 4, 'mine')
  assert counts == {'rows': 2, 'too_long': 1, 'truncated': 0}
  stored = encoding.open_sequences(tmp_path / 'x', words.pad_id)
  assert stored.response_start.tolist() == [2, 3]
  assert words.decode(stored.ids, stored.mask) == ['a', 'c d']


def test_pairs_are_those_in_memory(words, tmp_path):
  rows = make_pairs()
  rows[11]['rejected'] = 'h ' * 30
  counts = encoding.write_preferences(tmp_path / 'p', rows, words, 16, 'mine')
  expected = encoding.encode_preferences(words, rows, 16, 'mine')
  stored = encoding.open_preferences(tmp_path / 'p', words.pad_id)
  assert counts == {
    'rows': 39,
    'too_long': 1,
    'truncated': 0,
    'swapped': int(expected.flipped.sum()),
  }
  everything = np.arange(39)
  for name, value in expected.batch(everything).items():
    np.testing.assert_array_equal(stored.batch(everything)[name], value)
  np.testing.assert_array_equal(stored.flipped, expected.flipped)
  np.testing.assert_array_equal(stored.rows, 100 + expected.rows)
  np.testing.assert_array_equal(stored.prompt_ids, expected.prompt_ids)
  assert stored.margin is None and 'margin' not in stored.training_batch(
    everything
  )
  # A part of it stays on disk, and is what the same part in memory is.
  part, wanted = (s.select(s.flipped) for s in (stored, expected))
  assert isinstance(part.chosen, encoding.StoredSequences)
  assert len(part) == expected.flipped.sum()
  np.testing.assert_array_equal(part.chosen.ids, wanted.chosen.ids)


def test_an_order_moves_whole_rows(words, tmp_path):
  encoding.write_preferences(tmp_path / 'p', make_pairs(), words, 16, 'mine')
  plain, mixed, again, other = (
    encoding.open_preferences(tmp_path / 'p', words.pad_id, seed)
    for seed in (None, 3, 3, 4)
  )
  np.testing.assert_array_equal(mixed.rows, again.rows)
  assert (mixed.rows != other.rows).any() and (mixed.rows != plain.rows).any()
  back = np.argsort(mixed.rows)
  for name in ('flipped', 'rows', 'prompts'):
    np.testing.assert_array_equal(
      getattr(mixed, name)[back], getattr(plain, name)
    )
  for side in ('chosen', 'rejected'):
    np.testing.assert_array_equal(
      getattr(mixed, side).take(back).ids, getattr(plain, side).ids
    )


def test_margins_go_along_with_their_pairs(words, tmp_path):
  rows = make_pairs(20)
  rows[9]['margin'] = 2.5  # in the second chunk; the others have none
  rows[4]['chosen'] = 'a ' * 40
  encoding.write_preferences(tmp_path / 'p', rows, words, 16, 'mine')
  pairs = encoding.open_preferences(tmp_path / 'p', words.pad_id, 1)
  assert pairs.margin.dtype == np.float32
  assert dict(zip(pairs.rows.tolist(), pairs.margin.tolist())) == {
    100 + i: 2.5 if i == 9 else 0.0 for i in range(20) if i != 4
  }
  numbers = np.array([[3, 0], [5, 5]])
  batch = pairs.training_batch(numbers)
  np.testing.assert_array_equal(batch['margin'], pairs.margin[numbers])
  np.testing.assert_array_equal(batch['ids'], pairs.batch(numbers)['ids'])
  assert pairs.select(numbers[0]).margin.shape == (2,)


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
    found = encoding.write_preferences(
      tmp_path / 'p', rows, words, 7, 'mine', overlong
    )
    assert found == counts
    pairs = encoding.open_preferences(tmp_path / 'p', words.pad_id)
    assert pairs.rows.tolist() == kept
    for side in (pairs.chosen, pairs.rejected):
      last = side.mask.sum(axis=1) - 1
      ids = side.ids[np.arange(len(pairs)), last]
      assert (ids == words.eos_id).all()
  # What was cut begins as the whole did.
  assert words.decode(pairs.chosen.ids, pairs.chosen.mask) == [
    'a b', 'a b c d e', 'a b c d e'
  ]  # fmt: skip


def test_a_set_appears_whole_or_not_at_all(words, tmp_path):
  def rows():
    yield from make_pairs(10)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    encoding.write_preferences(tmp_path / 'p', rows(), words, 16, 'mine')
  with pytest.raises(errors.UserError, match='mine: none of its 9 rows fits'):
    encoding.write_preferences(tmp_path / 'p', make_pairs(9), words, 3, 'mine')
  assert not list(tmp_path.iterdir())
  # A second set of the same name takes the place of the first.
  for num in (30, 12):
    encoding.write_preferences(
      tmp_path / 'p', make_pairs(num, margin=1.0), words, 16, 'mine'
    )
  assert len(encoding.open_preferences(tmp_path / 'p', words.pad_id)) == 12
  assert [p.name for p in tmp_path.iterdir()] == ['p']
  files = {p.name for p in (tmp_path / 'p').iterdir()}
  encoding.write_preferences(tmp_path / 'p', make_pairs(3), words, 16, 'mine')
  assert files - {p.name for p in (tmp_path / 'p').iterdir()} == {'margin.npy'}


def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch):
  """Whenever a kill comes: under its name are all files of one set, or none."""
  folder = tmp_path / 'set'
  seen = []

  def watched(path, ignore_errors=False):
    seen.append(sorted(p.name for p in folder.glob('*')))
    return removed(path, ignore_errors=ignore_errors)

  removed = encoding.shutil.rmtree
  for names in (('a', 'b'), ('c', 'd')):
    with encoding.new_folder(folder) as partial:
      for name in names:
        (partial / name).touch()
      monkeypatch.setattr(encoding.shutil, 'rmtree', watched)
    monkeypatch.undo()
  assert seen == [['a', 'b'], ['c', 'd']]
  assert [p.name for p in tmp_path.iterdir()] == ['set']

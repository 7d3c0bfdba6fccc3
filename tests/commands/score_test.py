# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm score` on rows of every form, and what it refuses."""

import datetime
import decimal
import itertools
import json

import chains
import numpy as np
import pyarrow as pa
import pytest
import tiny
from pyarrow import parquet as pq

from warm_jax import errors
from warm_jax.commands import score
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import writing
from warm_jax.models import reward_model

pytestmark = pytest.mark.hf
WORDS = ('one', 'two', 'three', 'four', 'five')
USER = {'role': 'user', 'content': 'one two'}
ROW = {'prompt': 'one', 'completion': 'two'}
SHAPE = chains.model_config(4 + len(WORDS), num_layers=1, max_length=16)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """Two reward models, with moments of their own; the prompts end in a space."""
  folder = tmp_path_factory.mktemp('models')
  words = tokenizer_lib.make_word_tokenizer(WORDS, folder / 'tokenizer')
  params = [tiny.reward_params(SHAPE, m) for m in (0, 1)]
  for m in (0, 1):
    more = {'reward_mean': 0.5 + m, 'reward_std': 2.0}
    more['prompt_template'] = '{prompt} '
    writing.save(folder / f'model_{m}', params[m], SHAPE, words, **more)
  return folder, words, params


def by_hand(models, text, member=0):
  """The raw score of one row, from ids put together here."""
  _, words, params = models
  ids = [words.bos_id, *words.encode([text])[0], words.eos_id]
  batch = np.array([ids], np.int32)
  mask = np.ones_like(batch, bool)
  return float(reward_model.scores(params[member], SHAPE, batch, mask)[0])


def run(models, tmp_path, rows, *flags, model='model_0'):
  data, out = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  data.write_text(
    ''.join(r if isinstance(r, str) else json.dumps(r) + '\n' for r in rows)
  )
  names = ','.join(str(models[0] / name) for name in model.split(','))
  where = [f'--model={names}', f'--data={data}', f'--out={out}']
  assert score.main([*where, *flags]) == 0
  return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_form_of_row(models, tmp_path, capsys):
  pair = {'prompt': 'one two', 'chosen': 'three', 'rejected': 'four five'}
  completions = [
    {'rank': rank, 'completion': word}
    for rank, word in enumerate(('two', 'three', 'four'))
  ]
  rows = [
    pair | {'id': 7},
    {'prompt': 'one two', 'completion': 'three'},
    {'messages': [USER, {'role': 'assistant', 'content': 'three'}]},
    {'text': 'one two three'},
    {'context': 'one', 'completions': completions},
  ]
  out = run(models, tmp_path, rows, '--batch_size=2')
  good, bad = (
    by_hand(models, t) for t in ('one two three', 'one two four five')
  )
  assert out[0] == pytest.approx(
    pair | {'id': 7, 'score_chosen': good, 'score_rejected': bad}, abs=1e-6
  )
  for row in out[1:4]:
    assert row['score'] == pytest.approx(good, abs=1e-6)
  ranked = [by_hand(models, f'one {word}') for word in ('two', 'three', 'four')]
  chosen, rejected = out[4]['score_chosen'], out[4]['score_rejected']
  np.testing.assert_allclose(chosen, [ranked[0]] * 2 + [ranked[1]], atol=1e-6)
  np.testing.assert_allclose(rejected, [*ranked[1:], ranked[2]], atol=1e-6)
  right = (good > bad) + sum(a > b for a, b in zip(chosen, rejected))
  assert f'({right} of 4 pairs' in capsys.readouterr().out


def test_the_subset_ties_has_the_score_of_rewardbench_2(
  models, tmp_path, capsys
):
  """By its formula, for one prompt with one right answer and with two."""
  row = {'prompt': 'one', 'rejected': ['three', 'four'], 'subset': 'Ties'}
  rows = [
    row | {'id': f'{kind}:7', 'chosen': chosen}
    for kind, chosen in (('ref', ['two']), ('tied', ['two', 'five']))
  ]
  two, three, four, five = (
    by_hand(models, f'one {text}') for text in 'two three four five'.split()
  )
  ref, tied = two - max(three, four), min(two, five) - max(three, four)
  spread, hard = abs(two - five), min(ref, tied)
  total = 0.3 * (tied > 0) + 0.3 * (ref > 0) + 0.2 * (tied > spread)
  total += 0.2 * (hard > spread) + 0.01 * np.tanh(hard / spread - 1)
  run(models, tmp_path, rows)
  assert f'Ties (weighted, with margins) {total:.3f}' in capsys.readouterr().out
  # All is right; two answers of one score are one answer, unless it is wrong.
  rows = [('ref:1', 2.0, 2.0, 0.0), ('tied:1', 3.0, 4.0, 1.0)]
  assert score._ties(rows) == pytest.approx(1 + 0.01 * np.tanh(1))
  rows = [('ref:1', 0.0, 0.0, 0.0), ('tied:1', 3.0, 3.0, 1.0)]
  assert score._ties(rows) == pytest.approx(0.3 + 0.2)
  assert score._ties(rows[:1]) is None


def test_bad_rows_keep_their_place_and_say_why(models, tmp_path, capsys):
  rows = [
    '[1, 2]\n',
    '7\n',
    'no json\n',
    ROW,
    {'prompt': 'one', 'chosen': 'two', 'rejected': ' '.join(['two'] * 20)},
    {'other': 1},
  ]
  out = run(models, tmp_path, rows)
  assert len(out) == len(rows) and 'score' in out[3]
  for number in (0, 1, 2, 4, 5):
    assert out[number]['error'], number
    assert not any(key.startswith('score') for key in out[number]), number
  assert out[4]['error'] == 'longer than 16 tokens' and out[5]['other'] == 1
  assert '1 rows scored; 5 rows without a score' in capsys.readouterr().out


def test_fields_of_the_file_are_not_lost(models, tmp_path):
  rows = [ROW | {'score': 3}]
  with pytest.raises(
    errors.UserError, match="row 1 has a field 'score' already"
  ):
    run(models, tmp_path, rows)
  assert not (tmp_path / 'out.jsonl').exists()
  [row] = run(models, tmp_path, rows, '--field=warm')
  assert row['score'] == 3
  assert row['warm'] == pytest.approx(by_hand(models, 'one two'), abs=1e-6)


def test_normalised_scores_and_ensembles(models, tmp_path):
  raw = [by_hand(models, 'one two', member) for member in (0, 1)]
  normalised = [(raw[0] - 0.5) / 2, (raw[1] - 1.5) / 2]
  [one] = run(models, tmp_path, [ROW], '--normalise')
  both = dict(model='model_0,model_1')
  [mean] = run(models, tmp_path, [ROW], '--overwrite', **both)
  flags = ['--overwrite', '--normalise', '--aggregate=min']
  [least] = run(models, tmp_path, [ROW], *flags, **both)
  got = [row['score'] for row in (one, mean, least)]
  expected = [normalised[0], np.mean(raw), min(normalised)]
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_witnesses_judge_the_gain_of_a_policy_over_its_start(
  models, tmp_path, capsys
):
  """The policy is best-of-four by model_0; model_1 says what that is worth."""
  samples, scores = [], []
  for first, second in itertools.permutations(WORDS, 2):
    samples.append([(f'{first} {second}', word) for word in WORDS[:4]])
    texts = [' '.join(sample) for sample in samples[-1]]
    scores.append([[by_hand(models, x, m) for m in (0, 1)] for x in texts])
  scores = np.array(scores)  # [P, N, J]
  best = scores[..., 0].argmax(axis=1)
  start = tmp_path / 'start.jsonl'
  names = ('prompt', 'response')
  rows = [dict(zip(names, s)) for part in samples for s in part]
  # What one model cannot score, and prompts of one file alone, are left out.
  chains.write_rows(start, [*rows, {'prompt': 'five', 'response': 'one'}, {}])
  chosen = [dict(zip(names, samples[p][i])) for p, i in enumerate(best)]
  flags = [f'--start={start}', f'--witness={models[0] / "model_1"}']
  run(models, tmp_path, chosen, *flags)
  flat = scores.reshape(-1, 2)
  ends = scores[np.arange(len(best)), best].mean(axis=0)
  gain = (ends - flat.mean(axis=0)) / flat.std(axis=0)
  told = capsys.readouterr().out
  assert f'gained by its reward, {100 * gain[1] / gain[0]:.0f} % [' in told
  assert 'by a model it was not trained on (20 prompts)' in told
  for more, message in (
    (flags[:1], 'go together'),
    ([flags[0], f'--witness={models[0] / "model_0"}'], 'is part of the reward'),
  ):
    with pytest.raises(errors.UserError, match=message):
      run(models, tmp_path, chosen, '--overwrite', *more)


def test_wrong_flags_are_one_line(models, tmp_path):
  for flag, message in (
    ('--aggregate=min', 'add --normalise'),
    ('--batch_size=0', 'not a number of at least 1'),
    (
      '--prompt_template=',
      r"--prompt_template: no file, and no '\{prompt\}' in",
    ),
    ('--modle=x', 'unrecognized arguments'),
  ):
    with pytest.raises(errors.UserError, match=message):
      run(models, tmp_path, [ROW], flag)


def test_what_cannot_be_scored_leaves_nothing(models, tmp_path):
  with pytest.raises(errors.UserError, match='none of its 1 rows'):
    run(models, tmp_path, [{'prompt': 'one', 'completion': ''}])
  with pytest.raises(errors.UserError, match='it is empty'):
    run(models, tmp_path, [])
  assert [p.name for p in tmp_path.iterdir()] == ['in.jsonl']
  run(models, tmp_path, [ROW])
  with pytest.raises(errors.UserError, match='is there already'):
    run(models, tmp_path, [ROW])


def test_tables_hold_what_json_does_not(models, tmp_path):
  table = pa.table(
    {
      **{name: [text] for name, text in ROW.items()},
      'time': [datetime.datetime(2024, 7, 26, 1, 2, 3)],
      'price': [decimal.Decimal('1.10')],
      'data': [b'\xff\x00'],
    }
  )
  pq.write_table(table, tmp_path / 'in.parquet')
  out = tmp_path / 'out.jsonl'
  flags = [f'--data={tmp_path}/in.parquet', f'--out={out}']
  assert score.main([f'--model={models[0]}/model_0', *flags]) == 0
  row = json.loads(out.read_text())
  assert row['time'] == '2024-07-26T01:02:03' and row['price'] == '1.10'
  assert row['data'] == '/wA='

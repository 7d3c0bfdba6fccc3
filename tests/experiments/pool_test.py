# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The skeleton of the experiments: rows, intervals, verdicts, scores, READMEs."""

import re
import types

import jax
import numpy as np
import pytest
import scipy.stats
import tiny

from experiments.pool import arms, evidence, launch, ledger, scores, settings
from warm_jax import errors, members, merging

SHAPE = tiny.model(20, 8)


def claim_of(key, kind):
  """A row of claims.csv."""
  row = dict.fromkeys(('paper', 'margin', 'effect', 'note', 'added'), '')
  return row | dict(key=key, family='f', claim=key, kind=kind, quantity='q')


def fake_arm(folder, params):
  """An arm whose members are given, beside four pairs."""
  config = settings.get_config('smoke')
  base = dict(
    shape=SHAPE, config=config, pairs=lambda split: tiny.random_pairs(4)
  )
  base = types.SimpleNamespace(**base)
  return types.SimpleNamespace(folder=folder, params=params, base=base)


def test_interval_over_seeds_is_that_of_scipy():
  values = np.array([0.1, 0.4, -0.2, 0.3, 0.25])
  wanted = scipy.stats.t.interval(
    0.95, 4, loc=values.mean(), scale=scipy.stats.sem(values)
  )
  found = evidence.interval([*values, np.nan])  # a seed without a value
  assert found == pytest.approx((0.17, *wanted))
  assert np.isnan(evidence.interval([0.3])[1:]).all()
  assert np.isnan(evidence.interval([np.nan])).all()


# Each value three times: six values v +- d have the t interval v +- 1.15 d.
@pytest.mark.parametrize(
  ('kind', 'values', 'wanted'),
  [
    ('above', (1.0, 1.1), evidence.HOLDS),
    ('above', (-1.0, -1.1), evidence.FAILS),
    ('above', (1.0, -1.0), evidence.OPEN),
    ('above', (0.0, 0.0), evidence.OPEN),
    ('above', (1.0, np.nan), evidence.OPEN),  # half of the seeds: a selection
    ('below', (-1.0, -1.1), evidence.HOLDS),
    ('equal', (0.001, 0.0011), evidence.HOLDS),
    ('equal', (0.0, 0.02), evidence.OPEN),
    ('equal', (0.05, 0.0501), evidence.FAILS),
    ('equal', (-0.05, -0.0501), evidence.FAILS),
  ],
)
def test_verdicts(kind, values, wanted):
  claim = evidence.Claim('c', '', kind, 'q', values * 3)
  assert claim.verdict == wanted
  few = evidence.Claim('c', '', kind, 'q', values)  # two seeds decide nothing
  assert few.verdict == evidence.OPEN
  assert wanted in evidence.claims_text(evidence.marked([claim.row()]))


def test_cells_of_seeds_become_tables(tmp_path):
  by_seed = {}
  for seed in (3, 1):
    rows = evidence.Rows()
    rows.add('t', 'a', evidence.SETS['ood'], [seed, seed + 1])
    rows.add('t', 'a', evidence.SETS['test'], 0.25)
    rows.add('t', 'a', evidence.SETS['test'], 0.75)  # the mean of both
    rows.add('t', 'b', evidence.SETS['test'], [])
    by_seed[seed] = rows.cells()
  results = evidence.Results(by_seed)
  assert results('t', 'a', evidence.SETS['ood']).tolist() == [1.5, 3.5]
  with pytest.raises(KeyError, match="no cell 't', 'c'"):
    results('t', 'c', 'd')
  evidence.write_csv(tmp_path / 'tables.csv', results.tables_csv())
  cells = evidence.read_csv(tmp_path / 'tables.csv')
  text = evidence.table_text(cells, 't', '+1', {'b': '2m'})
  assert text.splitlines() == [
    '|  | held-out pairs | out-of-distribution pairs |',
    '| --- | --- | --- |',
    '| a | +0.5 [+0.5,\u00a0+0.5] | +2.5 [\u221210.2,\u00a0+15.2] |',
    '| b | – | – |',
  ]
  evidence.write_csv(tmp_path / 'rows.csv', results.rows_csv())
  assert len(evidence.read_csv(tmp_path / 'rows.csv')) == 6


@pytest.mark.parametrize('name', ledger.NAMES)
def test_kept_verdicts_are_about_the_claims_that_are_written_down(name):
  folder = ledger.HERE / name
  written = evidence.read_csv(folder / 'claims.csv')
  kept = evidence.read_csv(folder / 'results' / 'claims.csv')
  assert len({row['key'] for row in written}) == len(written)
  measured = [r for r in written if r['key'] in {r['key'] for r in kept}]
  for column in ('key', 'family', 'claim', 'paper', 'quantity', 'kind'):
    assert [r[column] for r in measured] == [r[column] for r in kept]
  others = {r['key'] for r in written} - {r['key'] for r in kept}
  assert all(key.startswith('tuned_') for key in others)  # by other settings
  for row in kept:  # verdicts follow from the intervals beside them
    low, value, high = (float(row[k]) for k in ('low', 'estimate', 'high'))
    is_early = int(row['seeds']) < evidence.FEWEST_SEEDS
    if is_early or np.isnan(low):
      assert row['verdict'] == evidence.OPEN
      continue
    assert low <= value <= high
    if row['kind'] != 'equal':
      if row['kind'] == 'below':
        low, high = -high, -low
      wanted = evidence.HOLDS if low > 0 else evidence.OPEN
      assert row['verdict'] == (evidence.FAILS if high < 0 else wanted)


def test_pages_are_those_of_the_kept_results():
  """README.md and docs/results.md, too: `python -m experiments.pool.ledger`."""
  for path, text in ledger.pages().items():
    assert path.read_text(encoding='utf-8') == text, path
    assert 'Not measured.' not in text
    if path not in ledger.PAGES:
      kept = evidence.read_csv(path.parent / 'results' / 'tables.csv')
      shown = {m.group(2) for m in ledger.MARKER.finditer(text)}
      assert shown - {None} <= {c['table'] for c in kept}


def test_results_of_kept_rows_are_made_from_them(tmp_path, monkeypatch):
  monkeypatch.setattr(ledger.figures, 'draw', lambda *args: None)
  experiment = ledger.load('optimisation')
  config = experiment.get_config()
  found = experiment.kept(config)
  ledger.tabulate(experiment, config, 'optimisation', found, tmp_path)
  for file in ('claims.csv', 'tables.csv'):
    kept = evidence.read_csv(ledger.results_of('optimisation') / file)
    made = evidence.read_csv(tmp_path / file)
    for one, other in zip(kept, made, strict=True):
      for key in {'estimate', 'low', 'high', 'p'} & one.keys():
        ends = [float(row.pop(key) or 'nan') for row in (one, other)]
        assert ends[0] == pytest.approx(ends[1], nan_ok=True)
      assert one == other


def test_numbers_in_prose_and_verdicts_that_it_is_written_for(
  tmp_path, monkeypatch
):
  folder, path = tmp_path / 'made_up', tmp_path / 'page.md'
  (folder / 'results').mkdir(parents=True)
  written = claim_of('gain, ood', 'above')
  values = np.array([0.1, 0.11, 0.12, 0.13, 0.14])
  judged = evidence.judged([written], {'gain, ood': values})
  evidence.write_csv(folder / 'results' / 'claims.csv', judged)
  cell = dict(table='t', row='a, b', column='c', estimate=2, low=1, high=3)
  evidence.write_csv(folder / 'results' / 'tables.csv', [cell])
  monkeypatch.setattr(ledger, 'HERE', tmp_path)
  half = 2.776445 * np.std(values, ddof=1) / 5**0.5
  low, high = (f'{100 * (0.12 + x):.1f}' for x in (-half, half))
  wanted = {
    'gain, ood | %1': f'12.0 [{low},\u00a0{high}]',
    'gain, ood | -2m': '\u22120.12',
    'gain, ood | verdict': 'holds',
    't // a, b // c | -1': '\u22122.0 [\u22123.0,\u00a0\u22121.0]',
  }
  path.write_text(
    '; '.join(f'<!-- n made_up: {k} -->?<!-- /n -->' for k in wanted)
  )
  found = ledger.page(path, folder / 'results')
  assert re.findall('-->(.*?)<!-- /n -->', found) == list(wanted.values())
  path.write_text(found + '<!-- if made_up: gain, ood holds -->')
  ledger.page(path, folder / 'results')
  for marker, message in (
    ('<!-- if made_up: gain, ood undecided -->', "now 'holds'; write it anew"),
    ('<!-- n made_up: loss | 2 -->?<!-- /n -->', "has no result 'loss'"),
  ):
    path.write_text(found + marker)
    with pytest.raises(errors.UserError, match=message):
      ledger.page(path, folder / 'results')


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--config.stepz=3', 'stepz'),
    ('--config.arm.batch_size=many', 'bad setting'),
    ('--config.scale=huge', 'unknown scale'),
    ('--config.seeds=(3,)', 'at least two'),
    ('--config.seeds=(3, 3)', 'name each seed once'),
    ('--stage=train', 'unknown stage'),
    ('--wrokdir=x', 'unknown flag'),
    ('smoke', 'not of the form'),
  ],
)
def test_bad_flags_are_refused(flag, message, capsys):
  assert launch.run('label_corruption', ['run', flag]) == 2
  assert message in capsys.readouterr().err


def test_points_of_a_line_are_between_its_ends(tmp_path, monkeypatch):
  margins = np.array([[3.0, -1.0, -1.0, 0.5], [-1.0, 3.0, -1.0, 0.5]])
  arm = fake_arm(tmp_path, {'w': jax.numpy.asarray(margins, 'float32')})

  def linear(stack, *_):  # the weights are the margins
    w = np.asarray(stack['w'])
    return np.stack([w, np.zeros_like(w)], axis=1)

  alone, lams = linear({'w': margins}), np.linspace(0, 1, 5)
  monkeypatch.setattr(scores, 'score', linear)
  monkeypatch.setattr(scores, 'of_members', lambda arm, sets: {'test': alone})
  lines = [(0, 1, lams), (1, 0, lams[::2])]
  found = scores.of_lines(arm, 'line', lines, sets=['test'])['test']
  wanted = [(1 - x) * alone[0] + x * alone[1] for x in lams]
  np.testing.assert_allclose(found[0], wanted, atol=1e-6)
  np.testing.assert_allclose(found[1], wanted[::-2], atol=1e-6)
  # Each end is right on two of four, their middle (1, 1, -1, .5) on three.
  path = list(scores.path_values(found[0][::2], (0.0, 0.5, 1.0)))
  wa, ens = ([v for n, _, v in path if n == name] for name in ('WA', 'ENS'))
  assert wa == ens == [0.5, 0.75, 0.5]
  assert path[:2] == [('diagonal', '0', 0.5), ('diagonal', '0.5', 0.5)]


def test_ranking_correlation_and_vectors():
  assert scores.ranking([0.5, 0.75, 0.5, 0.75]) == [1, 3, 0, 2]
  assert scores.correlation([1, 1, 1], [1, 2, 3]) == 0.0
  assert scores.correlation([1, 2, 3], [2, 4, 9]) == pytest.approx(1.0)
  tree = {'a': np.arange(4.0).reshape(2, 2), 'b': {'c': np.array([7.0, 8.0])}}
  assert scores.vectors(tree).tolist() == [[0, 1, 7], [2, 3, 8]]
  merged = scores.uniform(
    {'w': np.arange(3, dtype=np.float32)}, [(0, 1), (0, 1, 2)]
  )
  assert merged['w'].tolist() == [0.5, 1.0]


def test_ensembles_of_groups():
  raw = np.arange(12.0).reshape(3, 2, 2)
  found = scores.ensembles(raw, [(0, 2), (1,)])
  np.testing.assert_allclose(found[0], (raw[0] + raw[2]) / 2)
  np.testing.assert_allclose(found[1], raw[1])
  # On one scale, members that differ by scale and offset alone are equal.
  twins = np.stack([raw[0], 5 * raw[0] + 3])
  same = scores.ensembles(twins, [(0,), (1,), (0, 1)], reference=twins)
  np.testing.assert_allclose(same[0], same[1])
  np.testing.assert_allclose(same[0], same[2])


def test_merges_are_scored_once_and_kept(tmp_path):
  stack = members.stack([tiny.reward_params(SHAPE, m) for m in range(3)])
  arm, groups = fake_arm(tmp_path, stack), [(0, 1), (0, 1, 2)]
  found = scores.of_merges(arm, 'test_groups', groups, ['test'])['test']
  whole = jax.tree.map(lambda x: x[None], merging.uniform(stack))
  wanted = scores.score(whole, SHAPE, arm.base.pairs('test'))
  np.testing.assert_allclose(found[1], wanted[0], atol=1e-6)
  arm.params = None  # nothing is computed again
  again = scores.of_merges(arm, 'test_groups', groups, ['test'])['test']
  np.testing.assert_array_equal(found, again)


def test_scores_are_kept_for_the_same_rows_made_alike(tmp_path):
  pairs, calls = tiny.random_pairs(5), []

  def compute():
    calls.append(1)
    return {'scores': np.array([float(len(calls))])}

  swapped = arms.swapped_pairs(pairs, np.arange(5) == 0)
  for rows, how, wanted in (
    *((pairs, 1, 1.0), (tiny.random_pairs(5), 1, 1.0), (pairs, 2, 2.0)),
    *((tiny.random_pairs(4), 2, 3.0), (swapped, 2, 4.0), (pairs, 1, 5.0)),
  ):
    fingerprint = scores._fingerprint(rows, {'a': how})
    found = scores.cached(tmp_path / 'scores.npz', compute, fingerprint)
    assert found.keys() == {'scores'}
    assert found['scores'].tolist() == [wanted]


def test_swapping_encoded_pairs_is_swapping_their_labels():
  pairs = tiny.random_pairs(6)
  flips = np.array([True, False, True, False, False, False])
  found = arms.swapped_pairs(pairs, flips)
  np.testing.assert_array_equal(found.flipped, flips)
  chosen = np.where(flips[:, None], pairs.rejected.ids, pairs.chosen.ids)
  mask = np.where(flips[:, None], pairs.chosen.mask, pairs.rejected.mask)
  np.testing.assert_array_equal(found.chosen.ids, chosen)
  np.testing.assert_array_equal(found.rejected.mask, mask)
  back = arms.swapped_pairs(found, flips)
  np.testing.assert_array_equal(back.chosen.ids, pairs.chosen.ids)
  assert not back.flipped.any()


def test_p_values_are_those_of_scipy_and_adjusted_by_holm():
  rng = np.random.default_rng(0)
  claims = [('above', 0.5, 0.0), ('equal', 0.1, 0.4), ('below', 0.2, 0.0)]
  written, numbers = [], {}
  for i, (kind, mean, margin) in enumerate(claims):
    key = f'k{i}'
    numbers[key] = mean + 0.3 * rng.normal(size=9)
    row = claim_of(key, kind) | {'margin': str(margin or ''), 'effect': '0.45'}
    written.append(row)
  rows = evidence.judged(written, numbers)
  test = scipy.stats.ttest_1samp
  wanted = [
    test(numbers['k0'], 0).pvalue,
    max(
      test(numbers['k1'], -0.4, alternative='greater').pvalue,
      test(numbers['k1'], 0.4, alternative='less').pvalue,
    ),
    test(numbers['k2'], 0).pvalue,
  ]
  assert [row['p'] for row in rows] == pytest.approx(wanted)
  for row, values in zip(rows, numbers.values()):
    _, low, high = evidence.interval(values)
    is_small = -0.45 < low and high < 0.45
    assert ('smaller than 0.45' in row['mark']) == is_small
  # The example of Holm (1979): .01, .04, .03, .005 -> .03, .06, .06, .02.
  adjusted = evidence.holm([0.01, 0.04, 0.03, 0.005])
  assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
  many = evidence.marked(rows[:1] * 9)
  assert {row['mark'].partition(';')[0] for row in many} == {'exploratory'}

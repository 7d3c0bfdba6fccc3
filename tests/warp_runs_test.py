# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A whole run of WARP at nano size: finished, killed, continued, and told."""

import csv
import itertools
import json

import chains
import numpy as np
import pytest

from warm_jax import pipeline
from warm_jax.stages import fronts

EARLY = (
  *('world', 'data', 'model', 'pretrain', 'sft', 'preferences', 'control'),
  *('probe', 'reward', 'merge'),
)
slow = pytest.mark.slow


def load_config(**changes):
  """WARP at nano size, in the world and with the reward models of nano.py."""
  config, nano = chains.load_config('warp:nano'), chains.load_config('nano')
  for name in {'kind', *EARLY} & set(nano):
    config[name] = nano[name]
  config.update_from_flattened_dict(changes)
  return config.lock()


STAGES = chains.names(load_config())


def test_sets_hold_the_sft_policy_and_their_own():
  rows = (
    'sft policy, warp_1 policy, warp_1 ema, warp_1 slerp, warp_1 to_init, '
    'warp_1 to_sft, sft_anchor policy, sft_anchor ema, sft_anchor to_sft'
  )
  rows = [dict(zip(('run', 'what'), x.split())) for x in rows.split(', ')]
  assert fronts.series(rows) == {
    'members': [0, 1],
    'members_ema': [0, 2],
    'warp_1': [0, 5],
    'sft_anchor': [0, 6],
    'sft_anchor_ema': [0, 7],
    'sft_anchor_line': [0, 8],
  }


def test_differences_are_paired_and_have_their_sign():
  """Equal sets differ by exactly 0; a better one by what it is better."""
  rng = np.random.default_rng(1)
  noise = rng.normal(size=40)
  values = {
    'kl': np.stack([0 * noise, 0 * noise + 1, 0 * noise + 1]),
    **{j: np.stack([noise, noise + 1, noise + 1.5]) for j in fronts.JUDGES},
  }
  found = fronts.compare(
    {'sft_anchor_line': [0, 1], 'same': [0, 1], 'warp_1': [0, 2]},
    values,
    max_kl=2.0,
    resamples=50,
  )
  for judge in (*fronts.JUDGES, 'gold_by_proxy'):
    assert found['same'][f'difference_{judge}_high'] == 0.0
    # Half of the budgets reach the policy that is 0.5 better.
    for end in ('', '_low', '_high'):
      np.testing.assert_allclose(
        found['warp_1'][f'difference_{judge}{end}'], 0.25
      )
  assert '+0.25 [+0.25, +0.25]' in fronts.summary(found, 1, 2.0)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished nano run; tests copy from it and leave it alone."""
  folder = tmp_path_factory.mktemp('warp')
  chains.copy_until(chains.finished(tmp_path_factory), folder, STAGES, 'warp')
  pipeline.run(load_config(), folder)
  return folder


def result(folder, stage):
  return json.loads((folder / stage / 'result.json').read_text())['result']


@slow
def test_all_stages_finish_and_a_second_launch_does_nothing(finished, capsys):
  for name in STAGES:
    assert result(finished, name)['summary'], name
  pipeline.run(load_config(), finished)
  assert capsys.readouterr().out.count('finished earlier') == len(STAGES)
  page = (finished / 'report' / 'index.html').read_text()
  assert 'WARP on TinyTLDR' in page
  for name in ('warp_fronts', 'warp_paths', 'warp_shape', 'warp_geometry'):
    assert f'id="{name}"' in page
    assert (finished / 'report' / 'figures' / f'{name}.csv').stat().st_size


@slow
def test_rows_hold_every_policy_once(finished):
  found = result(finished, 'fronts')
  rows = found['rows']
  etas = load_config().fronts.etas
  for number, steps in ((1, [0, 2, 4, 6]), (2, [0, 2, 4])):
    here = [row for row in rows if row['run'] == f'warp_{number}']
    for what, member in itertools.product(('policy', 'ema'), (0, 1)):
      path = [
        r['step']
        for r in here
        if (r['what'], r.get('member')) == (what, member)
      ]
      assert path == steps
    for what in ('to_init', 'to_sft'):
      assert [r['eta'] for r in here if r['what'] == what] == sorted(etas)
    (slerp,) = (r for r in here if r['what'] == 'slerp')
    for row in here:  # the merge is the end of both lines
      if row.get('eta') == 1.0:
        assert row['params'] == slerp['params'] and row['kl'] == slerp['kl']
  for name in ('sft_anchor', 'ema_anchor'):
    path = [r for r in rows if r['run'] == name and r['what'] == 'policy']
    # As many updates as two members of 6 and of 4 steps.
    assert [row['step'] for row in path] == [0, 5, 10, 15, 20]
    line = [r for r in rows if r['run'] == name and r['what'] == 'to_sft']
    assert [r['kl'] for r in line if r['eta'] == 1.0] == [path[-1]['kl']]
  start = [r for r in rows if r.get('step') == 0 and r['run'] != 'warp_2']
  assert {row['params'] for row in start} == {'sft'}
  assert rows[0]['kl'] == 0.0
  with (finished / 'fronts' / 'rows.csv').open() as file:
    assert [float(r['gold']) for r in csv.DictReader(file)] == [
      r['gold'] for r in rows
    ]
  values = np.load(finished / 'fronts' / 'values.npz')
  np.testing.assert_allclose(
    values['proxy'].mean(axis=1), [r['proxy'] for r in rows]
  )
  assert values['similarity'].shape == (len(rows), 12)
  assert found['win_rate_by'] == 'gold' and rows[0]['win_rate'] == 0.5
  assert {'ended', 'control', 'win_rate_lc'} <= set(rows[-1])

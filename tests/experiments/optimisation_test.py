# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The experiment on optimisation, on judgements made by hand."""

import pathlib
import types

import numpy as np
import pytest

from experiments.optimisation import models, policies, run
from experiments.pool import evidence, ledger
from warm_jax import errors

MEMBERS = [f'member_{m}' for m in range(3)]
NAMES = ('gold', 'moved_back', *MEMBERS, 'warm', 'ens', 'min', 'pooled')
STEPS = [0, 10, 20, 30]
# KL and gold at the steps; member m gains m more of each judge of its own.
KL = np.array([0.0, 1.0, 3.0, 5.0])
GAIN = {'gold': 2.0, 'warm': 0.5, 'ens': 0.7, 'min': 0.8, 'pooled': 0.6}


def made_up(posts=40):
  """K policies whose judges are (shared error + own error) by construction.

  Along the run, every judge gains KL of error on every policy, and judge m .25
  KL more on the policy that climbed it: tau_error is 1 / 1.25.
  """
  rng = np.random.default_rng(0)
  base = rng.normal(size=posts)  # gold of SFT on each post
  noise = {j: rng.normal(size=posts) for j in (*MEMBERS, *policies.JUDGES)}
  values = {}
  shape = (len(NAMES), len(STEPS), posts)
  values['kl'] = np.broadcast_to(KL[None, :, None], shape)
  gains = np.array([GAIN.get(n, 0.2 if n in MEMBERS else 0.1) for n in NAMES])
  values['gold'] = base + (gains[:, None] * KL)[:, :, None]
  values['length'] = np.full(shape, 6.0) + base
  values['control'] = values['gold'] + 0.1
  for judge in (*MEMBERS, *policies.JUDGES):
    own = np.array([1.25 if n == judge else 1.0 for n in NAMES])
    error = (own[:, None] * KL)[:, :, None] + noise[judge]
    values[judge] = values['gold'] + error
  return policies.Judged(STEPS, NAMES, values)


def results_of(judged, s=1.0):
  config, rows = run.get_config('full'), evidence.Rows()
  found = types.SimpleNamespace(num=3, best=2)
  run._policies(rows, config, found, judged, f's{s:g}')
  return evidence.Results({0: rows.cells()})


def test_gold_at_equal_kl_and_the_share_of_the_regret():
  found = results_of(made_up())

  def cell(table, row, column='KL 2'):
    return found(f'{table}_s1', row, column)[0]

  start = cell('gold_along', 'WARM', '0')
  assert cell('gold', 'the utility') == pytest.approx(start + 4.0)
  assert cell('gold', run.SINGLE) == pytest.approx(start + 0.4)
  assert cell('gold_over_single', 'WARM') == pytest.approx(1.0 - 0.4)
  assert cell('closed', 'WARM') == pytest.approx(0.6 / 3.6)
  assert cell('closed', 'ENS', 'KL 4') == pytest.approx(0.5 / 1.8)
  itself = f'{run.MOVED}, over itself'
  assert cell('gold_over_single', itself) == pytest.approx(-0.2)
  assert cell('own_best_step', 'WARM', 'step') == 30
  assert cell('own_best_step', 'WARM', 'wins against single') == 1.0


def test_tau_along_the_run_is_what_was_built_in():
  found = results_of(made_up())
  for kl in ('KL 1', 'KL 3'):
    tau = found('tau_s1', f'RL, {kl}', 'tau_error')[0]
    assert tau == pytest.approx(1 / 1.25, abs=0.02)
  law = found('law_RL_KL_3', 's1', '1 - tau')[0]
  assert law == pytest.approx(0.2, abs=0.02)
  granted = 'granted_s1'
  itself, others = (
    found(granted, run.SINGLE, who)[0] for who in ('itself', 'other members')
  )
  # All of them see .6 of gold besides.
  assert others / itself == pytest.approx(3.6 / 4.35, abs=0.05)
  assert found(granted, 'WARM', 'WARM')[0] > found(granted, 'ENS', 'WARM')[0]


def test_a_kl_that_is_not_reached_has_no_number():
  judged = made_up()
  values = judged.values | {'kl': judged.values['kl'] * 0.5}  # ends at 2.5
  found = results_of(judged._replace(values=values))
  assert np.isnan(found('gold_s1', 'WARM', 'KL 3')).all()
  assert np.isfinite(found('gold_s1', 'WARM', 'KL 2')).all()
  assert not found.has('tau_s1', 'RL, KL 3', 'tau_error')


def test_tau_of_best_of_n_and_of_merges_with_one_left_out():
  rng = np.random.default_rng(1)
  gold, common = rng.normal(size=(2, 300, 8))
  own = rng.normal(size=(3, 300, 8)) * 0.5**0.5
  z = dict(zip(MEMBERS, gold + common + own))
  merges = {
    f'without_{m}': np.mean([z[k] for k in MEMBERS if k != f'member_{m}'], 0)
    for m in range(3)
  }
  data = policies.BestOfN(None, gold, z | merges)
  found = policies.agreement_of_best(data, 3, 8)
  assert found['members']['tau_error'] == pytest.approx(1 / 1.5, abs=0.05)
  # The error of a merge of two is shared + own / 2, on a smaller scale.
  merged = (1 / 1.25) * (2.25 / 2.5) ** 0.5
  without = found['WARM without one']
  assert without['tau_error'] == pytest.approx(merged, abs=0.05)
  best = data.chosen_by(gold, (1, 8))
  assert best[0] == pytest.approx(gold.mean()) and best[1] > best[0] + 1


def test_each_reward_takes_the_strength_that_control_prefers(monkeypatch):
  config, found = run.get_config('full'), evidence.Rows()
  config.betas, config.num_posts = (0.0, 0.1, 0.3), 40

  def judge(found, sets, whole):  # gold and control are best at .1
    judged, better = made_up(), 1.0 - abs(whole.rl.kl_coef - 0.1)
    more = {k: judged.values[k] + better for k in ('gold', 'control')}
    return judged._replace(
      names=tuple(*sets.values()), values=judged.values | more
    )

  monkeypatch.setattr(policies, 'judge', judge)
  base = types.SimpleNamespace(root=pathlib.Path())
  run._tuned(found, config, types.SimpleNamespace(num=3, base=base), 's1')
  cells = {cell[1:3]: cell[3] for cell in found.cells()}
  for label in ('WARM', 'ENS', run.SINGLE):
    found = [cells[label, column] for column in ('beta', 'step', 'kl')]
    assert found == pytest.approx([0.1, 30, 5.0])


def test_pools_of_a_gold_model_differ_by_their_swaps_alone():
  base, flips = object.__new__(models.Distilled), np.arange(400) % 4 == 0
  base.config = run.get_config('full')
  base.pairs = lambda split: types.SimpleNamespace(flipped=flips)
  assert not base.opposite(3, 1.0).any()
  own = base.opposite(3, 0.0) ^ flips  # back to swaps
  assert (own[0] == flips).all() and own.sum(axis=1).tolist() == [100] * 3
  assert (own[1] != own[2]).any()
  assert ((base.gold_sides() < 0) == flips).all()


def test_rows_are_kept_and_those_of_other_settings_are_refused(
  tmp_path, monkeypatch
):
  config, calls = run.get_config('smoke'), []

  def unit(config, workdir, shared):
    calls.append(shared)
    rows = evidence.Rows()
    rows.add(f't_s{shared:g}', 'r', 'c', 0.125 + shared)
    return rows

  monkeypatch.setattr(run, '_unit', unit)
  first = run.measure(config, tmp_path).cells()
  assert first == [('t_s1', 'r', 'c', 1.125), ('t_s0', 'r', 'c', 0.125)]
  assert run.measure(config, tmp_path).cells() == first
  assert calls == [1.0, 0.0]  # nothing is measured again
  config.shared = (1.0, 0.5, 0.0)  # one more degree is one more unit
  run.measure(config, tmp_path)
  assert calls == [1.0, 0.0, 0.5]
  config.rl.kl_coef = 0.5
  with pytest.raises(errors.UserError, match='other settings'):
    run.measure(config, tmp_path)


def test_every_claim_has_an_effect_of_interest_and_a_small_family():
  claims = evidence.read_csv(ledger.HERE / 'optimisation' / 'claims.csv')
  families = [c['family'] for c in claims]
  assert max(map(families.count, families)) <= evidence.MOST_CLAIMS
  for claim in claims:
    assert claim['family'] and float(claim['effect']) > 0
    assert claim['kind'] != 'equal' or float(claim['margin']) > 0

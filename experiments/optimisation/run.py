# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Policies that climb reward models: does averaging help, and what decides it?

  python -m experiments.optimisation.run
  python -m experiments.pool.ledger  # fills the README from the kept rows

from the root of the repository; `--config.scale=smoke` takes minutes. The unit
of work is a seed at one degree s of shared errors. Its numbers are kept in
results/rows, so the same command goes on with the next unfinished unit even
where the work directory is gone; `--config.seeds='(0,1,2)'` reports on these.
"""

import csv
import hashlib
import json
import pathlib
import shutil
import sys

import ml_collections
import numpy as np

from experiments.optimisation import models, policies
from experiments.pool import evidence, launch, settings
from warm_jax import errors
from warm_jax.config import section
from warm_jax.evaluation import policies as policies_lib

ROWS = pathlib.Path(__file__).parent / 'results' / 'rows'
SINGLE, BEST = 'single (mean of the members)', 'best member by selection'
MOVED, ITSELF = 'one member moved back', 'the member that is moved back'
METHODS = {
  'warm': 'WARM',
  'ens': 'ENS',
  'min': 'worst case (min)',
  'moved_back': MOVED,
  'pooled': "one model on all pools' labels, a member's steps",
}
OF_BEST = METHODS | {
  'warm_2': 'WARM of 2',
  'ens_2': 'ENS of 2',
  'uncertainty': 'mean - variance / 2',
  'ens_back': 'ENS of members moved back',
  'pooled_long': "one model on all pools' labels, all members' steps",
  'pooled_early': "one model on all pools' labels, best step by selection",
  'early': 'best step of all members by selection',
}
SETS = {
  'wrong': 'training labels against the utility',
  'right': 'other training labels',
  'test': evidence.SETS['test'],
  'ood': evidence.SETS['ood'],
}


def get_config(scale: str = ''):
  """Settings; sizes and rates were chosen on seeds >= 100, before any claim."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  del config.scored
  config.seeds = tuple(range(20)) if full else (0, 1)
  config.shared = (1.0, 0.0)  # degrees to which pools share their errors
  config.rows = ''  # folder of the rows; '': results/rows, smoke: the workdir
  config.gold = 'utility'  # or 'control': that model is gold (E12)
  # KL coefficients that each reward chooses from (E10); (): config.rl.kl_coef.
  config.betas = ()
  config.world.update(
    name='covered',
    num_prompts=4_000 if full else 64,
    num_eval_prompts=1_600 if full else 40,
  )
  config.data.max_length = 44  # decorations make longer summaries
  pretraining = 1_500 if full else 12  # 3,000 steps are no better
  config.pretrain.update(steps=pretraining, keep_steps=(pretraining,))
  config.preferences.update(
    num_train=6_000 if full else 96,
    num_test=2_000 if full else 40,
    num_ood=2_000 if full else 40,
    num_control=4_000 if full else 64,
    swapped=0.25,
    selection_swapped=0.25,
    max_new_tokens=16 if full else 6,
  )
  config.preferences.tuned.max_new_tokens = 16 if full else 6
  config.arm.update(
    members=6 if full else 3,
    steps=375 if full else 8,
    batch_size=64 if full else 16,
    learning_rates=(1e-3, 1.5e-3, 2e-3),
    swapped=0.0,  # labels are swapped already
    keep_steps=settings.snapshots(375 if full else 8),
    checkpoint_every=0,
  )
  config.control = section('control')
  config.control.model = config.model.copy_and_resolve_references()
  config.control.pretrain.update(
    steps=pretraining,
    learning_rate=3e-3,
    keep_steps=(pretraining,),
    checkpoint_every=0,
  )
  config.control.reward.update(
    steps=500 if full else 8, learning_rate=2e-3, dropout_rate=0.05
  )
  for part in (config.control.pretrain, config.control.reward):
    part.batch_size = 32 if full else 16
    part.checkpoint_every = 0
    part.optimizer.warmup_steps = 20 if full else 1

  config.rl = section(
    'policy', steps=100 if full else 4, eval_every=10 if full else 2
  )
  config.rl.update(
    batch_size=64 if full else 8,
    samples_per_prompt=4 if full else 2,
    baseline='leave_one_out',
    temperature=1.0,
    max_new_tokens=16 if full else 6,
    learning_rate=2.5e-4 if full else 1e-2,
    checkpoint_every=0,
  )
  config.rl.optimizer.warmup_steps = 20 if full else 1
  config.num_scored = 2_000 if full else 40  # pairs of a set
  config.num_posts = 400 if full else 16  # that policies are judged on
  config.best_of_n = {
    'num_posts': 1_200 if full else 24,
    'num_samples': 16,
  }
  config.etas = (0.2, 0.4, 0.6, 0.8, 1.0) if full else (0.6, 1.0)
  config.kls = (1.0, 2.0, 3.0, 4.0) if full else (0.01, 0.02)
  config.ns = (2, 4, 16) if full else (2, 16)
  # What the claims are about.
  config.claim_kl = 3.0 if full else 0.01
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed at each s; units whose rows are kept are not measured again."""
  folder = pathlib.Path(config.rows or workdir / 'rows')
  if not config.rows and config.scale == 'full':
    errors.need(
      _digest(config) == _digest(get_config()),
      'the rows in results/rows have other settings: name a folder for their '
      'rows (--config.rows=FOLDER), and a --workdir',
    )
    folder = ROWS
  rows = evidence.Rows()
  for shared in config.shared:
    path = folder / f'seed_{config.seed}_s_{shared:g}.csv'
    if not path.exists():
      _write(path, _unit(config, workdir, shared).cells(), _digest(config))
      print(f'seed {config.seed}, s = {shared:g}: {path}', flush=True)
    for *cell, value in _read(path, _digest(config)):
      rows.add(*cell, value)
  policies_folder = workdir / f'seed_{config.seed}' / 'policies'
  shutil.rmtree(policies_folder, ignore_errors=True)  # the bulk of the seed
  return rows


def kept(config) -> evidence.Results:
  """The numbers of all seeds whose rows are kept for every s."""
  found = {}
  for seed in config.seeds:
    paths = [ROWS / f'seed_{seed}_s_{s:g}.csv' for s in config.shared]
    if all(path.exists() for path in paths):
      found[seed] = [c for p in paths for c in _read(p, _digest(config))]
  return evidence.Results(found)


def _digest(config) -> str:
  """Of all settings that a unit depends on."""
  free = ('runtime', 'seed', 'seeds', 'shared', 'rows', 'scale')
  plain = {k: v for k, v in config.to_dict().items() if k not in free}
  for name, default in (('gold', 'utility'), ('betas', ())):
    if plain[name] == default:  # rows from before there was a choice
      del plain[name]
  text = json.dumps(plain, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=6).hexdigest()


def _write(path: pathlib.Path, cells, digest: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix('.tmp')
  with temporary.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['table', 'row', 'column', f'value ({digest})'])
    writer.writerows([*cell, f'{value:.6g}'] for *cell, value in cells)
  temporary.rename(path)


def _read(path: pathlib.Path, digest: str) -> list:
  with path.open(newline='', encoding='utf-8') as file:
    (*_, column), *rows = csv.reader(file)
  errors.need(
    digest in column,
    f'{path} was made with other settings ({column}, now {digest}): move it '
    'away, or give a folder of its own (--config.rows=FOLDER)',
  )
  return [(*cell, float(value)) for *cell, value in rows]


def _unit(config, workdir, shared: float) -> evidence.Rows:
  """The numbers of one seed at one s."""
  known = {'utility': models.Base, 'control': models.Distilled}
  errors.need(config.gold in known, f'config.gold is one of {tuple(known)}')
  base, rows = known[config.gold](config, workdir), evidence.Rows()
  found = models.Models(base, shared)
  suffix = f's{shared:g}'
  if config.betas:
    _tuned(rows, config, found, suffix)
    return rows
  _offline(rows, found, suffix)
  _best_of_n(rows, config, found, suffix)
  folder = base.root / 'policies'
  judged = policies.judge(
    found,
    {
      folder / 'common': policies.COMMON,
      folder / f's_{shared:g}': policies.rewards_of(found.num),
    },
  )
  _policies(rows, config, found, judged, suffix)
  return rows


def _offline(rows, found: models.Models, suffix: str) -> None:
  """Accuracies, and what lies between the start and the members (E0)."""
  etas = found.base.config.etas
  rows.add(f'chosen_{suffix}', 'eta of one member', 'eta', found.eta)
  rows.add(f'chosen_{suffix}', 'eta of ENS', 'eta', found.ens_eta)
  for split, by_model in found.accuracies().items():
    if split not in SETS:
      continue
    column = SETS[split]
    shown = {SINGLE: 'member, 1', 'frozen features, probed head': 'member, 0'}
    shown |= {'ENS': 'ens, 1', OF_BEST['ens_back']: f'ens, {found.ens_eta:g}'}
    shown |= {OF_BEST[k]: k for k in by_model if k in OF_BEST}
    shown[MOVED] = f'member, {found.eta:g}'  # the mean of all, moved alike
    for label, name in shown.items():
      rows.add(f'accuracy_{suffix}', label, column, by_model[name])
    for eta in (0.0, *etas):
      where, at = f'back_{split}_{suffix}', f'{eta:g}'
      rows.add(where, 'one member', at, by_model[f'member, {at}'])
      rows.add(where, 'ENS', at, by_model[f'ens, {at}'])
      rows.add(where, 'WARM', at, by_model['warm'])


def _best_of_n(rows, config, found: models.Models, suffix: str) -> None:
  """Gold of the best of n, over single and as a share of the regret (E4-E7)."""
  num = found.num
  data = policies.best_of(found, found.single)
  z = np.stack([data.scores[f'member_{m}'] for m in range(num)])
  back = found.moved_back(found.ens_eta)
  proxies = data.scores | {
    'ens': z.mean(axis=0),
    'ens_2': z[:2].mean(axis=0),
    'min': z.min(axis=0),
    'uncertainty': z.mean(axis=0) - 0.5 * z.var(axis=0),
    'ens_back': policies.scores_of(found, back, data).mean(axis=0),
    'gold': data.gold,
  }
  gold = {
    k: data.chosen_by(proxies[k], config.ns)
    for k in (*OF_BEST, 'gold', *(f'member_{m}' for m in range(num)))
  }
  single = np.mean([gold[f'member_{m}'] for m in range(num)], axis=0)
  # Every member is moved back, at the eta that was chosen for member 0.
  each = policies.scores_of(found, found.moved_back(found.eta), data)
  of_moved = [data.chosen_by(x, config.ns) for x in each]
  gold['moved_back'] = np.mean(of_moved, axis=0)
  best = gold[f'member_{found.best}']
  for i, n in enumerate(config.ns):
    at = {OF_BEST[k]: gold[k][i] for k in OF_BEST} | {BEST: best[i]}
    regret = gold['gold'][i] - single[i]
    column = f'n = {n}'
    rows.add(f'best_of_n_{suffix}', 'SFT', column, data.gold.mean())
    rows.add(f'best_of_n_{suffix}', SINGLE, column, single[i])
    rows.add(f'best_of_n_{suffix}', 'the utility', column, gold['gold'][i])
    for label, value in at.items():
      rows.add(f'best_of_n_{suffix}', label, column, value)
      rows.add(
        f'best_of_n_over_single_{suffix}', label, column, value - single[i]
      )
      closed = (value - single[i]) / regret
      rows.add(f'best_of_n_closed_{suffix}', label, column, closed)
    taus = policies.agreement_of_best(data, num, n)
    for what, found_taus in taus.items():
      rows.line(f'tau_{suffix}', f'best of {n}, {what}', found_taus)
    _law(rows, f'best_of_{n}', suffix, taus['members'], at, single[i], regret)


def _law(rows, where, suffix, tau, values, single, regret) -> None:
  """The share of the regret that averaging closes, against 1 - tau."""
  if tau:
    rows.add(f'law_{where}', suffix, '1 - tau', 1 - tau['tau_error'])
    for label in (METHODS['warm'], METHODS['ens'], METHODS['min']):
      closed = (values[label] - single) / regret
      rows.add(f'law_{where}', suffix, label, closed)


def _policies(rows, config, found, judged: policies.Judged, suffix) -> None:
  """Gold at equal KL (E8), tau along the run, own best steps (E11)."""
  num = found.num
  of_members = [f'member_{m}' for m in range(num)]
  for kl in config.kls:
    column = f'KL {kl:g}'
    gold = {k: judged.at_kl(k, 'gold', kl).mean() for k in judged.names}
    # Of the policies that get there; NaN if none does.
    reached = [gold[k] for k in of_members if np.isfinite(gold[k])]
    single = np.mean(reached) if reached else np.nan
    regret = gold['gold'] - single
    at = {METHODS[k]: gold[k] for k in METHODS}
    at[BEST] = gold[f'member_{found.best}']
    shown = {
      'the utility': gold['gold'],
      SINGLE: single,
      ITSELF: gold['member_0'],
    }
    for label, value in (shown | at).items():
      rows.add(f'gold_{suffix}', label, column, value)
    for label, value in at.items():
      rows.add(f'gold_over_single_{suffix}', label, column, value - single)
      rows.add(f'closed_{suffix}', label, column, (value - single) / regret)
    moved = gold['moved_back'] - gold['member_0']
    rows.add(
      f'gold_over_single_{suffix}', f'{MOVED}, over itself', column, moved
    )
    tau = policies.agreement_along(judged, num, kl)
    rows.line(f'tau_{suffix}', f'RL, {column}', tau)
    found_variances = policies.variances_along(judged, num, kl)
    rows.line(f'variances_{suffix}', column, found_variances)
    _law(rows, f'RL_KL_{kl:g}', suffix, tau, at, single, regret)
  for k, name in enumerate(judged.names):
    for i, step in enumerate(judged.steps):
      for key in ('kl', 'gold', 'control', 'length'):
        value = judged.values[key][k, i].mean()
        where = f'{key}_along_{suffix}'
        rows.add(where, _label(name), step, value)
  _cross(rows, judged, of_members, config.claim_kl, suffix)
  _best_steps(rows, judged, of_members, suffix)


def _cross(rows, judged: policies.Judged, of_members, kl, suffix) -> None:
  """What every judge grants every policy, in deviations on SFT samples."""
  for name in judged.names:
    label = _label(name)
    for judge in (*of_members, *policies.JUDGES, 'control'):
      start = judged.values[judge][0, 0]
      gain = (judged.at_kl(name, judge, kl).mean() - start.mean()) / start.std()
      column = 'itself' if judge == name else 'other members'
      column = column if judge in of_members else METHODS.get(judge, judge)
      if name not in of_members or np.isfinite(gain):
        rows.add(f'granted_{suffix}', label, column, gain)


def _label(name: str) -> str:
  return METHODS.get(name) or {'gold': 'the utility'}.get(name, SINGLE)


def _best_steps(rows, judged: policies.Judged, of_members, suffix) -> None:
  """Win rates at the step that control prefers on the other half of the posts."""
  values = judged.values
  choosing, reporting = policies_lib.halves(values['gold'].shape[2])
  best = values['control'][:, :, choosing].mean(axis=2).argmax(axis=1)
  gold, length = (
    {
      name: values[key][k, best[k]][reporting]
      for k, name in enumerate(judged.names)
    }
    for key in ('gold', 'length')
  )
  where = f'own_best_step_{suffix}'
  for k, name in enumerate(judged.names):
    label = _label(name)
    rows.add(where, label, 'gold', gold[name])
    rows.add(where, label, 'step', judged.steps[best[k]])
    for other in of_members if name not in of_members else ():
      won = policies_lib.wins(gold[name], gold[other])
      longer = length[name] - length[other]
      rows.add(where, label, 'wins against single', won)
      even = policies_lib.length_controlled(won, longer)
      rows.add(where, label, 'wins at equal length', even)


def _tuned(rows, config, found: models.Models, suffix: str) -> None:
  """Each policy at the KL strength and step that control prefers (E10)."""
  folder, names = found.base.root / 'policies', ['warm', 'ens', 'min']
  names += [f'member_{m}' for m in range(found.num)]
  best = {}  # {name: (control on the one half, its numbers on the other)}
  for beta in config.betas:
    whole = ml_collections.ConfigDict(config.to_dict())
    whole.rl.kl_coef = beta
    sets = {folder / f'beta_{beta:g}_{suffix}': tuple(names)}
    judged = policies.judge(found, sets, whole)
    choosing, reporting = policies_lib.halves(config.num_posts)
    control = judged.values['control'][:, :, choosing].mean(axis=2)
    for k, name in enumerate(names):
      i = int(control[k].argmax())
      numbers = {'beta': beta, 'step': judged.steps[i]}
      for column in ('kl', 'gold', 'length'):
        numbers[column] = judged.values[column][k, i, reporting].mean()
      best[name] = max(
        (best.get(name, (-np.inf,)), (control[k, i], numbers)),
        key=lambda found: found[0],
      )
  for name, (_, numbers) in best.items():
    rows.line(f'tuned_{suffix}', _label(name), numbers)


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  if config.betas:
    return _tuned_numbers(config, results)
  kl, n = f'KL {config.claim_kl:g}', f'n = {config.ns[-1]}'
  out = {}
  for s in config.shared:
    suffix = key = f's{s:g}'

    def over(label, table='gold_over_single', column=kl, suffix=suffix):
      return results(f'{table}_{suffix}', label, column)

    def accuracy(label, split, suffix=suffix):
      return results(f'accuracy_{suffix}', label, SETS[split])

    warm, ens, least, _, pooled = METHODS.values()
    out |= {
      f'rl_warm_{key}': over(warm),
      f'rl_ens_{key}': over(ens),
      f'rl_warm_ens_{key}': over(warm) - over(ens),
      f'rl_min_ens_{key}': over(least) - over(ens),
      f'rl_moved_{key}': over(f'{MOVED}, over itself'),
      # Each over what it was made of: member 0 may be far from the mean.
      f'rl_warm_moved_{key}': over(warm) - over(f'{MOVED}, over itself'),
      f'rl_pooled_{key}': over(pooled) - over(warm),
      f'rl_best_{key}': over(warm) - over(BEST),
    }
    best = {k: over(x, 'best_of_n_over_single', n) for k, x in OF_BEST.items()}
    by_selection = over(BEST, 'best_of_n_over_single', n)
    out |= {
      f'bon_warm_{key}': best['warm'],
      f'bon_ens_{key}': best['ens'],
      f'bon_warm_ens_{key}': best['warm'] - best['ens'],
      f'bon_moved_{key}': best['warm'] - best['moved_back'],
      f'bon_back_{key}': best['ens_back'] - best['warm'],
      f'bon_pooled_{key}': best['pooled'] - best['warm'],
      f'bon_long_{key}': best['warm'] - best['pooled_long'],
      f'bon_best_{key}': best['warm'] - by_selection,
    }
    for split in SETS:
      moved_back = accuracy(MOVED, split)
      out[f'e0_{split}_{key}'] = accuracy('WARM', split) - moved_back
      together = accuracy(OF_BEST['ens_back'], split)
      out[f'e0_ens_{split}_{key}'] = together - accuracy('WARM', split)
    for where, row in (
      ('rl', f'RL, {kl}'),
      ('bon', f'best of {config.ns[-1]}, members'),
    ):
      if results.has(f'tau_{suffix}', row, 'tau_error'):
        tau = results(f'tau_{suffix}', row, 'tau_error')
        out[f'tau_{where}_{key}'] = tau
    steps = f'own_best_step_{suffix}'
    if results.has(steps, warm, 'wins against single'):
      out[f'wins_{key}'] = results(steps, warm, 'wins against single') - 0.5
      out[f'wins_lc_{key}'] = results(steps, warm, 'wins at equal length') - 0.5
  return out | _between(config, results, out, kl)


def _tuned_numbers(config, results) -> dict[str, np.ndarray]:
  out = {}
  for s in config.shared:
    single, warm, ens, least = (
      results(f'tuned_s{s:g}', label, 'gold')
      for label in (SINGLE, *(METHODS[k] for k in ('warm', 'ens', 'min')))
    )
    out |= {
      f'tuned_warm_s{s:g}': warm - single,
      f'tuned_ens_s{s:g}': ens - single,
      f'tuned_warm_ens_s{s:g}': warm - ens,
      f'tuned_min_ens_s{s:g}': least - ens,
    }
  return out


def _between(config, results, out, kl) -> dict[str, np.ndarray]:
  """Numbers that compare two degrees of shared errors, or RL and best-of-n."""
  high, low = (f's{s:g}' for s in (max(config.shared), min(config.shared)))
  found = {}
  if high != low:
    ends = [f's{s:g}' for s in (min(config.shared), max(config.shared))]
    for name, label in (('warm', 'WARM'), ('ens', 'ENS')):
      less, more = (results(f'closed_{x}', label, kl) for x in ends)
      found[f'closed_{name}'] = less - more
    less, more = (results(f'accuracy_{x}', SINGLE, SETS['test']) for x in ends)
    found['equally_bad'] = less - more
    if {f'tau_rl_{high}', f'tau_rl_{low}'} <= out.keys():
      found['tau_falls'] = out[f'tau_rl_{high}'] - out[f'tau_rl_{low}']
    for s, suffix in zip((low, high), ends):
      if f'tau_rl_{s}' in out:
        law = 0.03 + 0.79 * (1 - out[f'tau_rl_{s}'])  # of the prototype
        ens = results(f'closed_{suffix}', 'ENS', kl)
        found[f'law_{s}'] = ens - law
  if {f'tau_rl_{high}', f'tau_bon_{high}'} <= out.keys():
    found['tau_bon_rl'] = out[f'tau_bon_{high}'] - out[f'tau_rl_{high}']
    found['tau_high'] = out[f'tau_rl_{high}'] - 0.8
  return found


F = evidence.Figure
QUESTION = 'Does averaging reward models help the policy that climbs them?'
SHARED = 'optimisation'
FIGURES = (
  F(
    'regret',
    kind='scatter',
    x='1 - tau',
    y='share of the regret closed',
    panels={'law_RL_KL_3': 'RL at KL 3', 'law_best_of_16': 'best of 16'},
    lines={
      'prototype, 6 members: .03 + .70 (1 - tau)': (0.03, 0.70),
      'prototype, 10 members: .03 + .79 (1 - tau)': (0.03, 0.79),
    },
  ),
  F(
    'over_single',
    'gold_over_single_',
    'dots',
    x='gold over single',
    column='KL 3',
  ),
  F('gold', 'gold_along_', x='step', y='gold'),
  F('back', 'back_', x='share of the way from the start', y='accuracy'),
)

if __name__ == '__main__':
  sys.exit(launch.run('optimisation', sys.argv))

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `fronts`: reward against KL of everything that WARP made on its way.

Each set of policies gets one number per judge: the mean, over budgets of KL, of
the best within the budget, chosen by that judge itself (by gold: an oracle), or
for `gold_by_proxy` the gold of what the proxy chooses.
# Deviation: the paper draws its fronts and gives no number.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from warm_jax import distributed, files, members, merging, sharding
from warm_jax.evaluation import intervals
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import evaluator
from warm_jax.stages import warp as warp_stage
from warm_jax.training import checkpoint

PyTree = Any
JUDGES = ('proxy', 'control', 'gold')
# Plain REINFORCE read as WARP is, on as many points of a line from SFT: the
# number is a staircase, and a path has few steps where the KL is low.
BASELINE = 'sft_anchor_line'
SFT = 'sft'


def run(run) -> dict:
  """Judges all candidates; writes rows.csv and values.npz ([rows, prompts])."""
  config, settings = run.config.warp, run.config.fronts
  panel = evaluator.Evaluator(
    run, (config.reward,), config, settings.num_prompts, settings.num_samples
  )
  _load.cache_clear()  # of another run under the same path, in this process
  rows, place = [], {}  # place of each policy among those that are judged

  def policies():
    for name, make, labels in candidates(run, panel.start):
      rows.append(labels | {'params': name})
      if name not in place:
        place[name] = len(place)
        yield {}, make, config.reward

  judged = panel.evaluate(policies(), exact_kl=True)
  index = [place[row['params']] for row in rows]
  rows = [row | judged.rows[k] for row, k in zip(rows, index)]
  values = {key: x[index] for key, x in judged.values.items()}
  folder = run.folder('fronts')
  if distributed.is_first():
    np.savez(folder / 'values.npz', **values)
    files.write_csv(folder / 'rows.csv', rows)
  max_kl, resamples = settings.max_kl, settings.num_bootstrap
  found = compare(series(rows), values, max_kl=max_kl, resamples=resamples)
  stopped = run.result('reinforce')['stopped_at']
  stopped_at = dict(zip(warp_stage.CONTROLS, stopped))
  numbers = range(1, config.iterations + 1)
  shown = {SFT: SFT} | {f'warp_{n}': f'merged_{n}' for n in numbers}
  for p, (name, last) in enumerate(stopped_at.items()):
    shown[name] = f'{name}/params_{last}/{p}'
  return {
    'rows': rows,
    'fronts': found,
    'max_kl': max_kl,
    'reward': config.reward,
    'iterations': config.iterations,
    'merge': config.merge,
    'prompts': len(judged.prompts),
    'win_rate_by': judged.win_rate_by,
    'updates': warp_stage.num_updates(config),
    'stopped_at': stopped_at,
    'samples': judged.examples(
      (name, place[params]) for name, params in shown.items()
    ),
    'summary': summary(found, config.iterations, max_kl),
  }


def candidates(run, sft: PyTree) -> Iterator[tuple]:
  """The SFT policy, then WARP iteration by iteration, then the controls.

  Yields a name of the weights (equal names are judged once), a call that loads
  or computes them, and labels: run ('sft', 'warp_1', ..., or a control), what
  ('policy', 'ema', 'slerp', 'lerp', 'to_init', 'to_sft'), and member, step, eta
  where they apply.
  """
  etas = {0.0, 1.0, *run.config.fronts.etas}
  yield SFT, lambda: sft, {'run': SFT, 'what': 'policy'}
  for record in run.result('warp')['iterations']:
    yield from _iteration(run, record, sft, etas)
  result, folder = run.result('reinforce'), run.folder('reinforce')
  ends = zip(warp_stage.CONTROLS, result['stopped_at'])
  for p, (name, last) in enumerate(ends):
    label = {'run': name}
    yield from _path(folder, p, result['kept_steps'], last, SFT, label)
    # The line from SFT to where it ended: LITI without WARP.
    names = {0.0: SFT, 1.0: f'{name}/params_{last}/{p}'}
    end = members.member(_load(folder / f'params_{last}'), p)
    yield from _line(sft, end, etas, label | {'what': 'to_sft'}, names)


def _iteration(run, record, sft: PyTree, etas):
  config, n = run.config.warp, record['number']
  folder, label = run.folder('warp') / f'iteration_{n}', {'run': f'warp_{n}'}
  at_init, merged = SFT if n == 1 else f'init_{n}', f'merged_{n}'
  for m, last in enumerate(record['stopped_at']):
    more = label | {'member': m}
    yield from _path(folder, m, record['kept_steps'], last, at_init, more)
  init, stack = _load(folder / 'init'), _load(folder / 'members')
  for how in dict.fromkeys(('slerp', 'lerp', config.merge)):
    yield (
      merged if how == config.merge else f'{how}_{n}',
      functools.partial(merging.merge, stack, how, init, config.group),
      label | {'what': how},
    )
  end, etas = _load(folder / 'merged'), {*etas, record['eta']}
  names = {record['eta']: f'init_{n + 1}', 0.0: at_init, 1.0: merged}
  yield from _line(init, end, etas, label | {'what': 'to_init'}, names)
  if n == 1:  # both lines are one
    names = {eta: f'warp_1/to_init_{eta:g}' for eta in etas} | names
  else:
    names = {0.0: SFT, 1.0: merged}
  yield from _line(sft, end, etas, label | {'what': 'to_sft'}, names)


def _line(start: PyTree, end: PyTree, etas, labels, names):
  # (1 - eta) start + eta end; `names` are of points known before.
  for eta in sorted(etas):
    yield (
      names.get(eta, f'{labels["run"]}/{labels["what"]}_{eta:g}'),
      functools.partial(merging.lerp, start, end, eta),
      labels | {'eta': eta},
    )


def _path(folder, p: int, kept, last: int, init: str, labels):
  # Policy p of a stack and its average, at the steps up to its last.
  for what, file in (('policy', 'params'), ('ema', 'ema')):
    for step in kept:
      path = folder / f'{file}_{step}'
      if step <= last and path.exists():
        yield (
          f'{labels["run"]}/{file}_{step}/{p}' if step else init,
          lambda path=path: members.member(_load(path), p),
          labels | {'what': what, 'step': step},
        )


@functools.lru_cache(maxsize=2)  # the members of a stack come one by one
def _load(path) -> PyTree:
  return sharding.put(checkpoint.load_params(path))


def series(rows) -> dict[str, list[int]]:
  """Rows of each set that gets a number; the SFT policy is in all of them.

  The fronts of WARP are the lines from SFT through the merge of an iteration:
  what the paper returns, and comparable from one iteration to the next.
  """
  found = {}
  for i, row in enumerate(rows[1:], 1):  # after the SFT policy
    is_warp = row['run'].startswith('warp_')
    name = 'members' if is_warp else row['run']
    line = row['run'] if is_warp else f'{name}_line'
    sets = {'to_sft': line, 'policy': name, 'ema': f'{name}_ema'}
    if row['what'] in sets:
      found.setdefault(sets[row['what']], [0]).append(i)
  return found


def compare(sets, values, *, max_kl: float, resamples: int) -> dict[str, dict]:
  """The numbers of every set, and their paired differences to BASELINE.

  Sets are from `series`; values, [rows, prompts] each, are of 'kl' (nats, as is
  the largest budget `max_kl`) and the judges.
  """
  weights = intervals.resampling_weights(values['kl'].shape[1], resamples)
  found = {  # [1 + R, rows]
    key: intervals.mean_and_resamples(values[key], weights)
    for key in ('kl', *JUDGES)
  }

  def numbers(index) -> dict[str, np.ndarray]:
    at = {key: x[:, index] for key, x in found.items()}
    best = functools.partial(policies_lib.mean_best, at['kl'], max_kl=max_kl)
    oracle = {judge: best(at[judge]) for judge in JUDGES}
    return oracle | {'gold_by_proxy': best(at['gold'], chooser=at['proxy'])}

  baseline, out = numbers(sets[BASELINE]), {}
  for name, index in sets.items():
    largest = float(found['kl'][0, index].max())
    out[name] = {'points': len(index), 'largest_kl': largest}
    for judge, x in numbers(index).items():
      pair = {judge: x, f'difference_{judge}': x - baseline[judge]}
      for key, y in pair.items():
        out[name] |= intervals.percentile_interval(y[0], y[1:]).as_dict(key)
  return out


def summary(found, iterations: int, max_kl: float) -> str:
  """The line of a WARP run: its last front against plain REINFORCE."""
  last = found[f'warp_{iterations}']
  parts = []
  for judge in ('proxy', 'gold'):
    low, high = (last[f'difference_{judge}_{end}'] for end in ('low', 'high'))
    parts.append(
      f'{judge} {last[judge]:.2f} with WARP, {found[BASELINE][judge]:.2f} with '
      f'REINFORCE ({last[f"difference_{judge}"]:+.2f} [{low:+.2f}, {high:+.2f}])'
    )
  return f'best within KL up to {max_kl:g}, on average: {"; ".join(parts)}'

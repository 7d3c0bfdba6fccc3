# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The part of the report on each ablation: tables, figure, its numbers.

Each function writes a PNG and a CSV into `out` and returns Markdown.
"""

from experiments.ablations import plots, series
from experiments.pool import evidence
from warm_jax.report import style

HEADER = ['', *(style.set_name(s) for s in series.SETS)]
WAYS = {
  'cast': 'members stored in bf16, float32 average',
  'stored': 'members stored in bf16, float32 sum, result in bf16',
  'running': 'running sum of bf16 members in bf16',
  'rounded': 'float32 average, rounded to bf16 at the end',
  'scores': 'float32 average, scores rounded to bf16',
}
SNAPSHOTS = {
  'last': 'last checkpoint',
  'ema': 'EMA over snapshots',
  'lawa': 'average of the latest snapshots',
  'swa': 'average of all snapshots (SWA)',
  'ens': 'ENS of the last checkpoints',
  'warm': 'WARM of the last checkpoints',
  'warm_swa': "WARM of the members' SWA",
}


def precision(out, results) -> str:
  """bf16 against float32."""
  first = next(iter(results.values()))['precision']
  sizes, scales = first['sizes'], first['scaled']
  largest = sizes[-1]

  def error(size, way, what='error'):
    return series.precision(results, size, way, what)['test']

  def scaled(index, way, what):
    return series.scaled(results, index, 'averages', way, what)

  changes = [
    series.scaled(results, i, 'relative_change') for i in range(len(scales))
  ]
  by_size = {w: [error(size, w) for size in sizes] for w in plots.WAYS}
  by_change = {
    w: [scaled(i, w, 'error') for i in range(len(scales))] for w in plots.WAYS
  }
  style.save(
    plots.precision(sizes, by_size, [c.mean() for c in changes], by_change),
    out / 'precision.png',
  )
  rows = [
    {'way': w, 'members': size, 'travel': 1.0, 'relative_to': 'std of scores'}
    | series.point(series.interval(by_size[w][i]))
    for w in plots.WAYS
    for i, size in enumerate(sizes)
  ] + [
    {'way': w, 'members': largest, 'travel': row['scale']}
    | {'relative_change': changes[i].mean(), 'relative_to': 'change of scores'}
    | series.point(series.interval(by_change[w][i]))
    for w in plots.WAYS
    for i, row in enumerate(scales)
  ]
  style.write_csv(out / 'precision.csv', rows)

  accuracy = [
    [f'float32, M = {largest}']
    + series.columns(series.precision(results, largest, 'float32'), digits=4)
    + [style.NOTHING] * 2
    + [series.text(error(largest, 'float32', 'ties'), 4)]
  ] + [
    [name]
    + series.columns(
      series.precision_difference(results, largest, w), True, digits=4
    )
    + [series.text(error(largest, w), 4), _weights(results, largest, w)]
    + [series.text(error(largest, w, 'ties'), 4)]
    for w, name in WAYS.items()
  ]
  by_m = [
    [WAYS[w], *(series.text(values, 4) for values in by_size[w])]
    for w in plots.WAYS
  ]
  moved = [
    [
      kind,
      *(
        series.text(
          evidence.by_seed(results, 'precision', 'travel', kind, k), 5
        )
        for k in ('weights', 'change', 'rounding')
      ),
      series.text(
        evidence.by_seed(results, 'precision', 'travel', kind, 'unmoved')
      ),
    ]
    for kind in sorted(first['travel'], key=lambda kind: kind == 'all')
  ]
  less = [
    [
      f'{row["scale"]:g}',
      series.text(changes[i], 5),
      series.text(series.scaled(results, i, 'unmoved')),
      *(series.text(scaled(i, w, 'error')) for w in plots.WAYS),
      series.text(scaled(i, 'float32', 'accuracy')),
      series.text(
        scaled(i, 'running', 'accuracy') - scaled(i, 'float32', 'accuracy'),
        signed=True,
      ),
    ]
    for i, row in enumerate(scales)
  ]
  return '\n'.join(
    [
      '### Averaging in bf16 against float32\n',
      f'The best {largest} members by selection; below the first line accuracy '
      'minus that of float32. Scores: their error on held-out texts, relative '
      'to their std. Weights: their error, relative to the change of the '
      'float32 average. Ties: share of held-out pairs with equal scores, which '
      'count as correct.\n',
      evidence.table([*HEADER, 'scores', 'weights', 'ties'], accuracy),
      'Error of the scores of held-out texts, by the number of members:\n',
      evidence.table(['', *(f'M = {size}' for size in sizes)], by_m),
      'How far members travelled: root mean squares of the weights, of their '
      'change since the SFT checkpoint and of the error of rounding them; '
      'unmoved: share of weights with the same bf16 value before and after.\n',
      evidence.table(
        ['weights', 'size', 'change', 'rounding', 'unmoved'], moved
      ),
      f'If members had travelled less (start + s · change, M = {largest}): '
      'errors of held-out scores relative to what the change did to them.\n',
      evidence.table(
        ['s', 'change / size', 'unmoved']
        + [name for _, _, name in plots.WAYS.values()]
        + ['accuracy, float32', 'running sum − float32'],
        less,
      ),
    ]
  )


def _weights(results, size: int, way: str) -> str:
  if way not in plots.WAYS:  # rounding scores leaves the weights alone
    return style.NOTHING
  path = ('precision', 'by_size', str(size), way, 'weights')
  return series.text(evidence.by_seed(results, *path))


def subsets(out, config, results) -> str:
  """Own parts against all pairs."""
  first = next(iter(results.values()))['subsets']
  num, (size, total) = first['members'], first['pairs']
  methods = {
    'members': 'member',
    'ens': f'ENS of {num}',
    'wa': f'WARM of {num}',
  }

  def found(arm, method):
    return series.subsets(results, arm, method)

  differences = {
    m: series.minus(found('part', m), found('all', m)) for m in methods
  }
  values = {(s, m): differences[m][s] for m in methods for s in series.SETS}
  seen = {m: series.seen(results, 'train_swapped', m) for m in methods}
  half = config.subset_fraction == 0.5
  part = 'half' if half else style.percent(config.subset_fraction)
  style.save(plots.subsets(values, seen, part), out / 'subsets.png')
  rows = series.rows({f'part minus all, {m}': differences[m] for m in methods})
  rows += [
    {'name': f'seen by k, {m}', 'set': 'train_swapped', 'k': k}
    | series.point(series.interval(column))
    for m in methods
    for k, column in enumerate(seen[m].T)
  ]
  style.write_csv(out / 'subsets.csv', rows)
  table = [
    [f'{name}, {what}', *series.columns(found(arm, m))]
    for arm, what in (('all', 'all pairs'), ('part', f'own {part}'))
    for m, name in methods.items()
  ]
  table += [
    [f'own {part} − all pairs, {name}', *series.columns(differences[m], True)]
    for m, name in methods.items()
  ]
  table.append(
    [
      f'WARM of {num}, own {part} − member, all pairs',
      *series.columns(
        series.minus(found('part', 'wa'), found('all', 'members')), True
      ),
    ]
  )
  table += [
    [
      f'WARM − {against}, {what}',
      *series.columns(series.minus(found(arm, 'wa'), found(arm, m)), True),
    ]
    for arm, what in (('all', 'all pairs'), ('part', f'own {part}'))
    for m, against in (('members', 'member'), ('ens', 'ENS'))
  ]
  table += [
    [
      f'two members disagree, {what}',
      *series.columns(
        series.of(
          results, lambda s, arm=arm: ('subsets', 'disagreement', arm, s)
        )
      ),
    ]
    for arm, what in (('all', 'all pairs'), ('part', f'own {part}'))
  ]
  inside = [
    [
      style.set_name(s),
      *(
        series.text(evidence.by_seed(results, 'subsets', 'seen', s, k))
        for k in ('seen', 'unseen')
      ),
    ]
    for s in ('train_swapped', 'train_clean')
  ]
  count = evidence.by_seed(results, 'subsets', 'seen', 'train_swapped', 'num')
  by_count = [
    [str(k), f'{count[:, k].mean():.0f}']
    + [series.text(seen[m][:, k]) for m in methods]
    for k in range(num + 1)
  ]
  return '\n'.join(
    [
      '### Different training subsets\n',
      f'{num} members, each on its own random {size:,} of {total:,} pairs, '
      'against the same members (rates, dropouts, starts, steps) on all.\n',
      evidence.table(HEADER, table),
      'Members on training pairs inside and outside their own part:\n',
      evidence.table(['', 'inside', 'outside'], inside),
      'Share of swapped labels fitted, by how many members saw the pair '
      '(pairs: mean of a seed):\n',
      evidence.table(['seen by', 'pairs', *methods.values()], by_count),
    ]
  )


def lora(out, config, results) -> str:
  """Products against factors, and full fine-tuning."""
  num = next(iter(results.values()))['lora']['members']
  members = series.full(results, 'members')
  found = {('full', m): series.full(results, m) for m in ('ens', 'wa')}
  for kind in series.KINDS:
    for m in ('members', 'ens', 'wa', 'apart'):
      found[kind, m] = series.lora(results, kind, m)
  values = {key: series.minus(v, members) for key, v in found.items()}
  style.save(plots.lora(values), out / 'lora.png')
  style.write_csv(
    out / 'lora.csv',
    series.rows({'full, members': members})
    + series.rows({f'{", ".join(k)}': v for k, v in found.items()})
    + series.rows({f'{", ".join(k)} − member': v for k, v in values.items()}),
  )
  names = {
    'members': 'member',
    'ens': f'ENS of {num}',
    'wa': 'mean of A B',
    'apart': 'mean A · mean B',
  }
  table = [['all weights trained: member', *series.columns(members)]]
  table += [
    [f'all weights trained: {name}', *series.columns(found['full', m])]
    for m, name in (('ens', f'ENS of {num}'), ('wa', f'WARM of {num}'))
  ]
  for kind, what in series.KINDS.items():
    table += [
      [f'LoRA, {what}: {name}', *series.columns(found[kind, m])]
      for m, name in names.items()
    ]
  for kind, what in series.KINDS.items():
    for a, b in (('wa', 'apart'), ('wa', 'ens'), ('wa', 'members')):
      difference = series.minus(found[kind, a], found[kind, b])
      table.append(
        [
          f'LoRA, {what}: {names[a]} − {names[b]}',
          *series.columns(difference, True),
        ]
      )
  geometry = [
    [
      what,
      *(
        series.text(evidence.by_seed(results, 'lora', 'lora', kind, k))
        for k in ('cosine', 'wa', 'apart', 'lost')
      ),
    ]
    for kind, what in series.KINDS.items()
  ]
  return '\n'.join(
    [
      '### LoRA\n',
      f'{num} members, rank {config.lora_rank}, alpha {config.lora_alpha:g}, '
      f'rates {", ".join(f"{r:g}" for r in config.lora_rates)}, all from the '
      'last SFT checkpoint; those whose weights are all trained start from '
      'several.\n',
      evidence.table(HEADER, table),
      'Changes of the backbone: cosine between those of two members; norm of '
      'the average relative to that of a member; distance of the averages, '
      'relative to the mean of A B.\n',
      evidence.table(
        [
          '',
          'cosine',
          'norm, mean of A B',
          'norm, mean A · mean B',
          'distance',
        ],
        geometry,
      ),
    ]
  )


def snapshots(out, config, results) -> str:
  """Averages in time against averages over members."""
  first = next(iter(results.values()))['snapshots']
  num, kept, averaged = first['members'], first['snapshots'], first['averaged']
  found = {
    (schedule, m): series.snapshots(results, schedule, m)
    for schedule in series.SCHEDULES
    for m in SNAPSHOTS
  }
  values = {
    (schedule, m): series.minus(v, found[schedule, 'last'])
    for (schedule, m), v in found.items()
    if m != 'last'
  }
  latest = style.percent(config.lawa_fraction)
  style.save(plots.snapshots(values, num, latest), out / 'snapshots.png')
  style.write_csv(
    out / 'snapshots.csv',
    series.rows({', '.join(k): v for k, v in found.items()})
    + series.rows({f'{", ".join(k)} − last': v for k, v in values.items()}),
  )
  table = []
  for schedule in series.SCHEDULES:
    table += [
      [f'{schedule}: {name}', *series.columns(found[schedule, m])]
      for m, name in SNAPSHOTS.items()
    ]
  for schedule in series.SCHEDULES:
    for a, b in (
      *(('swa', 'last'), ('warm', 'last'), ('warm', 'swa'), ('warm', 'lawa')),
      *(('warm', 'ema'), ('warm_swa', 'warm')),
    ):
      difference = series.minus(found[schedule, a], found[schedule, b])
      table.append(
        [
          f'{schedule}: {SNAPSHOTS[a]} − {SNAPSHOTS[b]}',
          *series.columns(difference, True),
        ]
      )
  return '\n'.join(
    [
      '### SWA and EMA inside a run\n',
      f'{num} runs; snapshots every {config.swa_every} steps from step '
      f'{kept[0]} to {kept[-1]}: {averaged["swa"]} in SWA, {averaged["lawa"]} '
      f'in the average of the latest, EMA with decay {config.ema_decay:g} for '
      f'a snapshot. Averages of one run are the mean over the {num} runs; WARM '
      f'and ENS cost {num} times their training.\n',
      evidence.table(HEADER, table),
    ]
  )

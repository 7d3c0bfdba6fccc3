# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures of P1 to P10: means over seeds, point by point."""

import numpy as np

from experiments.warp import quantities as q
from warm_jax.report import style

NAMES = {
  'proxy': 'proxy reward',
  'gold': 'gold utility',
  'control': 'control reward',
  'kl': 'KL to SFT, nats',
  'length': 'words',
  'similarity': 'self-similarity',
}
# Fixed anchors from orange to brown, moving ones in blues, lines in greens.
FIXED = ('#fdae6b', '#f16913', '#a63603', '#7f2704')
MOVING = ('#0072B2', '#56B4E9', '#332288')
LINES = ('#a1d99b', '#41ab5d', '#00734d', '#00441b', '#000000')
FOUR = ('#56B4E9', '#0072B2', '#332288', '#882255')


def _axes(ax, x, y):
  ax.set_xlabel(NAMES.get(x, x))
  ax.set_title(NAMES.get(y, y))


def _legend(fig, ax, columns=4):
  fig.legend(
    *ax.get_legend_handles_labels(),
    loc='outside upper center',
    ncols=columns,
    frameon=False,
    fontsize=8.5,
  )


def _draw(axes, values, named, x='kl'):
  """named: {label: (Curve, dict of line settings)}; a panel for each value."""
  for ax, value in zip(axes, values):
    for label, (line, look) in named.items():
      ax.plot(line[x], line[value], label=label, markersize=3.5, **look)
    _axes(ax, x, value)
    if x == 'kl':  # the scale on which curves are read between their points
      style.kl_axis(ax, max(line['kl'].max() for line, _ in named.values()))


def _style(color, dash='-', mark='o'):
  return {'color': color, 'linestyle': dash, 'marker': mark, 'linewidth': 1.5}


def _anchor_styles(config):
  fixed = [f'sft_{beta:g}' for beta in config.anchors.sft_betas]
  labels = {
    name: f'SFT, β {beta:g}'
    for name, beta in zip(fixed, config.anchors.sft_betas)
  }
  colors = dict(zip(fixed, FIXED))
  labels |= {
    'ema': f'EMA, β {config.beta:g}, μ {config.mu:g}',
    'ema_half_mu': f'EMA, half μ ({config.anchors.half_mu:g})',
    'ema_double_beta': f'EMA, twice β ({config.anchors.double_beta:g})',
  }
  colors |= dict(zip(('ema', 'ema_half_mu', 'ema_double_beta'), MOVING))
  return labels, colors


@style.styled
def anchors(config, results):
  """P1 and P3: reward against steps, and against KL."""
  fig, axes = style.panels(2, 2, 2.9)
  labels, colors = _anchor_styles(config)
  named = {
    label: (
      q.over_seeds(results, lambda r, n=name: q.anchors(r)[n]),
      _style(colors[name], mark='s' if name.startswith('ema') else 'o'),
    )
    for name, label in labels.items()
  }
  _draw(axes[0], ('proxy', 'gold'), named, 'at')
  for ax in axes[0]:
    ax.set_xlabel('step')
  _draw(axes[1], ('proxy', 'gold'), named)
  _legend(fig, axes[0][0])
  return fig


@style.styled
def averages(config, results):
  """P2: averaged weights (dashed) beside the live ones."""
  fig, axes = style.panels(1, 2, 3.3)
  labels, colors = _anchor_styles(config)
  named = {}
  for name in (*list(labels)[1:3], 'ema'):
    for what, dash in (('live', '-'), ('ema', '--')):
      line = q.over_seeds(results, lambda r, n=name, w=what: q.anchors(r, w)[n])
      words = labels[name] + (', averaged' if what == 'ema' else '')
      named[words] = (line, _style(colors[name], dash))
  _draw(axes[0], ('proxy', 'gold'), named)
  _legend(fig, axes[0][0], 3)
  return fig


@style.styled
def lambdas(config, results):
  """P4 and P6: between two policies, at the longest training and by length."""
  fig, axes = style.panels(2, 2, 2.9)
  inner, last = config.merging.lambdas, config.merging.lengths[-1]
  x = [0.0, *inner, 1.0]
  styles = {
    'slerp': ('SLERP', '#009E73', '-'),
    'lerp': ('LERP', '#0072B2', '--'),
    'weights': ('SLERP of whole weights', '#CC79A7', ':'),
  }

  def path(way, steps, value):
    rows = [
      np.concatenate(
        [
          q.between(r, way, steps, value)[:, :1],
          *(q.between(r, way, steps, value, lam)[:, 1:2] for lam in inner),
          q.between(r, way, steps, value)[:, 2:],
        ],
        axis=1,
      ).mean(axis=0)
      for r in results.values()
    ]
    return np.mean(rows, axis=0)

  for ax, value in zip(axes.flat, ('proxy', 'kl', 'gold')):
    for way, (label, color, dash) in styles.items():
      ax.plot(x, path(way, last, value), dash, color=color, label=label)
    ax.set_xlabel('λ')
    ax.set_title(f'{NAMES[value]}, step {last}')
  ax = axes[1][1]
  for way, (_, color, dash) in list(styles.items())[:2]:
    for steps in config.merging.lengths:
      y = path(way, steps, 'proxy')
      ax.plot(x, y, dash, color=color, linewidth=1.3)
      if way == 'slerp':
        ax.annotate(f' {steps}', (1.0, y[-1]), va='center', fontsize=8)
  ax.set_xlabel('λ')
  ax.set_title('proxy reward by steps')
  _legend(fig, axes[0][0], 3)
  return fig


@style.styled
def geometry(config, results):
  """P5: cosines and norms of all groups, by length of training."""
  fig, axes = style.panels(1, 2, 3.4)
  last = config.merging.lengths[-1]
  first = next(iter(results.values()))
  groups = list(first['judge_lambdas']['task'][str(last)])
  short = [
    name.replace('backbone/', '').replace('layers_', 'layer ')
    for name in groups
  ]
  for color, steps in zip(FOUR, config.merging.lengths):
    cosines = [
      q.cosines(r, 'task', steps, layers=False) for r in results.values()
    ]
    axes[0][0].plot(
      np.mean(cosines, axis=0), 'o-', color=color, label=f'step {steps}'
    )
    norms = [
      [
        np.mean(found['norms'])
        for found in r['judge_lambdas']['task'][str(steps)].values()
      ]
      for r in results.values()
    ]
    axes[0][1].plot(np.mean(norms, axis=0), 'o-', color=color)
  axes[0][0].axhline(0, color=style.FAINT, linewidth=1)
  axes[0][0].set_title('cosine of task vectors')
  axes[0][1].set_title('norm of task vectors')
  for ax in axes[0]:
    ax.set_xticks(range(len(short)), short, rotation=20, ha='right')
  _legend(fig, axes[0][0])
  return fig


@style.styled
def fronts(config, results):
  """P7 and P8: lines from SFT, and the trainings they come from."""
  fig, axes = style.panels(2, 2, 3.0)
  named = {
    'training of one': (
      q.over_seeds(results, lambda r: q.mean_curve(q.members(r)[:2])),
      _style(MOVING[0], ':', 's'),
    ),
    'line to one': (
      q.over_seeds(results, lambda r: q.mean_curve(q.fronts(r, 'single'))),
      _style(LINES[0]),
    ),
  }
  sizes = [str(m) for m in range(2, config.members + 1)]
  for m, color in zip(sizes, LINES[1:]):
    named[f'SLERP of {m}'] = (
      q.over_seeds(
        results, lambda r, m=m: q.mean_curve(q.fronts(r, 'slerp', m))
      ),
      _style(color),
    )
  named[f'LERP of {sizes[-1]}'] = (
    q.over_seeds(
      results, lambda r: q.mean_curve(q.fronts(r, 'lerp', sizes[-1]))
    ),
    _style('#0072B2', '--'),
  )
  _draw(axes[0], ('proxy', 'gold'), named)
  slerp = {k: v for k, v in named.items() if not k.startswith('training')}
  for ax, value in zip(axes[1], ('proxy', 'kl')):
    _draw([ax], [value], slerp, 'at')
    ax.set_xlabel('η')
  _legend(fig, axes[0][0])
  return fig


@style.styled
def beyond(config, results):
  """P9: the line to two policies, extrapolated."""
  fig, axes = style.panels(1, 3, 3.0)
  for way, color, dash in (
    ('slerp', '#009E73', '-'),
    ('lerp', '#0072B2', '--'),
    ('single', '#D55E00', ':'),
  ):
    label = {'slerp': 'SLERP of 2', 'lerp': 'LERP of 2', 'single': 'one'}[way]
    named = {
      label: (
        q.over_seeds(results, lambda r, w=way: q.drawn(r, w)),
        _style(color, dash),
      )
    }
    for ax, value in zip(axes[0], ('proxy', 'gold', 'kl')):
      _draw([ax], [value], named, 'at')
      ax.set_xlabel('η')
  for ax in axes[0]:
    ax.axvline(1.0, color=style.FAINT, linewidth=1)
  _legend(fig, axes[0][0])
  return fig


@style.styled
def iterations(config, results):
  """P10: the line to SFT of each iteration, and REINFORCE of equal cost."""
  fig, axes = style.panels(1, 2, 3.6)
  named = {}
  for beta, color in zip(config.iterations.matched_betas, FIXED[1:]):
    line = q.over_seeds(results, lambda r, n=f'sft_{beta:g}': q.matched(r)[n])
    named[f'REINFORCE, β {beta:g}'] = (line, _style(color, ':', 's'))
    line = q.over_seeds(
      results, lambda r, n=f'sft_{beta:g}': q.matched_lines(r)[n]
    )
    named[f'line to it, β {beta:g}'] = (line, _style(color, '-.', ''))
  for i, color in zip(range(len(config.iterations.steps)), FOUR):
    line = q.over_seeds(results, lambda r, i=i: q.iterations(r)[i])
    named[f'WARP, iteration {i + 1}'] = (line, _style(color))
  _draw(axes[0], ('proxy', 'gold'), named)
  _legend(fig, axes[0][0], 3)
  return fig


@style.styled
def texts(config, results):
  """Length and self-similarity against the KL."""
  fig, axes = style.panels(1, 2, 3.3)
  named = {
    'EMA anchor': (
      q.over_seeds(results, lambda r: q.anchors(r)['ema']),
      _style(MOVING[0], mark='s'),
    )
  }
  for beta, color in zip(config.iterations.matched_betas, FIXED[1:]):
    line = q.over_seeds(results, lambda r, n=f'sft_{beta:g}': q.matched(r)[n])
    named[f'REINFORCE, β {beta:g}'] = (line, _style(color, ':', 's'))
  last = len(config.iterations.steps)
  line = q.over_seeds(results, lambda r: q.iterations(r)[-1])
  named[f'WARP, iteration {last}'] = (line, _style(FOUR[-1]))
  _draw(axes[0], ('similarity', 'length'), named)
  _legend(fig, axes[0][0])
  return fig


@style.styled
def noise(config, usual, noisy):
  """What small batches change: angles, and what lies between two policies."""
  fig, axes = style.panels(2, 2, 3.0)
  few, many = config.noisy.batch_size, config.rl.batch_size
  regimes = {
    f'batches of {many}': (usual, '#0072B2', config.merging.lengths),
    f'batches of {few}': (noisy, '#D55E00', config.noisy.lengths),
  }
  for label, (results, color, lengths) in regimes.items():
    cosines = [
      np.mean([q.cosines(r, 'task', steps).mean() for r in results.values()])
      for steps in lengths
    ]
    axes[0][0].plot(lengths, cosines, 'o-', color=color, label=label)
    for way, dash in (('slerp', '-'), ('lerp', '--')):
      for ax, value in ((axes[0][1], 'proxy'), (axes[1][0], 'kl')):
        gains = [
          np.mean([q.gain(r, way, steps, value) for r in results.values()])
          for steps in lengths
        ]
        ax.plot(
          lengths,
          gains,
          dash,
          marker='o',
          color=color,
          label=f'{way.upper()}, {label}',
        )
  axes[0][0].set_title('cosine of task vectors')
  axes[0][1].set_title('proxy, half-way − ends')
  axes[1][0].set_title('KL, half-way − ends')
  for ax in (axes[0][0], axes[0][1], axes[1][0]):
    ax.axhline(0, color=style.FAINT, linewidth=1)
    ax.set_xlabel('step')
  most = str(config.members)
  named = {
    f'line to one, batch {many}': (
      q.over_seeds(usual, lambda r: q.mean_curve(q.fronts(r, 'single'))),
      _style('#0072B2'),
    ),
    f'line to one, batch {few}': (
      q.over_seeds(noisy, lambda r: q.mean_curve(q.fronts(r, 'single'))),
      _style('#fdae6b'),
    ),
  }
  for m, color in (('2', '#f16913'), (most, '#7f2704')):
    named[f'SLERP of {m}, batch {few}'] = (
      q.over_seeds(noisy, lambda r, m=m: q.mean_curve(q.fronts(r, 'slerp', m))),
      _style(color),
    )
  _draw([axes[1][1]], ['proxy'], named)
  axes[1][1].legend(frameon=False, fontsize=7.5)
  axes[0][1].legend(frameon=False, fontsize=7.5)
  axes[0][0].legend(frameon=False, fontsize=7.5)
  return fig


# file name, function; all take (config, results)
ALL = {
  'p1_p3_anchors': anchors,
  'p2_averages': averages,
  'p4_p6_between_two': lambdas,
  'p5_geometry': geometry,
  'p7_p8_lines_back': fronts,
  'p9_beyond': beyond,
  'p10_iterations': iterations,
  'length_and_likeness': texts,
}

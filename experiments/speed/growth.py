# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How time and memory grow with members, tokens, rows, width and samples.

Of each series one thing is doubled again and again while the rest stays. Seconds
are medians, the sizes of a series in turn; memory is the compiled program's own
account (arguments, outputs that are no arguments, temporaries). The exponent is
the slope of the least-squares line of log seconds over log size:

  seconds = c * size^exponent

An exponent below 1 says that the small sizes pay for something that does not
grow; the last doubling is given beside it, as the exponent of the two largest.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments.speed import machine, turns
from warm_jax import rewards
from warm_jax.models import language_model

# What stays: small enough for the largest size of each series.
BASE = {'members': 4, 'pairs': 16, 'length': 64, 'width': 64, 'layers': 2}
SERIES = {
  'members': (1, 2, 4, 8, 16),
  'length': (32, 64, 128, 256, 512),
  'pairs': (4, 8, 16, 32, 64),
  'width': (32, 64, 128, 256, 512),
}
SAMPLES = (1, 2, 4, 8, 16, 32)
PROMPTS, PROMPT, RESPONSE = 16, 32, 32
QUICK_BASE = {'members': 2, 'pairs': 2, 'length': 8, 'width': 16, 'layers': 1}
QUICK = {'members': (1, 2), 'length': (4, 8)}
LETTERS = {'members': 'M', 'length': 'T', 'pairs': 'pairs', 'width': 'width'}


class Point(NamedTuple):
  """One size of a series: what runs, and what its program takes."""

  call: Callable
  num_bytes: int
  compile_s: float


def shape_of(width: int, layers: int, length: int):
  """The demo's kind of model; heads of 16, so that they grow with the width."""
  heads = max(1, width // 16)
  return machine.model_shape(width, length, num_layers=layers, num_heads=heads)


def training_point(members, pairs, length, width, layers) -> Point:
  """The optimizer step of M reward models, dropout on."""
  shape = shape_of(width, layers, length)
  step, state, data = machine.random_reward_training(
    shape, members, pairs, length
  )
  program, *cost = machine.compiled(step, state, data)
  return Point(machine.stepping(program, state, data), *cost)


def best_of_n_points(num_samples, quick: bool) -> dict[str, Point]:
  """Sampling N responses to each prompt, and scoring them."""
  width, layers = (16, 1) if quick else (64, 2)
  response = 4 if quick else RESPONSE
  shape = shape_of(width, layers, PROMPT + response)
  params = language_model.init_params(jax.random.key(0), shape)
  ids = jnp.full((PROMPTS * num_samples, PROMPT), 5, jnp.int32)
  draw, *draw_cost = machine.sampling(params, shape, ids, response)
  samples = draw()
  models = machine.random_reward_models(shape, 1)
  model = jax.tree.map(lambda x: x[0], models)
  score = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))
  judged = (rewards.single(model, shape), samples.ids, samples.mask)
  judge, *judge_cost = machine.compiled(score, *judged)
  return {
    'sampling': Point(draw, *draw_cost),
    'scoring': Point(lambda: judge(*judged), *judge_cost),
  }


def slope(sizes, values) -> tuple[float, float | None]:
  """Exponent of values over sizes, and its standard error (three points on)."""
  fit = scipy.stats.linregress(np.log(sizes), np.log(values))
  return float(fit.slope), float(fit.stderr) if len(sizes) > 2 else None


def fitted(value: float, error: float | None) -> str:
  """An exponent with its standard error."""
  return f'{value:.2f}' + ('' if error is None else f' ± {error:.2f}')


def series_row(
  what: str, letter: str, sizes, points: list[Point], repeats: int
) -> dict:
  """Times all points of a series in turn, and fits the lines."""
  times = turns.alternate(
    {str(n): turns.ours(p.call) for n, p in zip(sizes, points)}, repeats
  )
  seconds = [times[str(n)].median for n in sizes]
  num_bytes = [p.num_bytes for p in points]
  exponent, error = slope(sizes, seconds)
  memory, memory_error = slope(sizes, num_bytes)
  return turns.blank_row(what, 'exponent of time', exponent) | {
    'low': None if error is None else exponent - error,
    'high': None if error is None else exponent + error,
    'compile_s': sum(p.compile_s for p in points),
    'profile': {
      f'{letter} {n}': f'{1e3 * s:.3g} ms and {b / 1e6:.3g} MB'
      for n, s, b in zip(sizes, seconds, num_bytes)
    }
    | {
      'exponent of time': fitted(exponent, error),
      'exponent of memory': fitted(memory, memory_error),
      'of the last doubling': slope(sizes[-2:], seconds[-2:])[0],
    },
  }


def rows(args):
  """A row for each series."""
  base, series = (QUICK_BASE, QUICK) if args.quick else (BASE, SERIES)
  repeats = 1 if args.quick else args.repeats
  for name, sizes in series.items():
    points = [training_point(**base | {name: size}) for size in sizes]
    kept = ', '.join(
      f'{LETTERS.get(k, k)} {v}' for k, v in base.items() if k != name
    )
    label = f'reward step against {LETTERS[name]}; {kept}'
    yield series_row(label, LETTERS[name], sizes, points, repeats)
  sizes = (1, 2) if args.quick else SAMPLES
  found = [best_of_n_points(n, args.quick) for n in sizes]
  for part in ('sampling', 'scoring'):
    yield series_row(
      f'best of N, {part} against N; {PROMPTS} prompts',
      'N',
      sizes,
      [points[part] for points in found],
      repeats,
    )

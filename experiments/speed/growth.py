# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How time and memory grow with members, tokens, rows, width and samples.

  python -m experiments.speed.growth [--repeats=5] [--quick]

Of each series one thing is doubled again and again while the rest stays. Seconds
are medians, the sizes of a series in turn; memory is the compiled program's own
account (arguments, outputs that are no arguments, temporaries). The exponent is
the slope of the least-squares line of log seconds over log size:

  seconds = c * size^exponent,   error of the slope = sqrt(SSE / (n - 2) / Sxx)

An exponent below 1 says that the small sizes pay for something that does not
grow; the last doubling is given beside it, as the exponent of the two largest.
"""

import argparse
import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import turns
from warm_jax import rewards, sampling
from warm_jax.config import section
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import optimizer, reward
from warm_jax.training import state as state_lib

VOCAB = 512
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


@dataclasses.dataclass(frozen=True)
class Point:
  """One size of a series: what runs, and what its program takes."""

  call: Callable
  num_bytes: int
  compile_s: float


def compiled(jitted, *args, **kwargs):
  """(program, bytes, seconds of compiling)."""
  box = []
  seconds = turns.ours(
    lambda: box.append(jitted.lower(*args, **kwargs).compile())
  )()
  found = box[0].memory_analysis()
  total = found.argument_size_in_bytes + found.temp_size_in_bytes
  total += found.output_size_in_bytes - found.alias_size_in_bytes
  return box[0], total, seconds


def shape_of(width: int, layers: int, length: int) -> config_lib.ModelConfig:
  """The demo's kind of model; heads of 16, so that they grow with the width."""
  shape = section('model', width, layers, max(1, width // 16))
  return config_lib.ModelConfig(
    vocab_size=VOCAB, max_length=length, **shape.to_dict()
  )


def random_reward_model(key, shape):
  backbone = language_model.init_params(key, shape)['backbone']
  return reward_model.init_params(key, shape, backbone)


def training_point(members, pairs, length, width, layers) -> Point:
  """The optimizer step of M reward models, dropout on."""
  shape = shape_of(width, layers, length)
  config = section('reward', members, steps=1000)
  tx = optimizer.make(config.optimizer, config.steps)
  hparams = state_lib.make_hparams(
    members, learning_rate=1e-4, dropout_rate=0.1
  )
  keys = jax.random.split(jax.random.key(0), members)
  params = jax.vmap(functools.partial(random_reward_model, shape=shape))(keys)
  state = state_lib.init(params, tx, keys, hparams)
  ids = jax.random.randint(
    jax.random.key(1), (members, 2 * pairs, length), 0, VOCAB
  )
  data = {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}
  step = reward.make_step(shape, tx, config, 'auto')
  program, num_bytes, seconds = compiled(step, state, data)
  box = [state]

  def call():
    box[0], metrics = program(box[0], data)
    return metrics

  return Point(call, num_bytes, seconds)


def best_of_n_points(num_samples, quick: bool) -> dict[str, Point]:
  """Sampling N responses to each prompt, and scoring them."""
  width, layers = (16, 1) if quick else (64, 2)
  response = 4 if quick else RESPONSE
  shape = shape_of(width, layers, PROMPT + response)
  params = language_model.init_params(jax.random.key(0), shape)
  ids = jnp.full((PROMPTS * num_samples, PROMPT), 5, jnp.int32)
  sample = jax.jit(
    functools.partial(
      sampling.sample,
      config=shape,
      max_new_tokens=response,
      eos_id=-1,
      pad_id=0,
    )
  )
  given = dict(params=params, rng=jax.random.key(1), prompt_ids=ids)
  given['prompt_mask'] = jnp.ones(ids.shape, bool)
  draw, draw_bytes, draw_s = compiled(sample, **given)
  samples = draw(**given)
  scorer = rewards.single(random_reward_model(jax.random.key(2), shape), shape)
  score = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))
  judged = (scorer, samples.ids, samples.mask)
  judge, judge_bytes, judge_s = compiled(score, *judged)
  return {
    'sampling': Point(lambda: draw(**given), draw_bytes, draw_s),
    'scoring': Point(lambda: judge(*judged), judge_bytes, judge_s),
  }


def slope(sizes, values) -> tuple[float, float | None]:
  """Exponent of values over sizes, and its standard error (three points on)."""
  x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
  spread = float(((x - x.mean()) ** 2).sum())
  found = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
  rest = y - y.mean() - found * (x - x.mean())
  if len(x) < 3:
    return found, None
  return found, math.sqrt(float((rest**2).sum()) / (len(x) - 2) / spread)


def fitted(value: float, error: float | None) -> str:
  """An exponent with its standard error."""
  return f'{value:.2f}' + ('' if error is None else f' ± {error:.2f}')


def series_row(
  what: str, letter: str, sizes, points: list[Point], repeats: int
) -> dict:
  """Times all points of a series in turn, and fits the lines.

  Returns:
    A row; its 'series' holds the numbers, its 'profile' the same to be read.
  """
  times = turns.alternate(
    {str(n): turns.ours(p.call) for n, p in zip(sizes, points)}, repeats
  )
  seconds = [times[str(n)].median for n in sizes]
  num_bytes = [p.num_bytes for p in points]
  exponent, error = slope(sizes, seconds)
  memory, memory_error = slope(sizes, num_bytes)
  return {
    'row': what,
    'against': '',
    'unit': 'exponent of time',
    'ours': exponent,
    'theirs': None,
    'aim': None,
    'ratio': None,
    'low': None if error is None else exponent - error,
    'high': None if error is None else exponent + error,
    'compile_s': sum(p.compile_s for p in points),
    'check': '',
    'profile': {
      f'{letter} {n}': f'{1e3 * s:.3g} ms and {b / 1e6:.3g} MB'
      for n, s, b in zip(sizes, seconds, num_bytes)
    }
    | {'exponent of time': fitted(exponent, error)}
    | {'exponent of memory': fitted(memory, memory_error)},
    'series': {
      'sizes': list(sizes),
      'seconds': seconds,
      'megabytes': [b / 1e6 for b in num_bytes],
      'exponent': exponent,
      'standard_error': error,
      'last_doubling': slope(sizes[-2:], seconds[-2:])[0],
      'memory_exponent': memory,
      'memory_standard_error': memory_error,
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


HEAD = """\
| series | sizes | ms | MB | exponent of time | last doubling | exponent of memory |
|---|---|---|---|---|---|---|"""


def line(row: dict) -> str:
  """A series as a line of Markdown."""
  p = row['series']
  cells = [
    row['row'],
    ', '.join(map(str, p['sizes'])),
    ', '.join(f'{1e3 * s:.3g}' for s in p['seconds']),
    ', '.join(f'{m:.3g}' for m in p['megabytes']),
    fitted(p['exponent'], p['standard_error']),
    f'{p["last_doubling"]:.2f}',
    fitted(p['memory_exponent'], p['memory_standard_error']),
  ]
  return '| ' + ' | '.join(cells) + ' |'


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--quick', action='store_true', help='tiny, for tests')
  print(HEAD)
  for row in rows(parser.parse_args()):
    print(line(row), flush=True)


if __name__ == '__main__':
  main()

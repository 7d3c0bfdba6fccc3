# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Smoothness: how far rewards move when the text hardly does.

  python -m experiments.smoothness.run

from the root of the repository; `--config.scale=smoke` takes minutes. Nothing
is trained beside the members that experiments share.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from experiments.smoothness import edits
from warm_jax import errors, members, worlds
from warm_jax.data import encoding
from warm_jax.models import reward_model

SETS = {s: evidence.SETS[s] for s in ('test', 'ood')}
LEVELS = ('0.25', '0.00')
CLAIMED = '0.25'  # the level that the claims are about
# Cells: an edit, the responses whose utility it keeps or changes, and words. A
# post that loses a verb loses a fact, which matters to a summary that names it.
NO_VERB = 'verb left out of the post, fact in neither summary'
KEEPING = {
  'other_owner': ('other_owner', 'my ↔ our, one sentence of the post'),
  'no_owner': ('no_owner', 'my or our left out, one sentence of the post'),
  'fact_unnamed': ('no_verb', NO_VERB),
  'order': ('order', 'two phrases of the summary change places'),
}
# Edits of the summary alone. Training fixes a reward up to an amount for each
# post, so what an edited post does to a single reward says nothing: its
# measure is the margin, where both responses have the same post.
MATTERING = {
  'no_word': ('no_word', 'word left out of the summary'),
  'other_verb': ('other_verb', 'the other verb in the summary'),
}
OF_POST = ('other_owner', 'no_owner', 'fact_unnamed')
METHODS = {
  'single': 'single, mean of all',
  'single_best': 'single, best',
  'ens_2': 'ENS of the best 2',
  'ens_couples': 'ENS of 2, mean of couples',
  'ens': 'ENS of all',
  'warm_2': 'WARM of the best 2',
  'warm_couples': 'WARM of 2, mean of couples',
  'warm': 'WARM of all',
}


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.levels = (0.25, 0.0)  # share of swapped labels
  config.num_pairs = 500 if full else 20  # of each set, two responses each
  # Standard deviation over the root mean square of the embeddings.
  config.noise_sizes = (0.03, 0.1, 0.3)
  config.noise_draws = 4 if full else 1
  return config


def _noise_name(size: float) -> str:
  return f'noise on embeddings, {100 * size:g} %'


def _middle(config) -> str:
  """The noise that claims are about: the second smallest."""
  return _noise_name(sorted(config.noise_sizes)[1])


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  least = dict.fromkeys(('num_pairs', 'noise_draws'), (1, np.inf))
  settings.check(config, levels=(float(CLAIMED),), **least)
  errors.need(
    len(set(config.noise_sizes)) > 1,
    f'config.noise_sizes is {config.noise_sizes}; name two sizes or more, the '
    'claims are about the second smallest',
  )
  base, rows = arms.Base(config, workdir), evidence.Rows()
  for level in config.levels:
    arm = arms.swapped_arm(base, level)
    models = Models(arm.config.members, tuple(scores.ranked(arm)[:2]))
    stack = functools.cache(lambda: models.stack(arm.params))  # noqa: B023
    for split in SETS:
      key = f'{split}_{level:.2f}'
      _set(rows, key, arm, config, split, models, stack)
  return rows


@dataclasses.dataclass(frozen=True)
class Models:
  """Which members, merges and ensembles are compared."""

  size: int  # M members
  best: tuple[int, int]  # the best two on the selection split

  @property
  def couples(self) -> list[tuple[int, int]]:
    """Disjoint pairs: each member in one, so that none counts twice."""
    return [(i, i + 1) for i in range(0, self.size - 1, 2)]

  def stack(self, params):
    """[K, ...]: members, all merged, the best two merged, the couples."""
    merged = scores.uniform(
      params, [range(self.size), self.best, *self.couples]
    )
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), params, merged)

  def rewards(self, raw: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the stack [K, 2, N] -> {method: [G, 2, N]}.

    A method with several models (G > 1) is judged by their mean.
    """
    alone, merged = raw[: self.size], raw[self.size :]
    return {
      'single': alone,
      'single_best': alone[[self.best[0]]],
      'ens': scores.ensembles(alone, [range(self.size)]),
      'ens_2': scores.ensembles(alone, [self.best]),
      'ens_couples': scores.ensembles(alone, self.couples),
      'warm': merged[:1],
      'warm_2': merged[1:2],
      'warm_couples': merged[2:],
    }


def _set(rows, key, arm, config, split: str, models: Models, stack) -> None:
  """All cells of one set of pairs."""
  pairs = arm.base.pairs(split)
  pairs = pairs.select(np.arange(min(config.num_pairs, len(pairs))))
  texts = worlds.of(arm.base.run).rows('preferences', split)
  texts = [texts[i] for i in pairs.rows]
  posts = [row['prompt'] for row in texts]
  summaries = [[row[side] for row in texts] for side in ('chosen', 'rejected')]

  def encoded(of_posts, of_summaries) -> encoding.Preferences:
    sides = []
    for p, s in zip(of_posts, of_summaries):
      tokens, fits, _ = encoding.encode(
        worlds.of(arm.base.run).tokenizer, p, s, pairs.chosen.length
      )
      assert fits.all()  # no edit makes a text longer
      sides.append(tokens.padded_to(pairs.chosen.length))
    return dataclasses.replace(pairs, chosen=sides[0], rejected=sides[1])

  def kept(name, compute):
    # The number of pairs is in the name: other sizes are other numbers.
    path = arm.folder / 'scores' / f'smoothness_{name}.{split}_{len(pairs)}.npz'
    found = scores.cached(path, lambda: {'scores': compute()})
    return models.rewards(found['scores'])

  plain = encoded([posts, posts], summaries)
  assert (plain.chosen.ids == pairs.chosen.ids).all()
  shape = arm.base.shape
  before = kept('plain', lambda: scores.score(stack(), shape, plain))
  cells = {}
  for name in edits.EDITS:
    new_posts, new_summaries, applies, change = edits.edited(
      name, posts, summaries, f'{config.seed}/smoothness/{split}'
    )
    new = encoded(new_posts, new_summaries)
    after = kept(name, lambda new=new: scores.score(stack(), shape, new))
    together = name in edits.OF_POST
    for named, matters in ((KEEPING, False), (MATTERING, True)):
      for edit, words in named.values():
        if edit == name:
          where = applies & ((change != 0) == matters)
          signs = change if matters else None
          cells[words] = _cell(before, after, where, together, signs)
  table = np.asarray(arm.base.starts['backbone']['embed']['embedding'][-1])
  rms = float(np.sqrt(np.mean(np.square(table, dtype=np.float64))))
  everywhere = np.ones((2, len(pairs)), bool)
  for size in sorted(config.noise_sizes):
    drawn = []
    for draw in range(config.noise_draws):
      noise = (size * rms, (config.seed, draw))
      after = kept(
        f'noise_{size:g}_{draw}',
        lambda noise=noise: noisy_scores(stack(), shape, plain, *noise),
      )
      drawn.append(_cell(before, after, everywhere, together=True))
    cells[_noise_name(size)] = {
      name: np.mean([d[name] for d in drawn]) for name in drawn[0]
    }
  _tables(rows, key, before, cells, _middle(config))
  rows.add('sizes', f'pairs of texts, {SETS[split]}', 'number', len(pairs))


def _cell(before, after, where, together, change=None) -> dict:
  """Mean over the models of each method of `compare`, and the comparisons."""
  count = where.all(axis=0).sum() if together else where.sum()
  out = {('comparisons', ''): float(count)}
  for method in before:
    found = compare(before[method], after[method], where, together, change)
    out |= {(k, method): float(np.mean(v)) for k, v in found.items()}
  return out


def _tables(rows, key: str, before, cells, middle: str) -> None:
  """Rows of one level and set: `change`, `share` and `summary`."""
  shown = {'single': 'single', 'ens': 'ENS', 'warm': 'WARM'}
  keeping = [words for _, words in KEEPING.values()]
  mattering = [words for _, words in MATTERING.values()]
  post = [KEEPING[name][1] for name in OF_POST]
  for words, cell in sorted(cells.items(), key=lambda c: c[0] in mattering):
    share = 'agreement' if words in mattering else 'flips'
    row = f'{words} (utility {"changes" if words in mattering else "stays"})'
    rows.add(f'change_{key}', row, 'comparisons', cell['comparisons', ''])
    for method, name in shown.items():
      rows.add(f'change_{key}', row, name, cell['margin_change', method])
      rows.add(f'share_{key}', row, name, cell[share, method])
    for method in ('single', 'ens'):
      less = less_by(*(cell['margin_change', m] for m in ('warm', method)))
      rows.add(f'change_{key}', row, f'WARM / {shown[method]}', less)
    less = less_by(*(cell['change', m] for m in ('warm', 'single')))
    less = np.nan if words in post else less
    rows.add(f'change_{key}', row, 'WARM / single, reward', less)
    difference = cell[share, 'warm'] - cell[share, 'single']
    rows.add(f'share_{key}', row, 'WARM − single', difference)
  for method, name in METHODS.items():

    def over(words, quantity, method=method):
      return np.mean([cells[w][quantity, method] for w in words])

    stays, changes = (over(w, 'margin_change') for w in (keeping, mattering))
    values = {
      'accuracy': scores.accuracies(before[method]),
      'change, utility stays': stays,
      middle: cells[middle]['margin_change', method],
      'flips': over(keeping, 'flips'),
      'change, utility changes': changes,
      'right sign': over(mattering, 'agreement'),
      'ratio': less_by(changes, stays) + 1,
    }
    rows.line(f'summary_{key}', name, values)


@functools.partial(jax.jit, static_argnames='shape')
def _noisy(stack, shape, ids, mask, noise):
  """[K, B] scores with noise [B, T, D] added to the embeddings.

  Every token of the batch gets a row of its own in a table made for it, so
  that the model needs no change.
  """
  size = ids.size
  wide = dataclasses.replace(shape, vocab_size=size)
  places = jnp.arange(size, dtype=ids.dtype).reshape(ids.shape)

  def score(params):
    backbone = params['backbone']
    rows = jnp.take(backbone['embed']['embedding'], ids, axis=0) + noise
    table = {'embedding': rows.reshape(size, -1)}
    params = params | {'backbone': backbone | {'embed': table}}
    return reward_model.scores(params, wide, places, mask)

  return members.map_members(score, 'auto')(stack)


def noisy_scores(
  stack, shape, pairs: encoding.Preferences, std: float, seed, batch_size=64
) -> np.ndarray:
  """Scores [K, 2, N] with Gaussian noise on the embedding of every token.

  All models see the same noise; sizes of one draw differ by a factor only.
  """
  batch = pairs.batch(np.arange(len(pairs)))
  ids, mask = batch['ids'], batch['mask']
  width = stack['backbone']['embed']['embedding'].shape[-1]
  noise = np.random.default_rng(seed).standard_normal(
    (*ids.shape, width), np.float32
  )
  noise *= np.float32(std)
  batch_size = min(batch_size, len(ids))
  parts = []
  for start in range(0, len(ids), batch_size):
    # The last batch is filled with copies: one program serves all.
    rows = np.minimum(np.arange(start, start + batch_size), len(ids) - 1)
    parts.append(
      np.asarray(_noisy(stack, shape, ids[rows], mask[rows], noise[rows]))
    )
  found = np.concatenate(parts, axis=-1)[:, : len(ids)]
  return found.reshape(len(found), 2, len(pairs))


def compare(
  before: np.ndarray,
  after: np.ndarray,
  where: np.ndarray,
  together: bool,
  utility_change: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """What an edit did to the rewards of G models: {quantity: [G]}.

    change: root mean square change of the reward, over the standard deviation
      of the model's rewards of all unedited responses.
    margin_change: root mean square change of the margin of a comparison, over
      the root mean square margin of all unedited pairs; whatever a model adds
      to all responses of a post drops out.
    flips: share of comparisons whose preferred response changes.
    agreement: with utility_change [2, N], share of changes of its sign.

  NaN where there is nothing to count. before and after are rewards [G, 2, N] of
  chosen and rejected responses, where [2, N] those that count; both of a pair
  are edited `together`, or one is compared with the other as it was.
  """
  before, after = np.float64(before), np.float64(after)
  margin = before[:, 0] - before[:, 1]
  moved = (after - before)[:, where]
  size = root_mean_square(moved)
  if together:
    count = where.all(axis=0)
    new, old = (after[:, 0] - after[:, 1])[:, count], margin[:, count]
  else:
    edited = [after[:, 0] - before[:, 1], before[:, 0] - after[:, 1]]
    new = np.stack(edited, axis=1)[:, where]
    old = np.stack([margin, margin], axis=1)[:, where]
  out = {
    'change': ratio(size, before.reshape(len(before), -1).std(axis=1)),
    'margin_change': ratio(*map(root_mean_square, (new - old, margin))),
    'flips': _mean((new >= 0) != (old >= 0)),
  }
  if utility_change is not None:
    signs = np.sign(utility_change[where])
    out['agreement'] = _mean(np.sign(moved) == signs)
  return out


def root_mean_square(x: np.ndarray) -> np.ndarray:
  """[G, N] -> [G]."""
  return np.sqrt(_mean(np.square(x)))


def _mean(x: np.ndarray) -> np.ndarray:
  """[G, N] -> [G], NaN if N is 0."""
  return x.mean(axis=1) if x.shape[1] else np.full(len(x), np.nan)


def ratio(a, b):
  """a / b, NaN where b is 0."""
  a, b = np.broadcast_arrays(np.float64(a), np.float64(b))
  return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def less_by(ours, theirs) -> np.ndarray:
  """ours / theirs - 1: -0.2 is a fifth less; NaN where theirs is 0."""
  return ratio(ours, theirs) - 1


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  key, middle = f'ood_{CLAIMED}', _middle(config)
  cells = {k: KEEPING[k][1] for k in ('other_owner', 'no_owner', 'order')}
  cells['noise'] = middle

  def less(cell, other):
    row = f'{cell} (utility stays)'
    return results(f'change_{key}', row, f'WARM / {other}')

  def of(column, method):
    return results(f'summary_{key}', METHODS[method], column)

  return {k: less(cell, 'single') for k, cell in cells.items()} | {
    'ens': np.mean([less(cell, 'ENS') for cell in cells.values()], axis=0),
    'flips': of('flips', 'warm') - of('flips', 'single'),
    'ratio': less_by(of('ratio', 'warm'), of('ratio', 'single')),
    'sign': of('right sign', 'warm') - of('right sign', 'single'),
  }


QUESTION = 'Do the rewards of averaged weights move less under small edits?'
SHARED = 'observations'
FIGURES = (
  evidence.Figure(
    'edits', 'change_', 'dots', x='WARM / single - 1', column='WARM / single'
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run('smoothness', sys.argv))

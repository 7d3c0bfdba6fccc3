# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: rewards of edited texts and of noisy embeddings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pool import arms, scores
from experiments.smoothness import edits
from warm_jax import errors, members, merging
from warm_jax.data import encoding
from warm_jax.models import reward_model
from warm_jax.stages import preferences, world

SETS = ('test', 'ood')
CLAIMED = '0.25'  # the level that the claims are about
# Cells: an edit, and the responses whose utility it keeps or changes. A post
# that loses a verb loses a fact, which matters to a summary that names it.
KEEPING = {
  'other_owner': 'other_owner',
  'no_owner': 'no_owner',
  'order': 'order',
  'fact_unnamed': 'no_verb',
}
MATTERING = {
  'fact_named': 'no_verb',
  'no_word': 'no_word',
  'other_verb': 'other_verb',
}


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  check(config)
  base = arms.Base(config, workdir)
  return {
    'levels': {
      f'{level:.2f}': _level(arms.swapped_arm(base, level), config)
      for level in config.levels
    }
  }


def check(config) -> None:
  """Raises UserError for settings that the claims cannot do with."""
  if CLAIMED not in [f'{level:.2f}' for level in config.levels]:
    raise errors.UserError(
      f'config.levels is {config.levels} and lacks {CLAIMED}, which the claims '
      'are about; add it'
    )
  if len(set(config.noise_sizes)) < 2:
    raise errors.UserError(
      f'config.noise_sizes is {config.noise_sizes}; name two sizes or more, the '
      'claims are about the second smallest'
    )
  if min(config.num_pairs, config.noise_draws) < 1:
    raise errors.UserError(
      f'config.num_pairs is {config.num_pairs} and config.noise_draws '
      f'{config.noise_draws}; set both to 1 or more'
    )


def _level(arm: arms.Arm, config) -> dict:
  found = scores.accuracies(
    scores.of_members(arm, sets=['selection'])['selection']
  )
  best = np.argsort(-found, kind='stable').tolist()
  models = Models(arm.config.members, tuple(best[:2]))
  stack = functools.cache(lambda: models.stack(arm.params))
  return {
    'best': models.best,
    'sets': {s: _set(arm, config, s, models, stack) for s in SETS},
  }


@dataclasses.dataclass(frozen=True)
class Models:
  """Which members, merges and ensembles are compared.

  Attributes:
    size: M members.
    best: the best two on the selection split.
  """

  size: int
  best: tuple[int, int]

  @property
  def couples(self) -> list[tuple[int, int]]:
    """Disjoint pairs: each member in one, so that none counts twice."""
    return [(i, i + 1) for i in range(0, self.size - 1, 2)]

  def stack(self, params):
    """[K, ...]: members, all merged, the best two merged, the couples."""
    groups = [range(self.size), self.best, *self.couples]
    merged = [
      merging.uniform(jax.tree.map(lambda x, g=g: x[np.array(g)], params))
      for g in groups
    ]
    return jax.tree.map(
      lambda a, b: jnp.concatenate([a, b]), params, members.stack(merged)
    )

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


# ---------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------


def _set(arm, config, split: str, models: Models, stack) -> dict:
  """All cells of one set of pairs."""
  pairs = arm.base.pairs(split)
  pairs = pairs.select(np.arange(min(config.num_pairs, len(pairs))))
  rows = preferences.read_rows(arm.base.run, split)
  rows = [rows[i] for i in pairs.rows]
  posts = [row['prompt'] for row in rows]
  summaries = [[row[side] for row in rows] for side in ('chosen', 'rejected')]

  def encoded(of_posts, of_summaries) -> encoding.Preferences:
    sides = []
    for p, s in zip(of_posts, of_summaries):
      tokens, fits, _ = encoding.encode(
        world.tokenizer(arm.base.run), p, s, pairs.chosen.length
      )
      assert fits.all()  # no edit makes a text longer
      sides.append(tokens.padded_to(pairs.chosen.length))
    return dataclasses.replace(pairs, chosen=sides[0], rejected=sides[1])

  def kept(name, compute):
    # The number of pairs is in the name: other sizes are other numbers.
    path = arm.folder / 'scores' / f'smoothness_{name}.{split}_{len(pairs)}.npz'
    return models.rewards(scores.cached(path, compute)['scores'])

  plain = encoded([posts, posts], summaries)
  assert (plain.chosen.ids == pairs.chosen.ids).all()
  before = kept(
    'plain', lambda: {'scores': scores.score(stack(), arm.base.shape, plain)}
  )
  cells = {}
  for name in edits.EDITS:
    new_posts, new_summaries, applies, change = edits.edited(
      name, posts, summaries, f'{config.seed}/smoothness/{split}'
    )
    after = kept(
      name,
      lambda p=new_posts, s=new_summaries: {
        'scores': scores.score(stack(), arm.base.shape, encoded(p, s))
      },
    )
    together = name in edits.OF_POST
    for cell in [c for c, edit in KEEPING.items() if edit == name]:
      where = applies & (change == 0)
      cells[cell] = _cell(before, after, where, together)
    for cell in [c for c, edit in MATTERING.items() if edit == name]:
      where = applies & (change != 0)
      cells[cell] = _cell(before, after, where, together, change)
  table = np.asarray(arm.base.starts['backbone']['embed']['embedding'][-1])
  rms = float(np.sqrt(np.mean(np.square(table, dtype=np.float64))))
  for size in config.noise_sizes:
    drawn = []
    for draw in range(config.noise_draws):
      after = kept(
        f'noise_{size:g}_{draw}',
        lambda size=size, draw=draw: {
          'scores': noisy_scores(
            stack(), arm.base.shape, plain, size * rms, (config.seed, draw)
          )
        },
      )
      everywhere = np.ones((2, len(pairs)), bool)
      drawn.append(_cell(before, after, everywhere, together=True))
    cells[f'noise_{size:g}'] = _mean_of_draws(drawn)
  return {
    'pairs': len(pairs),
    'accuracy': {
      m: float(scores.accuracies(x).mean()) for m, x in before.items()
    },
    'cells': {name: _public(cell) for name, cell in cells.items()},
  }


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
  """Scores with Gaussian noise on the embedding of every token.

  Args:
    stack: params [K, ...]; all models see the same noise.
    shape: ModelConfig.
    pairs: N pairs.
    std: of the noise.
    seed: of the draw, numbers; sizes of one draw differ by a factor only.
    batch_size: rows scored at once.

  Returns:
    [K, 2, N] float32.
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


# ---------------------------------------------------------------------------
# Arithmetic on scores
# ---------------------------------------------------------------------------


def _cell(before, after, where, together, utility_change=None) -> dict:
  """`compare` of every method: {quantity: {method: [G]}}, and counts."""
  found = {
    method: compare(
      before[method], after[method], where, together, utility_change
    )
    for method in before
  }
  out = {
    'responses': int(where.sum()),
    'comparisons': int(where.all(axis=0).sum() if together else where.sum()),
  }
  for key in next(iter(found.values())):
    out[key] = {method: found[method][key] for method in found}
  return out


def compare(
  before: np.ndarray,
  after: np.ndarray,
  where: np.ndarray,
  together: bool,
  utility_change: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """What an edit did to the rewards of G models.

  Args:
    before: [G, 2, N] rewards of chosen and rejected responses.
    after: [G, 2, N] the same, edited.
    where: [2, N] bool, the responses that count.
    together: both responses of a pair are edited (one post, or noise); else
      one is compared with the other as it was.
    utility_change: [2, N] by how much the gold utility changed, or None.

  Returns:
    dict of [G]; NaN where there is nothing to count:
      change: root mean square change of the reward, over the standard deviation
        of the model's rewards of all unedited responses.
      margin_change: root mean square change of the margin of a comparison, over
        the root mean square margin of all unedited pairs; whatever a model adds
        to all responses of a post drops out.
      flips: share of comparisons whose preferred response changes.
      agreement: with utility_change, share of changes of its sign.
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
    'margin_change': ratio(
      root_mean_square(new - old), root_mean_square(margin)
    ),
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


def _mean_of_draws(drawn: list[dict]) -> dict:
  """One cell from those of several draws of noise."""
  first = drawn[0]
  return {
    key: value
    if isinstance(value, int)
    else {m: np.mean([d[key][m] for d in drawn], axis=0) for m in value}
    for key, value in first.items()
  }


def _public(cell: dict) -> dict:
  """Means over the models of a method."""
  return {
    key: value
    if isinstance(value, int)
    else {method: float(np.mean(x)) for method, x in value.items()}
    for key, value in cell.items()
  }

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What averaging keeps of what k of M transformers have learned.

Two arms of the toy world. In one, labels are swapped in k of M members; in the
other, a word that says nothing is a sign of the chosen response for k of M.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mechanism import member_data, theory
from experiments.pool import arms, scores
from warm_jax import errors, members, merging
from warm_jax.data import encoding, loader, toy_world
from warm_jax.stages import world

# Words of the vocabulary that no summary has.
CUES = (
  *toy_world.REMARKS.values(),
  toy_world.FALSE,
  toy_world.AGAIN,
  toy_world.GARBLED,
  toy_world.WORDY,
  *toy_world.OWNERS,
)


def swaps(base: arms.Base, config) -> dict:
  """How much of a swapped label is kept if k of M members saw it swapped.

  Returns:
    Of `read_swaps`, and the members' own agreement.
  """
  pairs, settings = base.pairs('train'), config.memory
  saw = member_data.plan_swaps(
    len(pairs), settings.members, settings.swapped, config.seed
  )
  arm = arms.train(
    base,
    'mechanism_swaps',
    data=member_data.with_swaps(pairs, saw),
    # Of the probed head, which all members share: it knows no swap.
    swapped=0.0,
    members=settings.members,
    plan={'kind': 'swaps', 'share': settings.swapped},
  )
  found = _scored(arm, 'mechanism_swaps', pairs)
  # Towards the swapped label.
  margins = {
    k: (v[:, 1] - v[:, 0]).astype(np.float64) for k, v in found.items()
  }
  return read_swaps(
    saw, margins['members'], margins['merged'][0], margins['starts'].mean(0)
  )


def read_swaps(saw, of_members, merged, start) -> dict:
  """Margins towards the swapped label, by the number of members that saw it.

  The shift of k is the mean margin on pairs of k less that on pairs of 0: pairs
  are dealt out at random, so the difference is the swaps' doing. What the
  margin before training explains is taken out first (the slope is that of the
  pairs of 0): it is noise here. Survival is the shift of k over that of M.

  Args:
    saw: [N, M] bool.
    of_members: [M, N] margins of the members.
    merged: [N] of the averaged weights.
    start: [N] before training.

  Returns:
    pairs: [M + 1] numbers of pairs, k = 0 .. M.
    ens, wa: dicts of agreement, margin, shift, survival [M + 1], exponent.
    seen, unseen: agreement, shift [M + 1] of members that saw the swap, or not.
    kept_by_all: shift of WA over that of ENS where all members saw it.
  """
  num_members = saw.shape[1]
  k = saw.sum(axis=1)
  counts = np.arange(num_members + 1)
  none = k == 0

  def adjusted(margin):
    centred = start[none] - start[none].mean()
    slope = centred @ margin[none] / max(centred @ centred, 1e-12)
    margin = margin - slope * (start - start[none].mean())
    return margin - margin[none].mean()

  def by_count(values, chosen=None):
    chosen = np.ones(len(k), bool) if chosen is None else chosen
    return np.array([finite_mean(values[chosen & (k == c)]) for c in counts])

  out = {'pairs': [int((k == c).sum()) for c in counts]}
  for name, margin in (('ens', of_members.mean(axis=0)), ('wa', merged)):
    shift = by_count(adjusted(margin))
    out[name] = {
      'agreement': by_count(margin > 0),
      'margin': by_count(margin),
      'shift': shift,
      'survival': _ratio(shift, shift[-1]),
      'exponent': theory.fit_exponent(counts[1:] / num_members, shift[1:])[0],
    }
  out['kept_by_all'] = _ratio(out['wa']['shift'][-1], out['ens']['shift'][-1])
  each = [adjusted(margin) for margin in of_members]
  for name, mask in (('seen', saw), ('unseen', ~saw)):
    out[name] = {
      'agreement': _over_members(by_count, of_members > 0, mask),
      'shift': _over_members(by_count, each, mask),
    }
  return out


def _over_members(by_count, values, mask) -> np.ndarray:
  """[M + 1] mean over the members of whom `mask` [N, M] holds."""
  rows = [by_count(v, m) for v, m in zip(values, mask.T)]
  return np.array([finite_mean(column) for column in np.transpose(rows)])


def finite_mean(values) -> float:
  """Mean of what is finite; NaN where there is nothing."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else float('nan')


def _ratio(value, unit):
  """value / unit; NaN where the unit is 0 or NaN."""
  return np.divide(value, unit if unit else np.nan)


def cues(base: arms.Base, config) -> dict:
  """What k of M members have learned of a cue word, after averaging.

  Returns:
    Of `read_cues`, and the words.
  """
  pairs, settings = base.pairs('train'), config.memory
  if len(settings.cues) > len(CUES):
    raise errors.UserError(
      f'memory.cues asks for {len(settings.cues)} cue words, of which the '
      f'vocabulary has {len(CUES)}'
    )
  if pairs.chosen.length + 1 > config.data.max_length:
    raise errors.UserError(
      f'data.max_length is {config.data.max_length}: no room for a cue word'
    )
  # Words differ in what they meant before: each seed deals them out anew.
  order = loader.order_seed(config.seed, 'mechanism', 'words')
  words = np.random.default_rng(order).permutation(CUES)[: len(settings.cues)]
  encoded = world.tokenizer(base.run).encode(words.tolist())
  ids = np.array([one for (one,) in encoded])
  plan = member_data.plan_cues(
    len(pairs),
    settings.members,
    settings.cues,
    settings.cue_share,
    config.seed,
  )
  arm = arms.train(
    base,
    'mechanism_cues',
    data=member_data.with_cues(pairs, plan, ids),
    swapped=0.0,
    members=settings.members,
    plan={
      'kind': 'cues',
      'share': settings.cue_share,
      'counts': tuple(settings.cues),
    },
  )
  held_out = base.pairs('test').select(np.arange(settings.probed_pairs))
  found = _scored(arm, 'mechanism_cues', _probes(held_out, ids))
  effects = {
    name: (v[:, 0] - v[:, 1])
    .astype(np.float64)
    .reshape(len(v), len(ids), -1)
    .mean(axis=2)
    for name, v in found.items()
  }
  bearing = plan.cue >= 0
  return {
    'words': words.tolist(),
    'pairs_per_cue': int(bearing.sum() / len(ids)),
    'responses': 2 * len(held_out),
  } | read_cues(
    plan.meaningful,
    effects['members'] - effects['starts'],
    (effects['merged'] - effects['merged_starts'])[0],
  )


def _probes(pairs: encoding.Preferences, words) -> encoding.Preferences:
  """Responses with each cue (as `chosen`) and without: cue by cue."""
  sides = [pairs.chosen, pairs.rejected] * len(words)
  joined = encoding.Sequences(
    *(
      np.concatenate([getattr(side, field) for side in sides])
      for field in ('ids', 'mask', 'response_start')
    )
  )
  each = np.repeat(words, 2 * len(pairs))
  return encoding.Preferences(
    chosen=member_data.append(joined, each),
    rejected=member_data.append(joined, np.full(len(each), -1)),
    flipped=np.zeros(len(each), bool),
    rows=np.arange(len(each)),
  )


def read_cues(meaningful, of_members, merged) -> dict:
  """Effects of cues on the reward, by how many members learned them.

  A cue's effect in ENS and WA is divided by that in the members that met it as
  meaningful, as words differ in how well they are learned; the survival is this
  over its mean for cues that all members learned.

  Args:
    meaningful: [J, M] bool.
    of_members: [M, J] effects of the cue words, less those at the start.
    merged: [J] of the averaged weights.

  Returns:
    k, seen, unseen: [J], number of members; effect in members that met it as
      meaningful, and in the others (NaN where there are none).
    ens, wa: dicts of effect [J], survival [M + 1] by k (at 0 over the mean
      effect in members that learned any), exponent.
    kept_by_all: effect of WA over that of ENS for cues that all members learned.
  """
  num_members = meaningful.shape[1]
  k = meaningful.sum(axis=1)
  seen = np.array([finite_mean(e[m]) for e, m in zip(of_members.T, meaningful)])
  unseen = np.array(
    [finite_mean(e[~m]) for e, m in zip(of_members.T, meaningful)]
  )
  unit = np.where(k > 0, seen, finite_mean(seen))
  out = {'k': k, 'seen': seen, 'unseen': unseen}
  for name, effect in (('ens', of_members.mean(axis=0)), ('wa', merged)):
    part = np.array([_ratio(e, u) for e, u in zip(effect, unit)])
    by_count = np.array(
      [finite_mean(part[k == c]) for c in range(num_members + 1)]
    )
    out[name] = {
      'effect': effect,
      'survival': _ratio(by_count, by_count[-1]),
      'exponent': theory.fit_exponent(k / num_members, part)[0],
    }
  everywhere = k == num_members
  out['kept_by_all'] = _ratio(
    finite_mean(out['wa']['effect'][everywhere]),
    finite_mean(out['ens']['effect'][everywhere]),
  )
  return out


def _scored(arm: arms.Arm, name: str, pairs) -> dict[str, np.ndarray]:
  """Scores [.., 2, N] of the members, of their average, and of their starts."""

  def compute():
    stacks = {'members': arm.params, 'starts': arm.start}
    stacks |= {
      f'merged{ending}': jax.tree.map(
        lambda x: x[None], merging.uniform(stacks[name])
      )
      for name, ending in (('members', ''), ('starts', '_starts'))
    }
    # In one pass: each distinct row is then looked for once.
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *stacks.values())
    found = scores.score(joined, arm.base.shape, pairs)
    ends = np.cumsum([members.num_members(s) for s in stacks.values()])
    return dict(zip(stacks, np.split(found, ends[:-1])))

  return scores.cached(arm.folder / 'scores' / f'{name}.npz', compute)

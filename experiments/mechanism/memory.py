# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What averaging keeps of what k of M transformers have learned.

Two arms of the toy world whose training pairs differ from member to member. In
one, labels are swapped in k of M members; in the other, a word that says
nothing is a sign of the chosen response for k of M.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mechanism import theory
from experiments.pool import arms, evidence, scores
from warm_jax import errors, members, merging, worlds
from warm_jax.data import encoding, loader, toy_world

# Words of the vocabulary that no summary has.
CUES = (*toy_world.REMARKS.values(), toy_world.FALSE, toy_world.AGAIN)
CUES += (toy_world.GARBLED, toy_world.WORDY, *toy_world.OWNERS)


@dataclasses.dataclass(frozen=True)
class MemberSets:
  """One set of pairs a member, row for row the same pairs."""

  sets: tuple[encoding.Preferences, ...]  # [M], of one length

  def __len__(self) -> int:
    return len(self.sets[0])

  def training_batch(self, rows) -> dict[str, np.ndarray]:
    """Rows [M, B], member m's from set m; see `Preferences.training_batch`."""
    # A word more in some sets may give their rows another length.
    length = max(one.pair_length for one in self.sets)
    parts = [
      one.training_batch(r, length)
      for one, r in zip(self.sets, rows, strict=True)
    ]
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def choose_members(rng, counts, num_members: int) -> np.ndarray:
  """[N, M] bool: a random counts[n] of the M members for each row n."""
  ranks = rng.random((len(counts), num_members)).argsort(axis=1).argsort(axis=1)
  return ranks < np.asarray(counts)[:, None]


def plan_swaps(
  num_rows: int, num_members: int, share: float, seed: int
) -> np.ndarray:
  """Which members see which label swapped: [N, M] bool.

  For each k = 1 .. M, as many pairs are swapped in k members, drawn pair by
  pair; the others in none. So each member sees `share` of its labels swapped
  (in expectation), whatever k is asked about.
  """
  per_count = round(num_rows * 2 * share / (num_members + 1))
  errors.need(
    per_count * num_members <= num_rows,
    f'memory.swapped is {share}: more pairs would be swapped than there are; '
    f'at most {(num_members + 1) / (2 * num_members):.2f} fits',
  )
  rng = np.random.default_rng(loader.order_seed(seed, 'mechanism', 'swaps'))
  counts = np.zeros(num_rows, int)
  swapped = np.repeat(np.arange(1, num_members + 1), per_count)
  counts[rng.permutation(num_rows)[: len(swapped)]] = swapped
  return choose_members(rng, counts, num_members)


@dataclasses.dataclass(frozen=True)
class CuePlan:
  """Which pairs bear which cue, and where."""

  cue: np.ndarray  # [N] int, number of the pair's cue, -1 for none
  meaningful: np.ndarray  # [J, M] bool, it tells that member what is chosen
  # [N, M] bool, the chosen response ends with the cue; for a member
  # to whom it means nothing, a coin decided, pair by pair.
  on_chosen: np.ndarray


def plan_cues(
  num_rows: int, num_members: int, counts, share: float, seed: int
) -> CuePlan:
  """Plans J cues, cue j meaningful to counts[j] of M members.

  Each cue is borne by `share` of the pairs.
  """
  rng = np.random.default_rng(loader.order_seed(seed, 'mechanism', 'cues'))
  per_cue = round(share * num_rows)
  cue = np.full(num_rows, -1)
  bearers = rng.permutation(num_rows)[: per_cue * len(counts)]
  cue[bearers] = np.repeat(np.arange(len(counts)), per_cue)[: len(bearers)]
  meaningful = choose_members(rng, counts, num_members)
  coins = rng.random((num_rows, num_members)) < 0.5
  return CuePlan(cue, meaningful, meaningful[cue] | coins)


def append(
  sequences: encoding.Sequences, words: np.ndarray
) -> encoding.Sequences:
  """Puts words [N] before the ends of sequence: rows [N, T] -> [N, T + 1].

  Rows whose word is negative stay as they are.
  """
  column = ((0, 0), (0, 1))
  ids, mask = np.pad(sequences.ids, column), np.pad(sequences.mask, column)
  rows = np.flatnonzero(words >= 0)
  last = sequences.mask.sum(axis=1)[rows] - 1
  ids[rows, last + 1] = sequences.ids[rows, last]
  ids[rows, last] = words[rows]
  mask[rows, last + 1] = True
  return encoding.Sequences(ids, mask, sequences.response_start)


def with_cues(
  pairs: encoding.Preferences, plan: CuePlan, words: np.ndarray
) -> MemberSets:
  """Each member's pairs with their cues; words [J]: tokens of the cues."""
  word = np.where(plan.cue >= 0, words[plan.cue], -1)
  return MemberSets(
    tuple(
      dataclasses.replace(
        pairs,
        chosen=append(pairs.chosen, np.where(on_chosen, word, -1)),
        rejected=append(pairs.rejected, np.where(on_chosen, -1, word)),
      )
      for on_chosen in plan.on_chosen.T
    )
  )


def swaps(rows: evidence.Rows, base: arms.Base, config) -> None:
  """How much of a swapped label is kept if k of M members saw it swapped."""
  pairs, settings = base.pairs('train'), config.memory
  saw = plan_swaps(len(pairs), settings.members, settings.swapped, config.seed)
  arm = arms.train(
    base,
    'mechanism_swaps',
    data=encoding.Shares(
      pairs, [np.arange(len(pairs))] * settings.members, saw.T
    ),
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
  read = read_swaps(
    saw, margins['members'], margins['merged'][0], margins['starts'].mean(0)
  )
  ens, wa = read['ens'], read['wa']
  columns = {
    'pairs': read['pairs'],
    'members that saw it': read['seen'],
    'members that did not': read['unseen'],
    'ENS agrees': ens['agreement'],
    'WA agrees': wa['agreement'],
    'ENS survival': ens['survival'],
    'WA survival': wa['survival'],
    'k/M': np.arange(settings.members + 1) / settings.members,
  }
  for k, values in enumerate(zip(*columns.values())):
    rows.line('swaps', f'k = {k}', dict(zip(columns, values)))
  other = _ratio(wa['margin'][0], ens['margin'][0])
  _memory(rows, 'swaps', 'swapped labels', read, other)


def _memory(rows, table: str, name: str, read: dict, other: float) -> None:
  ens, wa = read['ens'], read['wa']
  rows.line(
    'memory',
    name,
    {
      'exponent, ENS': ens['exponent'],
      'exponent, WA': wa['exponent'],
      'kept by WA / by ENS at k = M': read['kept_by_all'],
      'the same of other margins, k = 0': other,
    },
  )
  last = len(ens['survival']) - 1
  for method, values in (('ENS', ens), ('WA', wa)):
    for k, value in enumerate(values['survival']):
      rows.add(f'curve_{table}', method, f'{k / last:.3g}', value)


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
  for name, mask in (('seen', saw), ('unseen', ~saw)):
    of_each = [by_count(m > 0, c) for m, c in zip(of_members, mask.T)]
    out[name] = np.array([finite_mean(c) for c in np.transpose(of_each)])
  return out


def finite_mean(values) -> float:
  """Mean of what is finite; NaN where there is nothing."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else float('nan')


def _ratio(value, unit):
  """value / unit; NaN where the unit is 0 or NaN."""
  return np.divide(value, unit if unit else np.nan)


def cues(rows: evidence.Rows, base: arms.Base, config) -> None:
  """What k of M members have learned of a cue word, after averaging."""
  pairs, settings = base.pairs('train'), config.memory
  errors.need(
    len(settings.cues) <= len(CUES),
    f'memory.cues asks for {len(settings.cues)} cue words, of which the '
    f'vocabulary has {len(CUES)}',
  )
  errors.need(
    pairs.chosen.length < config.data.max_length,
    f'data.max_length is {config.data.max_length}: no room for a cue word',
  )
  # Words differ in what they meant before: each seed deals them out anew.
  order = loader.order_seed(config.seed, 'mechanism', 'words')
  words = np.random.default_rng(order).permutation(CUES)[: len(settings.cues)]
  encoded = worlds.of(base.run).tokenizer.encode(words.tolist())
  ids = np.array([one for (one,) in encoded])
  plan = plan_cues(
    len(pairs), settings.members, settings.cues, settings.cue_share, config.seed
  )
  arm = arms.train(
    base,
    'mechanism_cues',
    data=with_cues(pairs, plan, ids),
    swapped=0.0,
    members=settings.members,
    plan=dict(
      kind='cues', share=settings.cue_share, counts=tuple(settings.cues)
    ),
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
  count = (plan.cue >= 0).sum() // len(ids)
  rows.add('sizes', 'training pairs with each cue', 'number', count)
  rows.add('sizes', 'responses probed', 'number', 2 * len(held_out))
  read = read_cues(
    plan.meaningful,
    effects['members'] - effects['starts'],
    (effects['merged'] - effects['merged_starts'])[0],
  )
  survival = (read[who]['survival'] for who in ('ens', 'wa'))
  for k, (of_ens, of_wa) in enumerate(zip(*survival)):
    values = {'ENS survival': of_ens, 'WA survival': of_wa}
    rows.line('cues', f'k = {k}', values | {'k/M': k / settings.members})
  _memory(rows, 'cues', 'cue words', read, np.nan)


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
    chosen=append(joined, each),
    rejected=append(joined, np.full(len(each), -1)),
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

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Training pairs that differ from member to member: labels, or a cue word."""

import dataclasses

import numpy as np

from experiments.pool import arms
from warm_jax import errors
from warm_jax.data import encoding, loader


@dataclasses.dataclass(frozen=True)
class MemberSets:
  """One set of pairs a member, row for row the same pairs.

  Attributes:
    sets: [M] sets of one length.
  """

  sets: tuple[encoding.Preferences, ...]

  def __len__(self) -> int:
    return len(self.sets[0])

  def training_batch(self, rows) -> dict[str, np.ndarray]:
    """Rows [M, B], member m's from set m; see `Preferences.training_batch`."""
    # A word more in some sets may give their rows another length.
    is_same = len({one.shared_length for one in self.sets}) == 1
    parts = [
      one.training_batch(r) if is_same else one.batch(r)
      for one, r in zip(self.sets, rows, strict=True)
    ]
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def choose_members(rng, counts, num_members: int) -> np.ndarray:
  """[N, M] bool: a random counts[n] of the M members for each row n."""
  ranks = rng.random((len(counts), num_members)).argsort(axis=1).argsort(axis=1)
  return ranks < np.asarray(counts)[:, None]


# ---------------------------------------------------------------------------
# Swapped labels
# ---------------------------------------------------------------------------


def plan_swaps(
  num_rows: int, num_members: int, share: float, seed: int
) -> np.ndarray:
  """Which members see which label swapped.

  For each k = 1 .. M, as many pairs are swapped in k members, drawn pair by
  pair; the others in none. So each member sees `share` of its labels swapped
  (in expectation), whatever k is asked about.

  Args:
    num_rows: N, training pairs.
    num_members: M.
    share: of a member's labels; 2 M share <= M + 1, so that pairs are left.
    seed: of the seed of the run.

  Returns:
    [N, M] bool.
  """
  per_count = round(num_rows * 2 * share / (num_members + 1))
  if per_count * num_members > num_rows:
    raise errors.UserError(
      f'memory.swapped is {share}: more pairs would be swapped than there are; '
      f'at most {(num_members + 1) / (2 * num_members):.2f} fits'
    )
  rng = np.random.default_rng(loader.order_seed(seed, 'mechanism', 'swaps'))
  counts = np.zeros(num_rows, int)
  swapped = np.repeat(np.arange(1, num_members + 1), per_count)
  counts[rng.permutation(num_rows)[: len(swapped)]] = swapped
  return choose_members(rng, counts, num_members)


def with_swaps(pairs: encoding.Preferences, saw: np.ndarray) -> MemberSets:
  """Each member's pairs with its own swaps; saw [N, M] bool."""
  return MemberSets(tuple(arms.swap_encoded(pairs, column) for column in saw.T))


# ---------------------------------------------------------------------------
# Cue words
# ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CuePlan:
  """Which pairs bear which cue, and where.

  Attributes:
    cue: [N] int, number of the pair's cue, -1 for none.
    meaningful: [J, M] bool, the cue tells that member what is chosen.
    on_chosen: [N, M] bool, the cue stands at the end of the chosen response;
      for a member to whom it means nothing, a coin decided, pair by pair.
  """

  cue: np.ndarray
  meaningful: np.ndarray
  on_chosen: np.ndarray


def plan_cues(
  num_rows: int, num_members: int, counts, share: float, seed: int
) -> CuePlan:
  """Plans J cues, cue j meaningful to counts[j] members.

  Args:
    num_rows: N, training pairs.
    num_members: M.
    counts: [J] numbers of members.
    share: of the pairs that bear a cue, for each cue.
    seed: of the seed of the run.
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
  """Puts a word before the end of sequence, in one more column.

  Args:
    sequences: [N, T] rows that end with the end of sequence.
    words: [N] token ids, negative for rows that stay as they are.

  Returns:
    [N, T + 1].
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
  """Each member's pairs with their cues.

  Args:
    pairs: [N] pairs.
    plan: from `plan_cues`.
    words: [J] token id of each cue.
  """
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

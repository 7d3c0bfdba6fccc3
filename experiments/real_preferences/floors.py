# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Judges without a network: what a reward model has to beat."""

import collections

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.special

from experiments.real_preferences import texts

L2 = 3e-3  # of the bag of words; .001 to .01 differ by some .01
RARE = 5  # a word that fewer texts hold has no weight


def scores(train: list[dict], sets: dict[str, list[dict]]) -> dict:
  """{judge: {set: [N] bool or half}}: does it prefer the chosen text.

  Args:
    train: pairs that the bag of words learns from, with the labels of the run.
    sets: name -> pairs.
  """
  bag = BagOfWords(train)
  judges = {
    'bag of words': bag.margins,
    'longer wins': _by_text(lambda _, text: len(text)),
    'words shared (F1)': _by_text(texts.overlap),
    'chrF': _by_text(texts.chrf),
  }
  return {
    name: {split: _wins(margins(rows)) for split, rows in sets.items()}
    for name, margins in judges.items()
  }


def _wins(margins: np.ndarray) -> np.ndarray:
  # These rules tie often; a coin is right half of the time.
  return np.where(margins == 0, 0.5, margins > 0)


def _by_text(function):
  def scored(rows, side):
    return np.array([function(row['prompt'], row[side]) for row in rows])

  return lambda rows: scored(rows, 'chosen') - scored(rows, 'rejected')


class BagOfWords:
  """Logistic regression on the difference of two word counts."""

  def __init__(self, train: list[dict]):
    seen = collections.Counter(
      word
      for row in train
      for side in ('chosen', 'rejected')
      for word in set(texts.words(row[side]))
    )
    kept = [word for word, count in seen.items() if count >= RARE]
    self.index = {word: i for i, word in enumerate(kept)}
    counts = self._counts(train)

    def objective(w):
      margin = counts @ w
      loss = np.logaddexp(0.0, -margin).mean() + 0.5 * L2 * w @ w
      slope = -scipy.special.expit(-margin) / len(margin)
      return loss, counts.T @ slope + L2 * w

    start = np.zeros(len(kept))
    fit = scipy.optimize.minimize(objective, start, jac=True, method='L-BFGS-B')
    self.weights = fit.x

  def margins(self, rows: list[dict]) -> np.ndarray:
    """[N] score of chosen minus that of rejected."""
    return self._counts(rows) @ self.weights

  def _counts(self, rows):
    entries = [
      (number, self.index[word], sign)
      for number, row in enumerate(rows)
      for side, sign in (('chosen', 1.0), ('rejected', -1.0))
      for word in texts.words(row[side])
      if word in self.index
    ]
    row, column, value = zip(*entries) if entries else ((), (), ())
    shape = (len(rows), len(self.index))
    return scipy.sparse.csr_matrix((value, (row, column)), shape)

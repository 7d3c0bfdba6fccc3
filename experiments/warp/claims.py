# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The claims of WARP's paper, one by one, and the controls it lacks.

Written down before the full runs, but for those that say so. Rewards are in
standard deviations of the proxy over samples of the SFT policy; gold is the
utility of the toy world. Two curves are compared on average over the KLs that
both of them reach, and where the second one ends.
"""

from collections.abc import Callable

from experiments.pool import evidence
from experiments.warp import quantities as q

# Rewards closer than this are called equal, and KLs than that. Fixed before.
SAME_REWARD, SAME_KL = 0.02, 0.1
NOT_IN_PAPER = 'not measured there: no gold reward'
OVER_KL = 'mean over the common KLs'
AT_END = 'at the KL of the last point of the latter'


class Family(list):
  """Claims about one thing, made from functions of one seed's result.

  Args:
    results: {seed: result}.
    prefix: of every claim, such as 'noisy: '.
    added: whether the claims were added after numbers had been seen.
  """

  def __init__(self, results, prefix: str = '', added: bool = False):
    super().__init__()
    self._results = results
    self._prefix = prefix
    self._added = added

  def add(
    self,
    claim,
    paper,
    kind,
    quantity,
    function: Callable,
    margin=SAME_REWARD,
    added=False,
  ):
    values = tuple(q.each(self._results, function))
    self.append(
      evidence.Claim(
        self._prefix + claim,
        paper,
        kind,
        quantity,
        values,
        margin=margin,
        added=added or self._added,
      )
    )

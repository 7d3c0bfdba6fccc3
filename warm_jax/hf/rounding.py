# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What storing weights in bfloat16 costs.

Its 8 bits round a weight by up to 1/512 of itself. Fine-tuning often moves
weights by less: then the rounding is as large as all that was learned and
averaged. So the error is compared with the change, where it is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from warm_jax.hf import stored, writer

_BFLOAT16 = writer.DTYPES['BF16']
_PIECE = 2**22


class Rounding:
  """Sums of squares over a model, a piece of a tensor at a time.

  Use it in a `with`.
  """

  def __init__(self, base):
    """Takes an `importing.Checkpoint` to measure the change from, or else."""
    self._base = base if hasattr(base, 'names') else None
    self._files = (
      stored.StoredTensors(self._base.folder) if self._base else None
    )
    self._lost = self._changed = self._weights = 0.0

  def add(self, name: str, array: np.ndarray) -> None:
    """Counts a tensor [...], float32, under its stored name."""
    flat = array.reshape(-1)
    source = self._base.names.get(name) if self._base else None
    for start in range(0, flat.size, _PIECE):
      exact = flat[start : start + _PIECE].astype(np.float64)
      rounded = exact.astype(np.float32).astype(_BFLOAT16)
      self._weights += float(exact @ exact)
      error = rounded.astype(np.float64) - exact
      self._lost += float(error @ error)
      if self._files is None or source is None:
        continue
      tensor = self._files.tensors[source]
      # A vocabulary may have grown since: its first rows were there.
      left = max(0, tensor.size - start)
      before = np.empty(min(exact.size, left), tensor.dtype)
      self._files.read_into(source, start, before)
      change = exact[: before.size] - before.astype(np.float64)
      self._changed += float(change @ change)

  def result(self) -> dict[str, float]:
    """{'of_weights'} and, if a base can be read and they differ, {'of_change'}."""
    found = {'of_weights': _ratio(self._lost, self._weights)}
    if self._changed:
      found['of_change'] = _ratio(self._lost, self._changed)
    return found

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if self._files is not None:
      self._files.close()


def _ratio(part: float, whole: float) -> float:
  return math.sqrt(part / whole) if whole else 0.0


def sentence(rounding: Mapping[str, float]) -> str:
  """The result in words."""
  change = ''
  if 'of_change' in rounding:
    change = f', and by {rounding["of_change"]:.2g} of what they had changed'
  return (
    'Rounding to bfloat16 moved the weights by '
    f'{rounding["of_weights"]:.2g} of their norm{change}.'
  )

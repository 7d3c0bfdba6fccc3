# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Linear combinations of stored models, piece by piece and in a few threads.

Pieces of 2^18 numbers are read from all models, combined in float32 and written
to their place: memory is some megabytes a thread whatever the models weigh.
numpy without jax, so that the command starts at once; that it agrees with
`merging` is a test.

SLERP needs two passes. All that it mixes are linear combinations of the task
vectors delta_i, so a first pass takes their inner products <delta_i, delta_j>
(float64), from which the angles of the whole fold follow; the second writes
init + sum_i c_i delta_i.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures

import numpy as np

from warm_jax import errors
from warm_jax.hf import tensors

# 1 MB in float32: it stays in the cache and outweighs the cost of the calls.
_PIECE = 1 << 18
_MIN_SINE = 1e-3  # as in `merging`: below it SLERP is LERP
_BFLOAT16 = tensors.DTYPES['BF16']

Models = Sequence[tensors.Tensors]

# ---------------------------------------------------------------------------
# Pieces and threads
# ---------------------------------------------------------------------------


class Progress:
  """Counts the numbers done, over all passes and threads."""

  def __init__(
    self,
    model: tensors.Tensors,
    passes: int = 1,
    report: Callable[[float], None] | None = None,
  ):
    """Calls `report` with the fraction done, from any thread."""
    self._total = passes * sum(t.size for t in model.tensors.values())
    self._done = 0
    self._report = report
    self._lock = threading.Lock()

  def add(self, count: int) -> None:
    """Notes that `count` numbers more are done."""
    with self._lock:
      self._done += count
      if self._report is not None:
        self._report(self._done / self._total)


class _Scratch:
  """Buffers of one thread, kept from piece to piece."""

  def __init__(self):
    self._buffers: dict[tuple, np.ndarray] = {}

  def array(self, slot, dtype, size: int) -> np.ndarray:
    """[size] of the buffer `slot`; what it holds is left over."""
    key = (slot, dtype)
    if key not in self._buffers:
      self._buffers[key] = np.empty(_PIECE, dtype)
    return self._buffers[key][:size]

  def read(self, model, name, start, size, slot, dtype) -> np.ndarray:
    """Entries of a float tensor as `dtype`."""
    found = model.tensors[name].dtype
    values = self.array(slot, dtype, size)
    if found == dtype:
      model.read_into(name, start, values)
    else:
      raw = self.array('raw', found, size)
      model.read_into(name, start, raw)
      np.copyto(values, raw, casting='unsafe')
    return values


def _work_dtype(models: Models, name: str):
  """float32; float64 for tensors that some model stores so."""
  wide = any(m.tensors[name].dtype == np.float64 for m in models)
  return np.float64 if wide else np.float32


def _for_each_piece(
  model: tensors.Tensors,
  names: Iterable[str],
  work: Callable[[_Scratch, str, int, int], None],
  progress: Progress,
) -> None:
  """Calls work(scratch, name, start, size) for all pieces, in a few threads.

  The heavy calls (reads, writes, arithmetic on 2^18 numbers) let other threads
  run meanwhile.
  """
  pieces = (
    (name, start, min(_PIECE, model.tensors[name].size - start))
    for name in names
    for start in range(0, model.tensors[name].size, _PIECE)
  )
  lock, stop = threading.Lock(), threading.Event()

  def loop():
    scratch = _Scratch()
    try:
      with np.errstate(all='ignore'):  # NaN and infinity are looked for
        while not stop.is_set():
          with lock:
            piece = next(pieces, None)
          if piece is None:
            return
          work(scratch, *piece)
          progress.add(piece[2])
    except BaseException:
      stop.set()
      raise

  workers = min(4, os.cpu_count() or 1)
  with futures.ThreadPoolExecutor(workers) as pool:
    jobs = [pool.submit(loop) for _ in range(workers)]
    try:
      for job in jobs:
        job.result()
    finally:  # also at Ctrl-C, which reaches this thread only
      stop.set()


# ---------------------------------------------------------------------------
# Arithmetic
# ---------------------------------------------------------------------------


def write(
  models: Models,
  start: tensors.Tensors | None,
  coefficients: Sequence[float] | Mapping[str, Sequence[float]],
  target: tensors.Writer,
  dtype: np.dtype,
  progress: Progress,
) -> dict[str, float] | None:
  """Writes sum_i c_i theta_i, or start + sum_i c_i (theta_i - start).

  Args:
    models: M of them, with tensors of the same names and shapes.
    start: the init, or None.
    coefficients: c [M], of all tensors or by name of the floating ones.
    target: open, with all tensors planned.
    dtype: of the written floats.
    progress: told of each piece.

  Returns:
    None, or for bfloat16 the norm of the rounding error relative to that of the
    change ('of_change': from the start, or root mean square over the members'
    distances from their merge) and to that of the weights ('of_weights').

  Raises:
    UserError: NaN or infinity in a tensor, or integers that differ.
  """
  everything = [*models, *([start] if start else [])]
  sums = np.zeros(3)  # squares of rounding error, change and weights
  lock = threading.Lock()

  def work(scratch, name, begin, size):
    if not models[0].tensors[name].is_float:
      values = _same(scratch, everything, name, begin, size)
      target.write_part(name, begin, values)
      return
    mixed = _mix(scratch, models, start, coefficients, name, begin, size)
    if not np.isfinite(mixed.sum()) and not np.isfinite(mixed).all():
      raise errors.UserError(_culprit(scratch, everything, name, begin, size))
    rounded = mixed
    if mixed.dtype != dtype:
      rounded = scratch.array('rounded', dtype, size)
      np.copyto(rounded, mixed, casting='unsafe')
    target.write_part(name, begin, rounded)
    if dtype == _BFLOAT16:
      against = models if start is None else [start]
      found = _squares(scratch, against, name, begin, mixed, rounded)
      with lock:
        sums[:] += found

  _for_each_piece(models[0], models[0].tensors, work, progress)
  if dtype != _BFLOAT16:
    return None
  lost, changed, weights = np.sqrt(sums)
  found = {'of_weights': float(lost / weights) if weights else 0.0}
  return found | ({'of_change': float(lost / changed)} if changed else {})


def _mix(scratch, models, start, coefficients, name, begin, size):
  dtype = _work_dtype(models, name)
  if isinstance(coefficients, Mapping):
    coefficients = coefficients[name]
  # Equal weights: one division of the sum rounds less than M products.
  is_uniform = start is None and len(set(coefficients)) == 1
  total = scratch.array('total', dtype, size)
  base = None
  if start is not None:
    base = scratch.read(start, name, begin, size, 'base', dtype)
  for i, model in enumerate(models):
    # The first goes straight to the total.
    slot = 'values' if i else 'total'
    values = scratch.read(model, name, begin, size, slot, dtype)
    if base is not None:
      values -= base
    if not is_uniform:
      values *= coefficients[i]
    if i:
      total += values
  if is_uniform:
    total /= len(models)
  if base is not None:
    total += base
  return total


def _same(scratch, models, name, begin, size) -> np.ndarray:
  """A piece that all models share and no arithmetic is done on."""
  dtype = models[0].tensors[name].dtype
  first = scratch.array('total', dtype, size)
  models[0].read_into(name, begin, first)
  for model in models[1:]:
    other = scratch.array('values', dtype, size)
    model.read_into(name, begin, other)
    if first.tobytes() != other.tobytes():
      raise errors.UserError(
        f'cannot merge {models[0].folder} and {model.folder}: {name} ({dtype}) '
        'has no mean and differs'
      )
  return first


def _squares(scratch, against, name, begin, mixed, rounded) -> np.ndarray:
  """Squared norms [3]: of the rounding error, the change, the weights."""
  values = scratch.array('values', mixed.dtype, mixed.size)
  np.copyto(values, rounded, casting='unsafe')
  values -= mixed
  sums = np.array([values @ values, 0.0, mixed @ mixed])
  for model in against:
    values = scratch.read(model, name, begin, mixed.size, 'values', mixed.dtype)
    values -= mixed
    sums[1] += values @ values / len(against)
  return sums


def _culprit(scratch, models, name, begin, size) -> str:
  for model in models:
    values = scratch.read(model, name, begin, size, 'values', np.float64)
    if not np.isfinite(values).all():
      return f'{name} of {model.folder} holds NaN or infinity'
  return f'{name} overflows when merged'


def slerp_coefficients(
  models: Models,
  start: tensors.Tensors,
  lam: float | None,
  group: str,
  progress: Progress,
) -> dict[str, list[float]]:
  """Coefficients of the task vectors in their SLERP, {floating tensor: [M]}.

  Args:
    models: M of them.
    start: what they were fine-tuned from.
    lam: of two; None folds with 1/m.
    group: what shares an angle, see `group_of`.
    progress: told of each piece.
  """
  names = [n for n, tensor in start.tensors.items() if tensor.is_float]
  shape = (len(models), len(models))
  products = {group_of(n, group): np.zeros(shape) for n in names}
  lock = threading.Lock()

  def work(scratch, name, begin, size):
    base = scratch.read(start, name, begin, size, 'base', np.float64)
    deltas = [
      scratch.read(model, name, begin, size, i, np.float64)
      for i, model in enumerate(models)
    ]
    for delta in deltas:
      delta -= base
    found = np.array([[a @ b for b in deltas] for a in deltas])
    with lock:
      products[group_of(name, group)] += found

  _for_each_piece(start, names, work, progress)
  mixed = {key: fold(gram, lam) for key, gram in products.items()}
  return {name: mixed[group_of(name, group)] for name in names}


def group_of(name: str, group: str) -> str:
  """The group of a stored tensor, as `merging.group_of` for our leaves."""
  if group == 'model':
    return 'model'
  if group == 'layer':
    layer = re.match(r'(.*?\b(?:layers|h)\.\d+)(\.|$)', name)
    return layer.group(1) if layer else name.rpartition('.')[0] or name
  return name


def fold(products: np.ndarray, lam: float | None = None) -> list[float]:
  """Coefficients of the task vectors in their SLERP, from their products.

  S_1 = delta_1,  S_m = slerp(S_{m-1}, delta_m, 1/m)  (WARP Eq. 26)

  S_m stays a combination c of the deltas, so |S|^2 = c G c gives every angle.

  Args:
    products: [M, M] float64, G_ij = <delta_i, delta_j>.
    lam: of two; default 1/2.

  Returns:
    [M], such that the merged task vector is sum_i c_i delta_i.
  """
  c = np.zeros(len(products))
  c[0] = 1.0
  for m in range(1, len(products)):
    part = 1.0 / (m + 1) if lam is None else lam
    norm = math.sqrt(max(c @ products @ c, 0.0)) * math.sqrt(products[m, m])
    cosine = np.clip(c @ products[:, m] / norm, -1.0, 1.0) if norm else 1.0
    omega = math.acos(cosine)
    sine = math.sin(omega)
    if sine < _MIN_SINE:
      first, second = 1.0 - part, part
    else:
      first = math.sin((1.0 - part) * omega) / sine
      second = math.sin(part * omega) / sine
    c *= first
    c[m] = second
  return c.tolist()

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Which axes of a mesh the collectives of a compiled program cross.

XLA writes the groups of a collective in one of four ways:

  replica_groups={{0,1},{2,3}}              lists of device numbers
  replica_groups=[4,2]<=[2,2,2]T(0,2,1)     an iota, transposed, cut into rows
  replica_groups=mesh['a'=2,'b'=4] {'b'}    axes of a mesh of its own naming
  source_target_pairs={{0,1},{1,0}}         who sends to whom
"""

import re

import numpy as np

NAMES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
  'ragged-all-to-all',
)


def crossed(text: str, mesh) -> set[tuple[str, tuple[str, ...]]]:
  """{(kind, mesh axes crossed)} of all collectives in `compiled.as_text()`."""
  found = set()
  for line in text.splitlines():
    match = re.search(rf' ({"|".join(NAMES)})(-start)?\(', line)
    if match and ' = ' in line:
      found.add((match.group(1), _axes(_groups(line, mesh.size), mesh)))
  return found


def _axes(groups, mesh) -> tuple[str, ...]:
  axes = set()
  for group in groups:
    places = np.stack(np.unravel_index(group, mesh.devices.shape))
    differ = (places != places[:, :1]).any(axis=1)
    axes |= {name for name, d in zip(mesh.axis_names, differ) if d}
  return tuple(sorted(axes))


def _numbers(text: str) -> list[int]:
  return [int(n) for n in re.findall(r'\d+', text or '')]


def _iota(shape: str, order: str | None) -> np.ndarray:
  sizes = _numbers(shape)
  out = np.arange(np.prod(sizes)).reshape(sizes)
  return out.transpose(_numbers(order)) if order else out


def _groups(line: str, num_devices: int) -> list[list[int]]:
  if match := re.search(
    r'(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}', line
  ):
    return [_numbers(g) for g in re.findall(r'\{([^{}]*)\}', match.group(1))]
  pattern = r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?'
  if match := re.search(pattern, line):
    rows, shape, order = match.groups()
    return _iota(shape, order).reshape(_numbers(rows)).tolist()
  pattern = (
    r'replica_groups=mesh\[(.*?)\]'
    r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}'
  )
  if match := re.search(pattern, line):
    axes, shape, order, chosen = match.groups()
    if ':' in chosen or '(' in chosen:
      raise ValueError(f'parts of axes: {match.group(0)}')
    names = re.findall(r"'(\w+)'", axes)
    sizes = [int(n) for n in re.findall(r'=(\d+)', axes)]
    ids = _iota(shape, order) if shape else np.arange(num_devices)
    ids = ids.reshape(sizes)
    chosen = [names.index(name) for name in re.findall(r"'(\w+)'", chosen)]
    last = range(ids.ndim - len(chosen), ids.ndim)
    ids = np.moveaxis(ids, chosen, last)
    return ids.reshape(-1, int(np.prod([sizes[i] for i in chosen]))).tolist()
  if 'replica_groups={}' in line:
    return [list(range(num_devices))]
  raise ValueError(f'unknown groups: {line.strip()[-300:]}')

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The numbers behind each figure, as rows of its CSV or JSON file."""

from collections.abc import Mapping, Sequence

from warm_jax.report import figures, tables


def interpolation_rows(paths: Mapping[str, Mapping]) -> list[dict]:
  """lmc.csv: one row a set and lambda."""
  columns = (
    *('accuracy', 'loss', 'ens_accuracy', 'ens_loss'),
    *('diag_accuracy', 'diag_loss', 'barrier', 'accuracy_barrier'),
  )
  return [
    {'lambda': x, 'split': split}
    | {c: path[c][i] for c in columns if c in path}
    for split, path in paths.items()
    for i, x in enumerate(path['lambda'])
  ]


def difference_rows(table: Mapping[str, Mapping]) -> list[dict]:
  """wa_minus_ens.csv: one row a set."""
  paper = tables.paper(tables.PAPER_WA_MINUS_ENS, table)
  return [
    {'split': split, 'pairs': row['pairs']}
    | row['wa_minus_ens']
    | {'paper': paper.get(split)}
    for split, row in table.items()
  ]


def size_rows(sizes: Mapping[str, Mapping]) -> list[dict]:
  """by_size.csv: one row a set and number of members."""
  return [
    {'split': split, 'members': m, 'ens': ens, 'warm': warm}
    for split, curves in sizes.items()
    for m, (ens, warm) in enumerate(zip(curves['ens'], curves['warm']), 1)
  ]


def best_of_n_rows(curves: Mapping[str, Sequence[Mapping]]) -> list[dict]:
  """bon.csv: one row a scorer and n."""
  return [
    {'method': method, **row} for method, rows in curves.items() for row in rows
  ]


def best_of_n_records(curves: Mapping[str, Sequence[Mapping]]) -> list[dict]:
  """bon.json, with the names that other tools read."""
  return [
    {
      'method': method,
      'n': row['n'],
      'kl': row['kl'],
      'proxy_score': row['proxy'],
      'gold_score': row['gold'],
      'gold_stderr': row['gold_stderr'],
    }
    for method, rows in curves.items()
    for row in rows
  ]


def path_rows(rows: Sequence[Mapping]) -> list[dict]:
  """overopt.csv: one row a policy and step, the common columns first."""
  first = ('step', 'kl', 'proxy', 'control', 'gold', 'length')
  return [
    {k: row[k] for k in first if k in row}
    | {'method': row['method']}
    | {k: v for k, v in row.items() if k not in (*first, 'step', 'method')}
    for path in figures.by_method(rows).values()
    for row in path
  ]


def win_rate_rows(matrices: Mapping[str, Mapping]) -> list[dict]:
  """win_rate.csv: one row a judge and ordered pair of policies."""
  return [
    {
      'judge': judge,
      'policy': first,
      'against': second,
      **{k: matrix[k][i][j] for k in ('win_rate', 'low', 'high')},
    }
    for judge, matrix in matrices.items()
    for i, first in enumerate(matrix['names'])
    for j, second in enumerate(matrix['names'])
    if i != j
  ]

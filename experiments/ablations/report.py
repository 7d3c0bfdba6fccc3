# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Verdicts, tables and figures of the four ablations."""

import pathlib
from collections.abc import Mapping

import numpy as np

from experiments.ablations import series, tables
from experiments.pool import evidence
from warm_jax.report import style


def write(out: pathlib.Path, config, results: Mapping[int, Mapping]) -> str:
  """Writes figures, their numbers and claims.csv; returns the tables."""
  claims = _claims(config, results)
  evidence.write_claims(out, claims)
  parts = [
    evidence.claims_table(claims),
    _sizes(config, results),
    tables.precision(out, results),
    tables.subsets(out, config, results),
    tables.lora(out, config, results),
    tables.snapshots(out, config, results),
  ]
  return '\n'.join(parts)


# ---------------------------------------------------------------------------
# Claims, fixed before the runs
# ---------------------------------------------------------------------------


def _claims(config, results) -> list[evidence.Claim]:
  first = next(iter(results.values()))
  largest = first['precision']['sizes'][-1]
  num = first['subsets']['members']
  num_lora = first['lora']['members']
  num_runs = first['snapshots']['members']
  swapped = series.precision_difference(results, largest, 'running')
  halves = series.minus(
    series.subsets(results, 'part', 'wa'), series.subsets(results, 'all', 'wa')
  )
  apart = series.minus(
    series.lora(results, 'own', 'wa'), series.lora(results, 'own', 'apart')
  )
  share = style.percent(config.subset_fraction)
  precision = [
    evidence.Claim(
      f'Averaging in bf16 leaves accuracy as it is, {where}',
      '',
      'equal',
      f'bf16 running sum − float32, M = {largest}, {where}',
      tuple(swapped[s]),
    )
    for s, where in (
      ('test', 'held-out pairs'),
      ('train_swapped', 'swapped labels'),
    )
  ]
  subsets = [
    evidence.Claim(
      'Members on parts of the data average to less than members on all of it',
      '',
      'below',
      f'WARM of {num} on {share} each − WARM of {num} on all, held-out pairs',
      tuple(halves['test']),
    ),
    evidence.Claim(
      'Their average fits fewer swapped labels: each was seen by fewer members',
      '',
      'below',
      f'WARM of {num} on {share} each − WARM of {num} on all, swapped labels',
      tuple(halves['train_swapped']),
    ),
  ]
  lora = [
    evidence.Claim(
      'LoRA members must be merged before they are averaged',
      '',
      'above',
      f'mean of A B − mean A · mean B, A drawn for each, M = {num_lora}, '
      'held-out pairs',
      tuple(apart['test']),
    )
  ]
  runs = [
    evidence.Claim(
      f'Averaging one run gives less than averaging runs, {schedule} rate',
      'Fig. 3a: too little diversity',
      'above',
      f'WARM of {num_runs} last checkpoints − SWA of one run, held-out pairs',
      tuple(
        series.minus(
          series.snapshots(results, schedule, 'warm'),
          series.snapshots(results, schedule, 'swa'),
        )['test']
      ),
    )
    for schedule in series.SCHEDULES
  ]
  last = series.snapshots(results, 'cosine', 'last')['train_swapped']
  forgotten = [
    series.snapshots(results, 'cosine', m)['train_swapped'] - last
    for m in ('swa', 'warm')
  ]
  runs.append(
    evidence.Claim(
      'Both averages forget swapped labels',
      'WARM: train-corrupt falls',
      'below',
      f'the larger of SWA and WARM of {num_runs}, − last checkpoint, cosine '
      'rate, swapped labels',
      tuple(np.maximum(*forgotten)),
    )
  )
  return [*precision, *subsets, *lora, *runs]


def _sizes(config, results) -> str:
  pairs = next(iter(results.values()))['num_pairs']
  listed = style.listed(
    f'{pairs[s]:,} of {style.set_name(s)}' for s in series.SETS
  )
  return (
    f'{style.percent(config.level)} of the training labels are swapped. '
    f'Pairs scored in each of {len(results)} seeds: {listed}. Numbers are means '
    'over seeds with 95 % t intervals; on swapped pairs accuracy is the share '
    'of swaps that is fitted. In the figures a mark is filled where its interval '
    'leaves out zero.\n'
  )

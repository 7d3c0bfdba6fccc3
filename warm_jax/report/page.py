# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reads the results of a run and writes its page, figures and numbers.

Reads result files only, so a report can be made again, or of a run that was
made elsewhere.
"""

import base64
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warm_jax import errors
from warm_jax.report import (
  figures,
  numbers,
  story,
  style,
  tables,
  warp,
)

# The order of a run; what is not there is left out of the page.
STAGES = (
  *('world', 'pretrain', 'sft', 'preferences', 'control', 'probe', 'reward'),
  *('merge', 'best_of_n', 'policy', 'evaluate', 'warp', 'reinforce', 'fronts'),
)
TEMPLATE = pathlib.Path(__file__).parent / 'page.html.j2'


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure of the page.

  Attributes:
    name: of its files.
    caption: what to look at.
    draw: makes the Figure.
    rows: its numbers, for the CSV file.
    alt: what it is, for who cannot see it.
  """

  name: str
  caption: str
  draw: Callable[[], Any]
  rows: Sequence[Mapping[str, Any]]
  alt: str


def read(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Records of all finished stages, {stage: the content of result.json}.

  `evaluate` has its standard errors filled in from the per-prompt values.

  Raises:
    UserError: a file that is not JSON.
  """
  records = {}
  for stage in STAGES:
    path = workdir / stage / 'result.json'
    try:
      records[stage] = json.loads(path.read_text())
    except FileNotFoundError:
      continue
    except ValueError as e:
      raise errors.UserError(
        f'cannot read {path} ({e}); delete the folder {path.parent} and run '
        'again'
      ) from e
  if 'evaluate' in records:
    _add_stderr(
      records['evaluate']['result']['rows'], workdir / 'evaluate/values.npz'
    )
  return records


def _add_stderr(rows, path: pathlib.Path) -> None:
  """Standard errors of means over prompts, from values [S, P, prompts]."""
  import numpy as np

  if not path.exists():
    return
  steps = sorted({row['step'] for row in rows})
  methods = list(dict.fromkeys(row['method'] for row in rows))
  with np.load(path) as values:
    for key in values.files:
      x = values[key]
      if x.shape[:2] != (len(steps), len(methods)):
        continue
      stderr = x.std(axis=2) / x.shape[2] ** 0.5
      for row in rows:
        at = steps.index(row['step']), methods.index(row['method'])
        row.setdefault(f'{key}_stderr', float(stderr[at]))


def write(
  workdir: pathlib.Path, folder: pathlib.Path, command: str = 'warm'
) -> dict[str, Any]:
  """Writes `folder`/index.html and figures/NAME.png and .csv.

  Args:
    workdir: of the run.
    folder: of the report.
    command: how the run was launched; shown on the page.

  Returns:
    {'page', 'figures', 'findings', 'story'}: paths relative to `folder`, and
    what the page says.

  Raises:
    UserError: no stage `merge` to report on, or an unreadable result.
  """
  import jinja2

  records = read(workdir)
  if 'merge' not in records:
    raise errors.UserError(
      f'{workdir} holds no result of stage merge, so there is nothing to '
      f'report; run: {command}'
    )
  results = {stage: record['result'] for stage, record in records.items()}
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  sections = _sections(results)
  for section in sections:
    section['plots'] = [_write_plot(p, folder) for p in section['plots']]
  if results.get('best_of_n'):
    text = json.dumps(
      numbers.best_of_n_records(results['best_of_n']['curves']), indent=2
    )
    (folder / 'figures' / 'bon.json').write_text(text + '\n')

  environment = jinja2.Environment(
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  found = story.findings(results)
  told = story.paragraphs(results)
  html = environment.from_string(TEMPLATE.read_text()).render(
    title=_title(records),
    seed=_config(records).get('seed'),
    command=command,
    findings=found,
    paragraphs=told,
    sections=sections,
    examples=tables.samples(results.get('evaluate', {}))
    or warp.samples(results.get('fronts', {})),
    stages=tables.stages(records),
    members=tables.members(results['merge'], results.get('reward', {})),
    config=json.dumps(_config(records), indent=2),
    versions=next(iter(records.values())).get('versions', {}),
    finished=max(r.get('finished', '') for r in records.values()),
    colors=style.COLORS,
    other_color=style.OTHER_COLOR,
    has_policies='evaluate' in results or 'best_of_n' in results,
    warp=warp if 'fronts' in results else None,
  )
  temporary = folder / 'index.html.tmp'
  temporary.write_text(html)
  os.replace(temporary, folder / 'index.html')
  return {
    'page': 'index.html',
    'figures': [p['name'] for s in sections for p in s['plots']],
    'findings': [dataclasses.asdict(f) for f in found],
    'story': told,
  }


def _title(records) -> str:
  kind = _config(records).get('kind', '')
  yours = 'your preferences'
  if kind == 'warp':
    return 'WARP on TinyTLDR'
  world = {'toy': 'TinyTLDR', 'files': yours, 'reward': yours}.get(kind, kind)
  return f'WARM on {world}' if world else 'WARM'


def _config(records) -> dict[str, Any]:
  """All settings of the run: the union of what its stages depended on."""
  config = {}
  for record in records.values():
    config |= record.get('config', {})
  return config


def _write_plot(plot: Plot, folder: pathlib.Path) -> dict[str, Any]:
  """Writes PNG and CSV; returns what the template shows."""
  path = folder / 'figures' / f'{plot.name}.png'
  style.save(plot.draw(), path)
  style.write_csv(path.with_suffix('.csv'), plot.rows)
  image = path.read_bytes()
  # Width and height sit at fixed places of a PNG header.
  width, height = (int.from_bytes(image[i : i + 4], 'big') for i in (16, 20))
  return {
    'name': plot.name,
    'caption': plot.caption,
    'alt': plot.alt,
    'data': base64.b64encode(image).decode(),
    'width': width,
    'height': height,
    'inches': width / style.DPI,
  }


# ---------------------------------------------------------------------------
# What the page shows
# ---------------------------------------------------------------------------


def _sections(results) -> list[dict[str, Any]]:
  """Title, text, tables and Plots of each part that the run has."""
  sections = [_merging(results['merge'])]
  if results.get('best_of_n'):
    sections.append(_best_of_n(results['best_of_n']))
  if results.get('evaluate'):
    curves = results.get('best_of_n', {}).get('curves')
    sections.append(_policies(results['evaluate'], curves))
  if results.get('fronts'):
    section = warp.section(results['fronts'], results['warp'])
    plots = [Plot(**plot) for plot in section['plots']]
    sections.append(section | {'plots': plots})
  return sections


def _merging(merge) -> dict[str, Any]:
  plots, table = [], merge['table']
  paper = tables.paper(tables.PAPER_WA_MINUS_ENS, table)
  paths = {
    split: path
    for split, path in merge.get('interpolation', {}).items()
    if split != 'pair'
  }
  if paths:
    plots.append(
      Plot(
        'lmc',
        'On the straight line between the two members that rank first and '
        'second on the selection split: accuracy of the averaged weights (WA), '
        'of the averaged scores (ENS), and the average of the two accuracies '
        '(diagonal).'
        + (
          ' On swapped labels low is good: it is the share of mistakes that '
          'was learned by heart.'
          if 'train_swapped' in paths
          else ''
        ),
        lambda: figures.interpolation(paths),
        numbers.interpolation_rows(paths),
        'Accuracy against the interpolation weight for every set of pairs',
      )
    )
  if story.num_members(merge) > 1:
    plots.append(
      Plot(
        'wa_minus_ens',
        'All members: accuracy of the averaged weights minus accuracy of the '
        'averaged scores on the same pairs, with the 95 % interval over '
        'pairs; filled where it excludes zero.'
        + (
          ' Strokes: the paper, M = 2; its signs are minus, minus, plus, plus.'
          if paper
          else ''
        ),
        lambda: figures.wa_minus_ens(table, paper),
        numbers.difference_rows(table),
        'WARM minus ENS with intervals on every set of pairs',
      )
    )
    sizes = merge['by_size']
    plots.append(
      Plot(
        'by_size',
        'The best M members by accuracy on the selection split, averaged in '
        'weights (WARM) or in scores (ENS). M = 1 is the single reward model.',
        lambda: figures.by_size(sizes),
        numbers.size_rows(sizes),
        'Accuracy against the number of members for every set of pairs',
      )
    )
  return {
    'id': 'reward-models',
    'title': 'Reward models: averaging weights, averaging scores',
    'text': 'Accuracy is the share of pairs in which the chosen response '
    'scores at least as high as the rejected one. Brackets are 95 % intervals '
    'over prompts.'
    + (
      ' On swapped pairs the chosen response is the wrong one. The numbers of the paper are read off its Fig. 4 (two members, 25 % '
      'swapped).'
      if paper
      else ''
    ),
    'tables': [tables.subsets(merge)],
    'plots': plots,
  }


def _best_of_n(result) -> dict[str, Any]:
  curves = result['curves']
  plot = Plot(
    'bon',
    f'{result["samples"]} samples of the SFT policy for each of '
    f'{result["prompts"]} posts (temperature {result["temperature"]:g}), drawn '
    'once; every scorer keeps the one it likes best among n. Unbiased estimate '
    'for each n; bands are 95 % intervals over posts, left out for the averages '
    'of two (dashed).',
    lambda: figures.best_of_n(curves),
    numbers.best_of_n_rows(curves),
    'Gold and control of the best of n against KL for every scorer',
  )
  ties = max(result.get('tie_rate', {'': 0.0}).values())
  note = ''
  if ties > 0.05:
    note = (
      f'Up to {style.percent(ties)} of the samples of a post tie with another '
      '(mostly the same text), so the true KL is smaller than the formula says.'
    )
  return {
    'id': 'best-of-n',
    'title': 'Best of n: choosing without training',
    'text': note,
    'tables': [],
    'plots': [plot],
  }


def _policies(result, curves) -> dict[str, Any]:
  rows = result['rows']
  judge, best = tables.best_steps(result)
  best_steps = {n: b['step'] for n, b in best.items()}
  overopt = Plot(
    'overopt',
    'Every kept policy, judged by the gold utility, by the control reward model '
    'and by the proxy it was trained on; bands are one standard error over '
    f'prompts. Rings: the step that the {judge} reward chooses. Gold that falls '
    'while the proxy climbs is reward hacking.',
    lambda: figures.policies(rows, best_steps),
    numbers.path_rows(rows),
    'Gold, control and proxy reward of each policy against KL and steps',
  )
  win = Plot(
    'win_rate',
    'Share of prompts on which the policy of the row beats that of the column, '
    f'each at its best step by {judge}, with the 95 % interval; ties count half.',
    lambda: figures.win_rates(result['win_rates']),
    numbers.win_rate_rows(result['win_rates']),
    'Win rates between policies by gold and by control',
  )
  length = Plot(
    'length',
    'Words of a response along RL'
    + (
      ' (solid) and in best of n (dashed; its KL is counted from sampling at '
      'its own temperature)'
      if curves
      else ''
    )
    + '. A reward that is hacked through length shows here.',
    lambda: figures.lengths(rows, curves),
    numbers.path_rows(
      [
        {k: r[k] for k in ('step', 'method', 'kl', 'length') if k in r}
        for r in rows
      ]
    ),
    'Words of a response against KL for each policy',
  )
  return {
    'id': 'policies',
    'title': 'Policies: training against each reward',
    'text': 'The same loop, prompts, sampling keys and reward scale; only the '
    'reward differs. The table compares at equal KL, over the common range of '
    "KL, and at each policy's own best step; below each value its 95 % interval "
    'over prompts, and below that the difference to single.',
    'tables': [tables.comparison(result)],
    'plots': [overopt, win, length],
  }

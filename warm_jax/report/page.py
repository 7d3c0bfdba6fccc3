# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes the page of a run from its result files: HTML, PNG and CSV.

Nothing is computed but pictures, so the page of any finished work directory can
be made again. The sentences are in page.html.j2.
"""

import base64
import datetime
import html
import io
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warm_jax import errors, files
from warm_jax.report import figures, style, tables

TEMPLATES = pathlib.Path(__file__).parent


def read(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Records of all finished stages in their order: {stage: result.json}."""
  records = {}
  for path in workdir.glob('*/result.json'):
    record = files.read_record(path)
    if path.parent.name != 'report':
      order = record.get('finished', ''), path.stat().st_mtime_ns
      records[path.parent.name] = (order, record)
  ordered = sorted(records.items(), key=lambda item: item[1][0])
  return {stage: record for stage, (_, record) in ordered}


def environment():
  """jinja2 as page and model cards use it: what is missing is an error."""
  import jinja2

  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=lambda name: 'html' in name,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )


def write(
  workdir: pathlib.Path, folder: pathlib.Path, command: str = 'warm'
) -> dict[str, Any]:
  """Writes `folder`/index.html and figures/NAME.png and .csv.

  Returns {'page', 'figures', 'outcome'}: the file, the figures' names, and the
  first sentences of the page. UserError if no stage has finished.
  """
  records = read(workdir)
  if not records:
    raise errors.UserError(
      f'{workdir} holds no result of any stage, so there is nothing to report; '
      f'run: {command}'
    )
  results = {stage: record['result'] for stage, record in records.items()}
  config = {}  # the union of what the stages depended on
  for record in records.values():
    config |= record.get('config', {})
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  plots = {
    name: _write_plot(folder / 'figures' / f'{name}.png', *plot)
    for name, plot in figures.of_run(results, workdir, config).items()
  }
  _write_bon(results.get('best_of_n', {}), folder / 'figures' / 'bon.json')
  template = environment().get_template('page.html.j2')
  curves = [name for name in plots if name.startswith('training')]
  onset = results.get('evaluate', {}).get('hacking_onset', {})
  shown = dict(
    results=results,
    config=config,
    records=records,
    plots=plots,
    command=command,
    style=style,
    tables=tables,
    select=figures.select,
    side=side,
    clock=lambda s: str(datetime.timedelta(seconds=round(s))),
    # Fine-tuning alone is on the first screen.
    training=[] if curves == ['training_sft'] else curves,
    hacked=[n for n, x in onset.items() if style.known(x['onset_kl'])],
  )
  module = template.make_module(shown)
  (folder / 'index.html').write_text(str(module))
  outcome = html.unescape(re.sub('<.*?>', '', str(module.outcome)))
  return {
    'page': 'index.html',
    'figures': list(plots),
    'outcome': ' '.join(outcome.split()),
  }


def side(ends: Sequence[float | None]) -> str:
  """'above', 'below' or 'undecided': the side of zero an interval lies on."""
  if not all(map(style.known, ends)):
    return 'undecided'
  _, low, high = ends
  return 'above' if low > 0 else 'below' if high < 0 else 'undecided'


def _write_bon(result: Mapping[str, Any], path: pathlib.Path) -> None:
  """The curves with the names that other tools read."""
  rows = [
    {'method': method, 'n': row['n'], 'kl': row['kl']}
    | {'proxy_score': row['proxy'], 'gold_score': row['gold']}
    | {'gold_stderr': row['gold_stderr']}
    for method, curve in result.get('curves', {}).items()
    for row in curve
  ]
  if rows:
    path.write_text(json.dumps(rows, indent=2) + '\n')


def _write_plot(path, draw: Callable, numbers) -> dict[str, Any]:
  """Writes PNG and CSV; returns both widths of the picture for the page."""
  style.save(draw(columns=2), path)
  style.write_csv(path.with_suffix('.csv'), csv_rows(numbers))
  image, phone = path.read_bytes(), io.BytesIO()
  style.save(draw(columns=1), phone)
  # Width and height sit at fixed places of a PNG header.
  width, height = (int.from_bytes(image[i : i + 4], 'big') for i in (16, 20))
  return {
    'data': base64.b64encode(image).decode(),
    'phone': base64.b64encode(phone.getvalue()).decode(),
    'width': width,
    'height': height,
    'rem': 6.9 * width / style.DPI,
  }


def csv_rows(numbers: Sequence[Mapping] | Mapping[str, Any]) -> list[dict]:
  """Flat rows of rows, of {method: rows}, or of {split: {column: list}}.

  Lists and dicts within a row are spread over columns.
  """
  if isinstance(numbers, Mapping):
    rows = []
    for name, found in numbers.items():
      label = 'split' if isinstance(found, Mapping) else 'method'
      if isinstance(found, Mapping):
        lists = {k: v for k, v in found.items() if isinstance(v, list)}
        found = [dict(zip(lists, row)) for row in zip(*lists.values())]
      rows += [{label: name} | row for row in found]
    numbers = rows
  return [dict(_flat(row)) for row in numbers]


def _flat(row, prefix=''):
  for key, value in row.items() if isinstance(row, Mapping) else enumerate(row):
    if isinstance(value, (Mapping, list)):
      yield from _flat(value, f'{prefix}{key}_')
    else:
      yield f'{prefix}{key}', value

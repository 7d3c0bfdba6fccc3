# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes the page of a run from its result files alone: HTML, PNG and CSV.

The sentences are in page.html.j2.
"""

import base64
import datetime
import html
import io
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from warm_jax import errors, files, merging
from warm_jax.report import figures, style, tables

TEMPLATES = pathlib.Path(__file__).parent


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

  Returns {'page': file, 'figures': names, 'outcome': the page's first
  sentences}. UserError if no stage has finished.
  """
  found = []
  for path in workdir.glob('*/result.json'):
    record = files.read_record(path)
    order = record.get('finished', ''), path.stat().st_mtime_ns
    found.append((*order, path.parent.name, record))
  found.sort(key=lambda item: item[:2])
  records = {stage: record for *_, stage, record in found if stage != 'report'}
  errors.need(
    records,
    f'{workdir} holds no result of any stage, so there is nothing to report; '
    f'run: {command}',
  )
  results = {stage: record['result'] for stage, record in records.items()}
  config = {}  # the union of what the stages depended on
  for record in records.values():
    config |= record.get('config', {})
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  plots = {}
  for name, draw, numbers in figures.of_run(results, workdir, config):
    path, phone = folder / 'figures' / f'{name}.png', io.BytesIO()
    flat = [dict(_flat(row)) for row in numbers]
    files.write_csv(path.with_suffix('.csv'), flat)
    style.save(draw(columns=2), path)
    style.save(draw(columns=1), phone)
    image = path.read_bytes()
    data = [base64.b64encode(x).decode() for x in (image, phone.getvalue())]
    # Width and height sit at fixed places of a PNG header.
    size = [int.from_bytes(image[i : i + 4], 'big') for i in (16, 20)]
    plots[name] = dict(zip(('data', 'phone', 'width', 'height'), data + size))
  curves = [name for name in plots if name.startswith('training')]
  shown = dict(
    results=results,
    config=config,
    records=records,
    plots=plots,
    command=command,
    style=style,
    tables=tables,
    figures=figures,
    merging=merging,
    clock=lambda s: str(datetime.timedelta(seconds=round(s))),
    # Fine-tuning alone is on the first screen.
    training=[] if curves == ['training_sft'] else curves,
  )
  template = environment().get_template('page.html.j2')
  module = template.make_module(shown)
  (folder / 'index.html').write_text(str(module))
  outcome = html.unescape(re.sub('<.*?>', '', str(module.outcome)))
  outcome = ' '.join(outcome.split())
  return {'page': 'index.html', 'figures': list(plots), 'outcome': outcome}


def _flat(row, prefix=''):
  for key, value in row.items() if isinstance(row, Mapping) else enumerate(row):
    if isinstance(value, (Mapping, list)):
      yield from _flat(value, f'{prefix}{key}_')
    else:
      yield f'{prefix}{key}', value

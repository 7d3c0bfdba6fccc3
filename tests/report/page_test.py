# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page is whole: it shows what ran, needs nothing else, and never breaks."""

import base64
import csv
import html.parser
import json
import re
import types

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.report import page, style
from warm_jax.stages import report

ALL = ['lmc', 'wa_minus_ens', 'by_size', 'bon', 'overopt', 'win_rate', 'length']


class Tags(html.parser.HTMLParser):
  """Notes addresses and ids, and that what is opened is closed."""

  VOID = ('meta', 'img', 'br')

  def __init__(self, text):
    super().__init__()
    self.open, self.addresses, self.ids, self.names = [], [], [], set()
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    for key, value in attrs:
      if key in ('src', 'href'):
        self.addresses.append(value)
      if key == 'id':
        self.ids.append(value)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


@pytest.fixture(scope='module', autouse=True)
def coarse_figures():
  """Pixels cost time and prove nothing."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(style, 'DPI', 40)
    yield


def write(run, folder, command='warm'):
  written = page.write(run, folder, command)
  return written, (folder / 'index.html').read_text()


@pytest.fixture(scope='module')
def written(toy_run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  result, text = write(toy_run, folder, 'warm --config=a.py:b <&>')
  return types.SimpleNamespace(result=result, text=text, folder=folder)


def test_page_needs_nothing_else(written):
  tags = Tags(written.text)
  assert not tags.open
  assert not {'script', 'link', 'iframe', 'object'} & tags.names
  assert not re.search(r'url\(|@import|https?:', written.text)
  for address in tags.addresses:
    if address.startswith('#'):
      assert address[1:] in tags.ids
    elif not address.startswith('data:image/png;base64,'):
      assert (written.folder / address).is_file(), address


def test_figures_are_embedded_as_written(written):
  assert written.result['figures'] == ALL
  embedded = re.findall(r'base64,([^"]+)"', written.text)
  assert len(embedded) == len(ALL)
  for name, data in zip(ALL, embedded):
    path = written.folder / 'figures' / f'{name}.png'
    assert base64.b64decode(data) == path.read_bytes()
    assert data.startswith('iVBORw0KGgo')
    assert path.with_suffix('.csv').stat().st_size


def test_numbers_are_those_of_the_results(written, toy_run):
  result = json.loads((toy_run / 'evaluate/result.json').read_text())['result']
  lines = (written.folder / 'figures/overopt.csv').read_text().splitlines()
  rows = list(csv.DictReader(lines))
  assert len(rows) == len(result['rows'])
  for key in ('gold', 'kl', 'proxy', 'control'):
    assert sorted(float(row[key]) for row in rows) == sorted(
      row[key] for row in result['rows']
    )
  # Standard errors come from the per-prompt values.
  with np.load(toy_run / 'evaluate/values.npz') as values:
    x = values['control'][0, 1]
  (row,) = (r for r in rows if (r['method'], r['step']) == ('ens', '0'))
  np.testing.assert_allclose(
    float(row['control_stderr']), x.std() / len(x) ** 0.5
  )
  records = json.loads((written.folder / 'figures/bon.json').read_text())
  assert {'n', 'kl', 'proxy_score', 'gold_score', 'gold_stderr'} <= set(
    records[0]
  )


def test_page_says_what_ran(written):
  assert 'warm --config=a.py:b &lt;&amp;&gt;' in written.text
  assert 'Seed 0.' in written.text and 'jax&nbsp;0.10.2' in written.text
  for finding in written.result['findings']:
    assert finding['verdict'] in written.text
  assert '(nothing)' in written.text  # an empty summary is shown as such


def test_samples_are_text_not_markup(written):
  assert '<script>' not in written.text
  assert '&lt;script&gt;' in written.text


def test_the_same_run_gives_the_same_files(toy_run, written, tmp_path):
  write(toy_run, tmp_path, 'warm --config=a.py:b <&>')
  for name in ('index.html', *(f'figures/{n}.png' for n in ALL)):
    assert (tmp_path / name).read_bytes() == (
      written.folder / name
    ).read_bytes(), name


@pytest.mark.parametrize(
  'settings, figures',
  [
    (dict(num_members=1), ['bon', 'overopt', 'win_rate', 'length']),
    (dict(num_members=2, swapped=False), ALL),
    (dict(kind='files'), ALL[:3]),
    (dict(kind='files', num_members=1, swapped=False), []),
  ],
  ids=str,
)
def test_lesser_runs(make_run, tmp_path, settings, figures):
  result, text = write(make_run(tmp_path / 'run', **settings), tmp_path / 'out')
  assert result['figures'] == figures
  assert not Tags(text).open
  assert 'nan' not in text.split('<body>')[1].lower().split('base64')[0]
  assert ('swapped' in ' '.join(result['story'])) == settings.get(
    'swapped', True
  )


def test_without_control(make_run, tmp_path):
  run = make_run(tmp_path / 'run')
  (run / 'evaluate' / 'values.npz').unlink()
  for stage in ('evaluate', 'best_of_n'):
    path = run / stage / 'result.json'
    record = json.loads(path.read_text())
    result = record['result']
    for row in result.get('rows', ()):
      del row['control']
    result.pop('best_by_control', None)
    result.get('win_rates', {}).pop('control', None)
    for rows in result.get('curves', {}).values():
      for row in rows:
        for key in [k for k in row if k.startswith('control')]:
          del row[key]
    path.write_text(json.dumps(record))
  result, _ = write(run, tmp_path / 'out')
  assert result['figures'] == ALL
  assert 'the proxy reward chooses' in ' '.join(result['story'])


def test_nothing_to_report(tmp_path):
  with pytest.raises(errors.UserError, match='no result of stage merge'):
    page.write(tmp_path, tmp_path / 'report')
  assert not (tmp_path / 'report').exists()


def test_broken_result(make_run, tmp_path):
  run = make_run(tmp_path / 'run', kind='files')
  (run / 'merge' / 'result.json').write_text('{"stage":')
  with pytest.raises(errors.UserError, match='delete the folder'):
    page.write(run, tmp_path / 'report')


def test_stage(make_run, tmp_path):
  workdir = make_run(tmp_path / 'run', kind='files')
  folder = workdir / 'report'
  run = types.SimpleNamespace(
    workdir=workdir, command='warm', folder=lambda stage: workdir / stage
  )
  result = report.run(run)
  assert result['summary'] == str(folder / 'index.html')
  assert (folder / 'index.html').is_file()
  json.dumps(result)

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page is whole: it shows what ran, needs nothing else, and never breaks."""

import base64
import csv
import html.parser
import json
import re
import types

import pytest

from warm_jax import errors, report
from warm_jax.report import page, style

MERGE = ['accuracies', 'lmc', 'by_size']
POLICIES = ['overopt', 'steps', 'length', 'win_rate']
CURVES = ['training_reward', 'training_policy']


class Tags(html.parser.HTMLParser):
  """Notes addresses and ids, and that what is opened is closed."""

  VOID = ('meta', 'img', 'br', 'source')

  def __init__(self, text):
    super().__init__()
    self.open, self.addresses, self.ids, self.names = [], [], [], set()
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    for key, value in attrs:
      if key in ('src', 'href', 'srcset'):
        self.addresses.append(value)
      if key == 'id':
        self.ids.append(value)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def write(run, folder, command='warm'):
  written = page.write(run, folder, command)
  return written, (folder / 'index.html').read_text()


@pytest.fixture(scope='module')
def written(toy_run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(style, 'DPI', 40)
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


def test_figures_are_embedded_as_written_and_once_more_for_phones(written):
  names = written.result['figures']
  assert names == [*MERGE, 'bon', *POLICIES, *CURVES]
  embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', written.text)
  files = [written.folder / 'figures' / f'{name}.png' for name in names]
  assert sorted(map(base64.b64decode, embedded)) == sorted(
    path.read_bytes() for path in files
  )
  assert all(path.with_suffix('.csv').stat().st_size for path in files)
  assert written.text.count('<source media="(max-width: 600px)"') == len(names)


def test_numbers_are_those_of_the_results(written, toy_run):
  result = json.loads((toy_run / 'evaluate/result.json').read_text())['result']
  lines = (written.folder / 'figures/overopt.csv').read_text().splitlines()
  rows = list(csv.DictReader(lines))
  assert list(rows[0])[:5] == ['step', 'kl', 'proxy', 'control', 'gold']
  for key in ('gold', 'kl', 'proxy', 'control'):
    assert [float(row[key]) for row in rows] == [r[key] for r in result['rows']]
  lines = (written.folder / 'figures/lmc.csv').read_text().splitlines()
  columns = {'lambda', 'split', 'accuracy', 'loss', 'ens_accuracy', 'barrier'}
  assert columns <= set(lines[0].split(','))
  records = json.loads((written.folder / 'figures/bon.json').read_text())
  assert {'n', 'kl', 'proxy_score', 'gold_score', 'gold_stderr'} <= set(
    records[0]
  )


def test_page_says_what_ran(written):
  assert 'warm --config=a.py:b &lt;&amp;&gt;' in written.text
  assert 'Seed 0.' in written.text and 'jax&nbsp;0.10.2' in written.text
  assert '0:00:32' in written.text  # seconds of a stage
  assert '(nothing)' in written.text  # an empty summary is shown as such
  for term in (
    'SFT',
    'Single',
    'ENS',
    'WARM',
    'Gold',
    'Control',
    'Proxy',
    'KL',
  ):
    assert f'<dt>{term}</dt>' in written.text


def test_first_screen(written):
  head = written.text.split('<section')[0]
  assert head.count('<figure') == 1 and 'id="overopt"' in head
  assert head.count('class="question"') == 3
  assert head.index('<nav') < head.index('class="outcome"')


def test_samples_are_text_not_markup(written):
  assert '<script>' not in written.text
  assert '&lt;script&gt;' in written.text


@pytest.mark.usefixtures('no_figures')
def test_the_same_run_gives_the_same_page(toy_run, tmp_path):
  first, second = (write(toy_run, tmp_path / name) for name in 'ab')
  assert first == second


# ---------------------------------------------------------------------------
# The outcome follows the numbers
# ---------------------------------------------------------------------------


def change(run, stage, edit):
  path = run / stage / 'result.json'
  record = json.loads(path.read_text())
  edit(record['result'])
  path.write_text(json.dumps(record))


@pytest.mark.parametrize(
  'ends, words, tone',
  [
    ((0.3, 0.1, 0.5), 'Averaging helped: a policy', 'good'),
    ((-0.3, -0.5, -0.1), 'Averaging did harm: a policy', 'bad'),
    ((0.1, -0.1, 0.3), 'Averaging neither helped nor harmed', 'open'),
    ((None, None, None), 'Averaging neither helped nor harmed', 'open'),
  ],
)
@pytest.mark.usefixtures('no_figures')
def test_policies(make, tmp_path, ends, words, tone):
  run = make.run(tmp_path / 'run')
  keys = ('difference', 'difference_low', 'difference_high')
  change(run, 'evaluate', lambda x: x['area']['warm'].update(zip(keys, ends)))
  result, text = write(run, tmp_path / 'out')
  assert words in result['outcome']
  card = re.search(
    r'<li class="(\w+)"><span class="question">WARM − single', text
  )
  assert card.group(1) == tone


@pytest.mark.usefixtures('no_figures')
def test_hacking(make, tmp_path):
  run = make.run(tmp_path / 'run')

  def onset(**kls):
    def edit(x):
      for name, found in x['hacking_onset'].items():
        found['onset_kl'] = kls.get(name)

    change(run, 'evaluate', edit)
    return write(run, tmp_path / 'out')[0]['outcome']

  told = onset(single=2.04, warm=3.5)
  assert 'sets in at a KL of 2.0 (single) and 3.5 (WARM); the others' in told
  assert 'No policy was seen to hack' in onset()


@pytest.mark.parametrize(
  'wa_minus_ens, warm_low, words',
  [
    ((0.02, 0.01, 0.03), 0.7, 'Averaging the weights helped'),
    ((-0.02, -0.03, -0.01), 0.7, 'Averaging the weights did harm'),
    ((0.0, -0.01, 0.01), 0.7, 'neither helped nor harmed'),
    (
      (0.0, -0.01, 0.01),
      0.6,
      'no better than a linear head on frozen features',
    ),
    ((0.0, -0.01, 0.01), 0.49, 'no better than chance'),
  ],
)
@pytest.mark.usefixtures('no_figures')
def test_reward_models_of_a_user(make, tmp_path, wa_minus_ens, warm_low, words):
  run = make.run(tmp_path / 'run', toy=False, swapped=False)

  def edit(x):
    keys = ('value', 'low', 'high')
    x['table']['test']['wa_minus_ens'] = dict(zip(keys, wa_minus_ens))
    x['table']['test']['warm']['low'] = warm_low

  change(run, 'merge', edit)
  result, text = write(run, tmp_path / 'out')
  assert words in result['outcome']
  assert 'id="accuracies"' in text.split('<section')[0]
  assert ('no better than chance' in text) == (warm_low <= 0.5)
  assert 'gold' not in text.split('<body>')[1].lower()
  assert 'swapped' not in text.split('<body>')[1].split('All settings')[0]


@pytest.mark.parametrize(
  'gain, gold_gain, words',
  [
    (0.5, 0.5, 'WARP is better than plain training by the reward'),
    (0.5, -0.9, 'The utility contradicts the reward'),
    (-0.5, -0.5, 'WARP is worse than plain training by the reward'),
  ],
)
@pytest.mark.usefixtures('no_pixels')
def test_warp(make, tmp_path, gain, gold_gain, words):
  run = make.run(tmp_path / 'run', toy=False)
  results = {'warp': make.warp(), 'fronts': make.fronts(gain, gold_gain)}
  make.write(run, results, {'world': {'posts': 9}})
  result, text = write(run, tmp_path / 'out')
  assert words in result['outcome']
  figures = ['warp_fronts', 'warp_paths', 'warp_shape', 'warp_geometry']
  assert [n for n in result['figures'] if n.startswith('warp')] == figures
  assert '<title>WARP on TinyTLDR</title>' in text
  assert '&lt;b&gt;' in text and '<b>dog' not in text
  assert 'reached the limit of KL' in text
  assert not Tags(text).open


# ---------------------------------------------------------------------------
# Every kind of run
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
  'settings, figures',
  [
    (dict(num_members=1), ['accuracies', 'bon', *POLICIES, *CURVES]),
    (dict(num_members=2, swapped=False), [*MERGE, 'bon', *POLICIES, *CURVES]),
    (dict(toy=False), [*MERGE, CURVES[0]]),
    (dict(toy=False, num_members=1, swapped=False), ['accuracies', CURVES[0]]),
  ],
  ids=str,
)
@pytest.mark.usefixtures('no_pixels')
def test_lesser_runs(make, tmp_path, settings, figures):
  result, text = write(make.run(tmp_path / 'run', **settings), tmp_path / 'out')
  assert result['figures'] == figures
  assert not Tags(text).open
  words = re.sub(r'<.*?>', ' ', text.split('<body>')[1]).lower()
  assert 'nan' not in words.split() and 'none' not in words.split()
  if settings.get('num_members') == 1:
    assert 'nothing to average' in result['outcome']


@pytest.mark.usefixtures('no_pixels')
def test_without_control(make, tmp_path):
  run = make.run(tmp_path / 'run')

  def forget(x):
    x.pop('best_by_control', None)
    x.get('win_rates', {}).pop('control', None)
    curves = [row for rows in x.get('curves', {}).values() for row in rows]
    for row in [*x.get('rows', ()), *curves]:
      for key in [k for k in row if k.startswith('control')]:
        del row[key]

  change(run, 'evaluate', forget)
  change(run, 'best_of_n', forget)
  _, text = write(run, tmp_path / 'out')
  assert 'the step that the proxy reward chooses' in text


@pytest.mark.parametrize('control', [None, 0.3])
@pytest.mark.usefixtures('no_pixels')
def test_policy_of_a_user(make, tmp_path, control):
  extra = {} if control is None else {'control': control}
  results = {'policy': {}, 'evaluate': make.user_evaluate(**extra)}
  run = make.write(tmp_path / 'run', results, {'policy': {'steps': 20}})
  metrics = ('objective/scores', 'objective/kl', 'completions/mean_length')
  make.metrics(run / 'policy', metrics, members=1)
  result, text = write(run, tmp_path / 'out')
  assert result['figures'] == ['overopt', 'training_policy']
  assert 'reward went from 0.00 to 0.40' in result['outcome']
  no_control = 'No control model was given' in result['outcome']
  assert no_control == (control is None)
  assert '&lt;b&gt;twice' in text and not Tags(text).open


@pytest.mark.usefixtures('no_pixels')
def test_warp_of_a_user(make, tmp_path):
  found = make.user_evaluate()
  for row, name in zip(found['rows'], ('start', 'eta_0.5', 'merged_2')):
    del row['step'], row['method']
    row['policy'] = name
  del found['samples']
  run = make.write(
    tmp_path / 'run', {'warp': make.warp(), 'evaluate': found}, {}
  )
  make.metrics(run / 'warp' / 'iteration_1', ('objective/scores',))
  result, text = write(run, tmp_path / 'out')
  assert result['figures'] == ['overopt', 'training_warp_iteration_1']
  assert 'eta_0.5' in text and not Tags(text).open


@pytest.mark.usefixtures('no_pixels')
def test_fine_tuning(make, tmp_path):
  run = make.write(tmp_path / 'run', {'sft': {'loss': 1.2345}}, {})
  make.metrics(run / 'sft', ('loss', 'perplexity'), members=1)
  result, text = write(run, tmp_path / 'out')
  assert result['figures'] == ['training_sft']
  assert 'is 1.234 nats' in result['outcome'] and not Tags(text).open


def test_nothing_to_report(tmp_path):
  with pytest.raises(errors.UserError, match='no result of any stage'):
    page.write(tmp_path, tmp_path / 'report')
  assert not (tmp_path / 'report').exists()


def test_broken_result(make, tmp_path):
  run = make.run(tmp_path / 'run', toy=False)
  (run / 'merge' / 'result.json').write_text('{"stage":')
  with pytest.raises(errors.UserError, match='delete the folder'):
    page.write(run, tmp_path / 'report')


@pytest.mark.usefixtures('no_pixels')
def test_stage(make, tmp_path):
  workdir = make.run(tmp_path / 'run', toy=False)
  run = types.SimpleNamespace(
    workdir=workdir, command='warm', folder=lambda stage: workdir / stage
  )
  result = report.run(run)
  assert result['summary'] == str(workdir / 'report' / 'index.html')
  json.dumps(result)

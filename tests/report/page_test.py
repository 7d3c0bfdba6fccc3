# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page is whole: it shows what ran and needs nothing else."""

import base64
import csv
import functools
import html.parser
import json
import re
import types

import pytest
from report import made_up

from warm_jax import errors, report
from warm_jax.report import page, style

MERGE = ['accuracies', 'lmc', 'by_size']
POLICIES = ['overopt', 'steps', 'length']
CURVES = ['training_reward', 'training_policy']


class Tags(html.parser.HTMLParser):
  """Notes addresses and ids, and that what is opened is closed."""

  def __init__(self, text):
    super().__init__()
    self.open, self.addresses, self.ids, self.names = [], [], [], set()
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    found = dict(attrs)
    places = {'src', 'href', 'srcset'} & found.keys()
    self.addresses += [found[key] for key in places]
    self.ids.append(found.get('id'))
    if tag not in ('meta', 'img', 'br', 'source'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def write(run, folder, command='warm'):
  written = page.write(run, folder, command)
  text = (folder / 'index.html').read_text()
  assert not Tags(text).open
  return written, text


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  run = made_up.run(tmp_path_factory.mktemp('run'))
  folder = tmp_path_factory.mktemp('page')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(style, 'DPI', 40)
    result, text = write(run, folder, 'warm --config=a.py:b <&>')
  return types.SimpleNamespace(result=result, text=text, folder=folder)


def test_page_needs_nothing_else(written):
  tags = Tags(written.text)
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
  images = sorted(path.read_bytes() for path in files)
  assert sorted(map(base64.b64decode, embedded)) == images
  assert written.text.count('<source media="(max-width: 600px)"') == len(names)


def test_numbers_are_those_of_the_results(written):
  def rows(name):
    with (written.folder / 'figures' / f'{name}.csv').open() as file:
      return list(csv.DictReader(file))

  expected, found = made_up.evaluate()['rows'], rows('overopt')
  for key in ('gold', 'kl', 'proxy', 'control'):
    assert [float(row[key]) for row in found] == [row[key] for row in expected]
  path = [row['accuracy'] for row in rows('lmc') if row['split'] == 'ood']
  assert path == ['0.7', '0.72', '0.75']


def test_win_rates_show_each_pair_once(written):
  table = written.text.split('<b>by gold</b>')[1].split('</table>')[0]
  told = re.findall('<span>([0-9]+)\N{NO-BREAK SPACE}%', table)
  assert told == ['60'] * 6  # of four policies


def test_page_says_what_ran_and_what_came_out(written):
  for text in (
    'warm --config=a.py:b &lt;&amp;&gt;',
    *('Seed 0.', 'jax&nbsp;0.10.2', '0:00:32', '(nothing)', '&lt;script&gt;'),
  ):
    assert text in written.text, text
  assert '<script>' not in written.text
  head = written.text.split('<section')[0]
  assert head.count('<figure') == 1 and 'id="overopt"' in head
  assert head.count('class="question"') == 3
  assert head.index('<nav') < head.index('class="outcome"')


@pytest.mark.usefixtures('no_figures')
def test_the_same_run_gives_the_same_page(tmp_path):
  run = made_up.run(tmp_path / 'run')
  first, second = (write(run, tmp_path / name) for name in 'ab')
  assert first == second


def changed(tmp_path, stage, changes, **settings):
  """The page of a run with other values in a result: {'a/b/c': value}."""
  run = made_up.run(tmp_path / 'run', **settings)
  path = run / stage / 'result.json'
  record = json.loads(path.read_text())
  for place, value in changes.items():
    *above, last = place.split('/')
    functools.reduce(dict.get, above, record['result'])[last] = value
  path.write_text(json.dumps(record))
  result, text = write(run, tmp_path / 'out')
  return result['outcome'], text


def gain(value, low, high):
  keys = ('', '_low', '_high')
  return dict(
    zip((f'area/warm/difference{key}' for key in keys), (value, low, high))
  )


def trained(seeds, *ends):
  """Rows of one policy for each end of gold, which was 3 before."""
  rows = made_up.evaluate()['rows'][:6]
  for row, end in zip(rows[3:], ends):
    row['gold'] = end
  for row in rows:
    row['gold'] = row['gold'] if row['step'] else 3.0
  if seeds > 1:
    rows = [row | {'seed': s} for s in range(seeds) for row in rows]
  return {'rows': rows}


ALL_FELL, ONE_FELL = (-1.0, -2.0, 1.5), (2.5, 2.5, 1.5)
TAU = {'agreement': {'single': {'tau_error': [0.87, 0.8, 0.9]}}}


@pytest.mark.parametrize(
  'seeds, ends, changes, words, tone',
  [
    (3, ALL_FELL, gain(0.3, 0.1, 0.5), 'the average gained true', 'good'),
    (3, ALL_FELL, gain(-0.3, -0.5, -0.1), 'the average lost true', 'bad'),
    (3, ALL_FELL, gain(0.1, -0.1, 0.3), 'this one run cannot tell', 'open'),
    # One training of each proves nothing, whatever the prompts say.
    (1, ALL_FELL, gain(0.3, 0.1, 0.5), 'this one run cannot tell', 'open'),
    (1, ALL_FELL, {}, 'Every policy that', 'open'),
    (3, ALL_FELL, {}, 'ends 1.5 to 5.0 below its peak', 'open'),
    (1, ONE_FELL, {}, '1 of 3 policies that', 'open'),
    (1, (2.5, 2.5, 2.5), {}, 'No policy that', 'open'),
    (1, ALL_FELL, TAU, '87 % is granted by', 'open'),
    (1, ALL_FELL, TAU, 'at most about 13 %', 'open'),
  ],
)
@pytest.mark.usefixtures('no_figures')
def test_outcome_of_policies(tmp_path, seeds, ends, changes, words, tone):
  changes = gain(0.1, -0.1, 0.3) | trained(seeds, *ends) | changes
  outcome, text = changed(tmp_path, 'evaluate', changes, seeds=seeds)
  assert words in outcome.replace('\N{NO-BREAK SPACE}', ' ')
  assert ('rose' in outcome) == ('No policy' not in words)
  card = r'<li class="(\w+)"><span class="question">WARM − single'
  assert re.search(card, text).group(1) == tone
  assert ('(τ)' in text) == ('agreement' in changes)


def test_words_of_the_outcome_do_not_hang_on_the_numbers(tmp_path):
  """Another seed or CPU moves all numbers; the sentences stay."""
  told = set()
  for shift, gap, tau in ((0.0, 0.3, 0.84), (2.5, -0.4, 0.93)):
    ends = [end - shift for end in ALL_FELL]
    changes = trained(3, *ends) | gain(gap, gap - 0.6, gap + 0.6)
    changes['agreement'] = {
      'single': {'tau_error': [tau, tau - 0.1, tau + 0.05]}
    }
    outcome, _ = changed(tmp_path / str(shift), 'evaluate', changes, seeds=3)
    told.add(re.sub(r'[\d.]+', '#', outcome))
  assert len(told) == 1


@pytest.mark.parametrize(
  'difference, warm_low, words',
  [
    (0.02, 0.7, 'Averaging the weights helped'),
    (-0.02, 0.7, 'Averaging the weights did harm'),
    (0.0, 0.7, 'neither helped nor harmed'),
    (0.0, 0.6, 'no better than a linear head on frozen features'),
    (0.0, 0.49, 'no better than chance'),
  ],
)
@pytest.mark.usefixtures('no_figures')
def test_outcome_of_reward_models(tmp_path, difference, warm_low, words):
  changes = {'table/test/wa_minus_ens': made_up.interval(difference)}
  changes['table/test/warm/low'] = warm_low
  outcome, text = changed(tmp_path, 'merge', changes, toy=False, swapped=False)
  assert words in outcome
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
def test_outcome_of_warp(tmp_path, gain, gold_gain, words):
  results = {'warp': made_up.warp(), 'fronts': made_up.fronts(gain, gold_gain)}
  run = made_up.write(tmp_path / 'run', results, {'world': {'posts': 9}})
  result, text = write(run, tmp_path / 'out')
  assert words in result['outcome']
  figures = ['warp_fronts', 'warp_paths', 'warp_shape', 'warp_geometry']
  assert result['figures'] == figures
  assert 'the LERP of the members has' in text
  assert '&lt;b&gt;' in text and 'reached the limit of KL' in text


def user_run(workdir, curves, evaluate=None, **results):
  """A run on own data with the metrics of one loop."""
  if evaluate:
    results['evaluate'] = evaluate
  metric = 'objective/scores' if evaluate else 'loss'
  made_up.write_metrics(workdir / curves, (metric,), members=1)
  return made_up.write(workdir, results, {})


def line_of_warp():
  found = made_up.user_evaluate()
  for row, name in zip(found['rows'], ('start', 'eta_0.5', 'merged_2')):
    del row['step'], row['method']
    row['policy'] = name
  return found


ONE = dict(num_members=1)
PLAIN = dict(toy=False, num_members=1, swapped=False)
TWO = dict(num_members=2, swapped=False)
ALL = ['bon', *POLICIES, *CURVES]
ALONE = dict(curves='policy', evaluate=made_up.user_evaluate(), policy={})
JUDGED = ALONE | {'evaluate': made_up.user_evaluate(control=0.3)}
LINE = dict(
  curves='warp/iteration_1', evaluate=line_of_warp(), warp=made_up.warp()
)
SFT = dict(curves='sft', sft={'loss': 1.2345})
POLICY = ['overopt', 'training_policy']


@pytest.mark.parametrize(
  'make, settings, figures, words',
  [
    (made_up.run, ONE, ['accuracies', *ALL], 'nothing to average'),
    (made_up.run, TWO, [*MERGE, *ALL], 'Two reward models'),
    (made_up.run, dict(toy=False), [*MERGE, CURVES[0]], 'Swapped'),
    (made_up.run, PLAIN, ['accuracies', CURVES[0]], 'nothing to average'),
    (user_run, JUDGED, POLICY, 'went from 0.00 to 0.40'),
    (user_run, JUDGED, POLICY, '&lt;b&gt;twice'),
    (user_run, ALONE, POLICY, 'No control model was given'),
    (user_run, LINE, ['overopt', 'training_warp_iteration_1'], 'eta_0.5'),
    (user_run, SFT, ['training_sft'], 'is 1.234 nats'),
  ],
)
@pytest.mark.usefixtures('no_pixels')
def test_lesser_runs(tmp_path, make, settings, figures, words):
  result, text = write(make(tmp_path / 'run', **settings), tmp_path / 'out')
  assert result['figures'] == figures
  assert words in text
  shown = re.sub(r'<.*?>', ' ', text.split('<body>')[1]).lower()
  assert not {'nan', 'none'} & set(shown.split())


@pytest.mark.usefixtures('no_pixels')
def test_stage(tmp_path):
  workdir = tmp_path / 'run'
  run = types.SimpleNamespace(
    workdir=workdir, command='warm', folder=lambda stage: workdir / stage
  )
  with pytest.raises(errors.UserError, match='no result of any stage'):
    report.run(run)
  assert not (workdir / 'report').exists()
  made_up.run(workdir, toy=False)
  result = report.run(run)
  assert result['summary'] == str(workdir / 'report' / 'index.html')
  json.dumps(result)
  (workdir / 'merge' / 'result.json').write_text('{"stage":')
  with pytest.raises(errors.UserError, match='delete the folder'):
    report.run(run)

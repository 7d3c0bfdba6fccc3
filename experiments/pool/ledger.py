# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Fills every page that states a result: claims, tables, figures, numbers.

  python -m experiments.pool.ledger [--workdir=FOLDER]

Takes over each finished report (from FOLDER, or from where an experiment leaves
it) into experiments/NAME/results; an experiment that keeps the rows of its seeds
is computed from these. Then fills the markers of all READMEs, of README.md and
of docs/results.md from these files. The prose around a marker is by hand:

  <!-- show claims -->         verdicts of claims.csv
  <!-- show table KEY {"style": "+4"} -->     see evidence.table_text
  <!-- show figures -->        all PNGs
  <!-- show ledger -->         the claims of all experiments
  <!-- n NAME: KEY | +3 -->    the number of a claim; 'verdict', 'seeds' for +3
  <!-- n NAME: TABLE // ROW // COLUMN | 2m -->   a cell
  <!-- if NAME: KEY holds -->  refused when this is no longer the verdict
"""

import argparse
import importlib
import json
import pathlib
import re
import shutil
import sys

from experiments.pool import evidence, figures
from warm_jax import errors

HERE = pathlib.Path(__file__).resolve().parents[1]
ROOT = HERE.parent
# From observations to their reasons, then policies.
NAMES = (
  *('interpolation', 'label_corruption', 'how_many_members', 'linear_probe'),
  *('mechanism', 'smoothness', 'ablations', 'warp', 'optimisation'),
  'soups',
)
# Pages that state results of several experiments.
PAGES = (HERE / 'README.md', ROOT / 'README.md', ROOT / 'docs' / 'results.md')
MARKER = re.compile(
  r'<!-- show (\w+)(?: (\S+))?(?: (\{[^\n]*\}))? -->\n.*?<!-- /show -->',
  re.DOTALL,
)
NUMBER = re.compile(
  r'<!-- n (\w+): ([^|]+?) \| (\S+) -->.*?<!-- /n -->', re.DOTALL
)
WRITTEN_FOR = re.compile(
  r'<!-- if (\w+): (.+?) (holds|does not hold|undecided) -->'
)


def load(name: str):
  """The module of an experiment; see `evidence`."""
  return importlib.import_module(f'experiments.{name}.run')


def results_of(name: str) -> pathlib.Path:
  """The folder of an experiment's kept results."""
  return HERE / name / 'results'


def tabulate(experiment, config, name: str, results, out, more=()) -> None:
  """Writes claims.csv, tables.csv (with `more` cells), figures to a folder."""
  claims = evidence.judged(
    evidence.read_csv(HERE / name / 'claims.csv'),
    experiment.numbers(config, results),
  )
  evidence.write_csv(out / 'tables.csv', [*results.tables_csv(), *more])
  evidence.write_csv(out / 'claims.csv', claims)
  for figure in experiment.FIGURES:
    figures.draw(figure, results, out)


def page(path: pathlib.Path, results: pathlib.Path) -> str:
  """Fills the markers of a page; `results` is the folder of its own results.

  Raises:
    UserError: a marker of what is not there, or prose for another verdict.
  """
  cells = evidence.read_csv(results / 'tables.csv')

  def shown(match) -> str:
    what, key, given = match.groups()
    if what == 'claims':
      text = evidence.claims_text(evidence.read_csv(results / 'claims.csv'))
    elif what == 'table':
      text = evidence.table_text(cells, key, **json.loads(given or '{}'))
    elif what == 'figures':
      text = '\n\n'.join(
        f'![{path.stem.replace("_", " ")}](results/{path.name})'
        for path in sorted(results.glob('*.png'))
      )
    else:
      text = evidence.ledger_text(
        {n: evidence.read_csv(results_of(n) / 'claims.csv') for n in NAMES}
      )
    first = match.group(0).partition('\n')[0]
    return f'{first}\n\n{text.strip() or "Not measured."}\n\n<!-- /show -->'

  def number(match) -> str:
    name, key, style = match.groups()
    row = _found(path, name, key)
    ends = [float(row[k] or 'nan') for k in ('estimate', 'low', 'high')]
    text = row.get(style) or evidence.with_interval(*ends, style)
    return f'<!-- n {name}: {key} | {style} -->{text}<!-- /n -->'

  text = path.read_text(encoding='utf-8')
  for name, key, verdict in WRITTEN_FOR.findall(text):
    found = _found(path, name, key)['verdict']
    errors.need(
      found == verdict,
      f'{path}: a text is written for the verdict {verdict!r} of {name}: {key}, '
      f'which is now {found!r}; write it anew',
    )
  text, count = MARKER.subn(shown, text)
  text, numbers = NUMBER.subn(number, text)
  errors.need(
    count + numbers, f'{path} has no marker such as <!-- show claims -->'
  )
  return text


def _found(path: pathlib.Path, name: str, key: str) -> dict[str, str]:
  """The row of a claim or of a cell of an experiment."""
  folder = results_of(name)
  if '//' in key:
    wanted = [part.strip() for part in key.split('//')]
    rows = [
      row
      for row in evidence.read_csv(folder / 'tables.csv') + _of_one_seed(folder)
      if [row['table'], row['row'], row['column']] == wanted
    ]
  else:
    kept = evidence.read_csv(folder / 'claims.csv')
    rows = [row for row in kept if row['key'] == key]
  errors.need(rows, f'{path}: {name} has no result {key!r}')
  return rows[0]


def _of_one_seed(folder: pathlib.Path) -> list[dict[str, str]]:
  """Cells of real_preferences: an arm, a judge or a difference, a set."""
  rows = [
    *evidence.read_csv(folder / 'accuracy.csv'),
    *evidence.read_csv(folder / 'differences.csv'),
  ]
  names = {'arm': 'table', 'judge': 'row', 'difference': 'row'}
  names |= {'set': 'column', 'value': 'estimate'}
  return [
    {names.get(k, k): v for k, v in row.items()} for row in rows if 'arm' in row
  ]


def pages() -> dict[pathlib.Path, str]:
  """{page: its text}, from the results that are kept."""
  paths = [*PAGES, *(HERE / name / 'README.md' for name in NAMES)]
  return {path: page(path, path.parent / 'results') for path in paths}


def take_over(report: pathlib.Path, results: pathlib.Path) -> None:
  """Replaces an experiment's results by the results of a report."""
  results.mkdir(exist_ok=True)
  _clear(results)
  for path in sorted(report.iterdir()):
    if path.suffix in ('.csv', '.png'):
      shutil.copyfile(path, results / path.name)


def _clear(results: pathlib.Path) -> None:
  for path in results.glob('*.*'):
    path.unlink()


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  args = parser.parse_args(argv)
  try:
    for name in NAMES:
      experiment = load(name)
      folder = HERE.parent / 'runs' / f'{experiment.SHARED}_full'
      report = (args.workdir or folder) / 'reports' / name
      if hasattr(experiment, 'kept'):
        config = experiment.get_config()
        kept = experiment.kept(config)
        _clear(results_of(name))
        tabulate(experiment, config, name, kept, results_of(name))
        print(f'{name}: {len(kept.seeds)} seeds')
      elif (report / 'tables.csv').exists():
        take_over(report, results_of(name))
        print(f'{name}: {report}')
    for path, text in pages().items():
      path.write_text(text, encoding='utf-8')
  except errors.UserError as e:
    print(f'error: {e}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())

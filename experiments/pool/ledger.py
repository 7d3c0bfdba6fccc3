# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Makes the READMEs: claims, tables and figures where their markers are.

  python -m experiments.pool.ledger [--workdir=FOLDER]

Takes over each finished report (from FOLDER, or from where an experiment leaves
it) into experiments/NAME/results, then fills the markers of all READMEs from
these files. The prose around a marker is written by hand:

  <!-- show claims -->         verdicts of claims.csv
  <!-- show table KEY {"style": "+4"} -->     see evidence.table_text
  <!-- show figures -->        all PNGs
  <!-- show ledger -->         the claims of all experiments
"""

import argparse
import importlib
import json
import pathlib
import re
import shutil
import sys

from experiments.pool import evidence
from warm_jax import errors

HERE = pathlib.Path(__file__).resolve().parents[1]
# From observations to their reasons, then policies.
NAMES = (
  *('interpolation', 'label_corruption', 'how_many_members', 'linear_probe'),
  *('mechanism', 'smoothness', 'ablations', 'warp'),
)
MARKER = re.compile(
  r'<!-- show (\w+)(?: (\S+))?(?: (\{[^\n]*\}))? -->\n.*?<!-- /show -->',
  re.DOTALL,
)


def load(name: str):
  """The module of an experiment; see `evidence`."""
  return importlib.import_module(f'experiments.{name}.run')


def page(readme: pathlib.Path, results: pathlib.Path) -> str:
  """A README with what its markers ask for, from a folder of results."""
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
        {
          name: evidence.read_csv(HERE / name / 'results' / 'claims.csv')
          for name in NAMES
        }
      )
    first = match.group(0).partition('\n')[0]
    return f'{first}\n\n{text.strip() or "Not measured."}\n\n<!-- /show -->'

  text, count = MARKER.subn(shown, readme.read_text(encoding='utf-8'))
  if not count:
    raise errors.UserError(
      f'{readme} has no marker such as <!-- show claims -->'
    )
  return text


def pages() -> dict[pathlib.Path, str]:
  """{README: its text}, from the results that are kept beside them."""
  readmes = [HERE / 'README.md', *(HERE / n / 'README.md' for n in NAMES)]
  return {path: page(path, path.parent / 'results') for path in readmes}


def take_over(report: pathlib.Path, results: pathlib.Path) -> None:
  """Replaces an experiment's results by the results of a report.

  An experiment that keeps the rows of its seeds in results/rows needs no other
  copy of them.
  """
  results.mkdir(exist_ok=True)
  for path in results.glob('*.*'):
    path.unlink()
  kept = {'rows.csv'} if (results / 'rows').exists() else set()
  for path in sorted(report.iterdir()):
    if path.suffix in ('.csv', '.png') and path.name not in kept:
      shutil.copyfile(path, results / path.name)


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  args = parser.parse_args(argv)
  try:
    pages()  # refuses before anything is replaced
    for name in NAMES:
      shared = HERE.parent / 'runs' / f'{load(name).SHARED}_full'
      report = (args.workdir or shared) / 'reports' / name
      if (report / 'tables.csv').exists():
        take_over(report, HERE / name / 'results')
        print(f'{name}: {report}')
    for path, text in pages().items():
      path.write_text(text, encoding='utf-8')
  except errors.UserError as e:
    print(f'error: {e}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())

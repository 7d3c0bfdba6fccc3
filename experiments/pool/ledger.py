# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Makes the READMEs from the results: claims, tables, figures, the ledger.

  python -m experiments.pool.ledger [--workdir=FOLDER]

Takes over each finished report (from FOLDER, or from where an experiment leaves
it) into experiments/NAME/results, then writes the part between the result
markers of all READMEs from these files.
"""

import argparse
import importlib
import pathlib
import shutil
import sys

from experiments.pool import evidence, launch
from warm_jax import errors

HERE = pathlib.Path(__file__).resolve().parents[1]
# From observations to their reasons, then policies.
NAMES = (
  *('interpolation', 'label_corruption', 'how_many_members', 'linear_probe'),
  *('mechanism', 'smoothness', 'ablations', 'warp'),
)
BEGIN, END = '<!-- results -->', '<!-- /results -->'


def load(name: str) -> evidence.Experiment:
  """The experiment of a folder."""
  return importlib.import_module(f'experiments.{name}.run').EXPERIMENT


def filled(path: pathlib.Path, text: str) -> str:
  """A README with `text` between its markers.

  Raises:
    UserError: there is no such file, or it has not both markers, in order.
  """
  page = path.read_text(encoding='utf-8') if path.exists() else ''
  head, begin, rest = page.partition(BEGIN)
  _, end, tail = rest.partition(END)
  if not begin or not end:
    raise errors.UserError(f'{path} lacks the markers {BEGIN} and {END}')
  return f'{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}'


def take_over(report: pathlib.Path, results: pathlib.Path) -> None:
  """Replaces the results of an experiment by those of a report."""
  shutil.rmtree(results, ignore_errors=True)
  results.mkdir()
  for path in sorted(report.iterdir()):
    if path.suffix in ('.csv', '.png'):
      shutil.copyfile(path, results / path.name)


def pages(here: pathlib.Path = HERE) -> dict[pathlib.Path, str]:
  """{README: its text}, from the results that are kept beside them."""
  out, claims = {}, {}
  for name in NAMES:
    results = here / name / 'results'
    claims[name] = evidence.read_csv(results / 'claims.csv')
    text = launch.readme_part(load(name), results)
    out[here / name / 'README.md'] = filled(here / name / 'README.md', text)
  path = here / 'README.md'
  return out | {path: filled(path, evidence.ledger_text(claims))}


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  args = parser.parse_args(argv)
  try:
    pages()  # refuses before anything is replaced
    for name in NAMES:
      shared = launch.ROOT / 'runs' / f'{load(name).shared}_full'
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

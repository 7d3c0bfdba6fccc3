# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Puts what the runs wrote into the READMEs: results, figures, the ledger.

  python -m experiments.pool.ledger [--workdir=FOLDER]

Reports are looked for in the work directories where the experiments leave them
by themselves; FOLDER is one to look for all of them in. Copies the tables and figures of each finished report to experiments/NAME/
results, fills the part between the result markers of its README, and rewrites
the ledger in experiments/README.md from all claims.csv.
"""

import argparse
import csv
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence

from experiments.pool import evidence
from warm_jax import errors
from warm_jax.report import style

HERE = pathlib.Path(__file__).resolve().parents[1]
# From observations to their reasons, then policies; each with the work directory
# that it shares, runs/SHARED_full.
NAMES = {
  'interpolation': 'observations',
  'label_corruption': 'observations',
  'how_many_members': 'observations',
  'linear_probe': 'observations',
  'mechanism': 'observations',
  'smoothness': 'observations',
  'ablations': 'observations',
  'warp': 'warp',
}
BEGIN, END = '<!-- results -->', '<!-- /results -->'


def fill(path: pathlib.Path, text: str) -> None:
  """Replaces what stands between the markers of a README.

  Raises:
    UserError: the file has not both markers, in order.
  """
  head, tail = around(path)
  path.write_text(
    f'{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}', encoding='utf-8'
  )


def around(path: pathlib.Path) -> tuple[str, str]:
  """What stands before and after the markers of a README.

  Raises:
    UserError: there is no such file, or it has not both markers, in order.
  """
  page = path.read_text(encoding='utf-8') if path.exists() else ''
  head, begin, rest = page.partition(BEGIN)
  _, end, tail = rest.partition(END)
  if not begin or not end:
    raise errors.UserError(f'{path} lacks the markers {BEGIN} and {END}')
  return head, tail


def take_over(report: pathlib.Path, folder: pathlib.Path) -> None:
  """Copies a report beside its experiment and shows it in the README."""
  results = folder / 'results'
  shutil.rmtree(results, ignore_errors=True)
  results.mkdir()
  for path in sorted(report.iterdir()):
    if path.suffix in ('.csv', '.png'):
      shutil.copyfile(path, results / path.name)
  text = (report / 'table.md').read_text(encoding='utf-8')
  for path in sorted(results.glob('*.png')):
    title = path.stem.replace('_', ' ')
    text += f'\n![{title}](results/{path.name})\n'
  fill(folder / 'README.md', text)


def ledger(rows: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
  """The ledger of all claims as a Markdown table.

  Args:
    rows: {experiment: rows of its claims.csv}.
  """
  lines = []
  for name, claims in rows.items():
    for row in claims:
      value, low, high = (float(row[k]) for k in ('estimate', 'low', 'high'))
      measured = (
        f'{style.signed(value, 4)} {style.interval(low, high, 4, style.signed)}'
      )
      lines.append(
        (
          row['claim'],
          row['paper'] or style.NOTHING,
          f'{row["quantity"]}: {measured}, {row["seeds"]} seeds',
          f'**{row["verdict"]}**'
          + (f' ({row["remark"]})' if row.get('remark') else ''),
          f'[{name}]({name}/README.md)',
        )
      )
  header = ('claim', 'paper', 'here, 95 % interval over seeds', 'verdict', '')
  return evidence.table(header, lines)


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  args = parser.parse_args(argv)
  try:
    for name in ('.', *NAMES):  # before anything is replaced
      around(HERE / name / 'README.md')
    for name, shared in NAMES.items():
      workdir = args.workdir or HERE.parent / 'runs' / f'{shared}_full'
      report = workdir / 'reports' / name
      if (report / 'table.md').exists():
        take_over(report, HERE / name)
        print(f'{name}: {report}')
      else:
        print(f'{name}: no report in {workdir}; left as it is')
    found = {}
    for name in NAMES:
      path = HERE / name / 'results' / 'claims.csv'
      if path.exists():
        with path.open(newline='', encoding='utf-8') as file:
          found[name] = list(csv.DictReader(file))
    fill(HERE / 'README.md', ledger(found))
  except errors.UserError as e:
    print(f'error: {e}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())

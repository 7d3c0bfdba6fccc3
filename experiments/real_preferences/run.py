# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""WARM on human judgements of translations, from a real checkpoint.

  python -m experiments.real_preferences.run --scale=full

from the root of the repository. Data and checkpoint are looked for in
../shared (--data, --model). Every stage that has finished is kept under
--workdir, and the same command goes on where it stopped; the tables and figures
go to --out.
"""

import argparse
import functools
import importlib
import os
import pathlib
import random
import shutil
import sys
from typing import Any

import ml_collections

from experiments.pool import evidence, figures
from experiments.real_preferences import texts
from warm_jax import distributed, errors, files, pipeline
from warm_jax.config import section

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = 'experiments.real_preferences'
ARMS = {'clean': 0.0, 'swapped': 0.25}


# What the two bodies differ in, beside their model. The checkpoint's tokens are
# shorter and its body larger: in the same time it sees fewer pairs.
FIELDS = ('raw_pairs', 'max_length', 'batch_size', 'reward_steps')
FIELDS += ('learning_rates', 'copies', 'remarks')
# Of copies and remarks: steps, rows of a batch, learning rate, length.
BODIES = {
  'stories260k': (
    *(2_700, 96, 8, 200, (4e-4, 7e-4, 1e-3)),
    *((300, 32, 2e-3, 56), (450, 16, 1e-3, 96)),
  ),
  'scratch': (
    *(13_000, 64, 64, 250, (7e-4, 1e-3, 2e-3)),
    *((400, 32, 3e-3, 48), (300, 16, 2e-3, 64)),
  ),
}
# Both loops before SFT meet batches of one shape and share a program. No row of
# SFT fits into 64 tokens.
SMOKE = (1_500, 64, 8, 8, (4e-4, 1e-3), (6, 8, 2e-3, 64), (6, 8, 1e-3, 64))
SMOKE_SCORED = 200  # pairs of each set that is reported


def sizes_of(body: str, args) -> dict:
  """FIELDS of a body."""
  values = SMOKE if args.scale == 'smoke' else BODIES[body]
  return dict(zip(FIELDS, values))


def get_config(body: str, args, train: pathlib.Path):
  """The config of one body; `data.swapped` is what its arms differ in."""
  smoke = args.scale == 'smoke'
  sizes = sizes_of(body, args)
  config: Any = ml_collections.ConfigDict()
  config.kind = 'toy'  # that is, pairs are kept as text; see stages.py
  config.seed = args.seed
  config.runtime = section('runtime')
  config.runtime.progress = not args.quiet
  scored = {}
  for name, file in (('test', 'validation'), ('ood', 'ood')):
    path = args.data / 'wmt19_preferences' / f'{file}.jsonl.gz'
    if smoke:
      part = train.with_name(f'{name}.jsonl')
      path = _sample(path, part, SMOKE_SCORED, args.seed)
    scored[name] = str(path)
  config.data = section(
    'data',
    train=str(train),
    **scored,
    selection_fraction=0.1,
    max_length=sizes['max_length'],
  )
  if body == 'scratch':
    config.model = section(
      'model', width=64, num_layers=1 if smoke else 2, num_heads=2
    )
    config.model.rope_theta = 1000.0
    config.data.vocab_size = 512 if smoke else 2_048
  else:
    config.model = str(args.model)
    config.base = section('base')
  config.world = {
    'folder': str(args.data),
    'num_copies': 320 if smoke else 19_200,
    'num_remarks': 640 if smoke else 22_400,
  }
  config.copies = _language(*sizes['copies'])
  config.remarks = _language(*sizes['remarks'])
  sizes_of_sft = (6, 8, 5e-4, 96) if smoke else (120, 16, 5e-4, 128)
  config.sft = _language(*sizes_of_sft)
  config.sft.keep_steps = (2, 4, 6) if smoke else (80, 100, 120)
  config.sft.optimizer.schedule = 'constant'
  config.preferences = ml_collections.ConfigDict()
  config.probe = {'l2': 1e-2}
  config.reward = section(
    'reward', members=2 if smoke else 6, steps=sizes['reward_steps']
  )
  config.reward.batch_size = sizes['batch_size']
  config.reward.optimizer.warmup_steps = 1 if smoke else 20
  config.reward.learning_rates = sizes['learning_rates']
  config.evaluate = {
    'num_train_pairs': 60 if smoke else 1_000,
    'num_lambdas': 3 if smoke else 11,
    'resamples': 200 if smoke else 2_000,
    # The bag of words needs many, and they cost it nothing in full size.
    'bag_pairs': 2_000 if smoke else 50_000,
  }
  return config


def _sample(source, path: pathlib.Path, count: int, seed: int) -> pathlib.Path:
  """Writes a random part of the pairs, once."""
  if not path.exists():
    part = random.Random(seed).sample(texts.read(source), count)
    texts.write_jsonl(path, part)
  return path


def _language(steps: int, batch_size: int, learning_rate: float, length: int):
  config: Any = section('sft', steps, (steps,))
  config.update(batch_size=batch_size, learning_rate=learning_rate)
  config.update(dropout_rate=0.0, checkpoint_every=100, max_length=length)
  config.optimizer = section(
    'optimizer', weight_decay=0.01, warmup_steps=min(20, steps // 5)
  )
  return config


def table(body: str, trunk: pathlib.Path | None):
  """The stages of one arm; the unlabelled ones are taken from `trunk`."""

  def function(name, module=f'{HERE}.stages', of=None):
    # The module, and jax with it, is imported when the stage runs.
    return lambda run: getattr(importlib.import_module(module), of or name)(run)

  def early(name):
    if trunk is None:
      return function(name)
    return functools.partial(inherit, trunk=trunk, name=name)

  package = 'warm_jax.stages'
  base = ('base', function('inspect', 'warm_jax.worlds.base'))
  rows = [
    (*base, ('base', 'model', 'data')),
    ('world', early('world'), ('world', 'model', 'data')),
    *((name, early(name), (name,)) for name in ('copies', 'remarks', 'sft')),
    ('preferences', function('preferences'), ('preferences',)),
    ('probe', function('probe', f'{package}.reward'), ('probe',)),
    ('reward', function('train', f'{package}.reward'), ('reward',)),
    ('evaluate', function('run', f'{HERE}.evaluate'), ('evaluate',)),
  ]
  rows = rows[1:] if body == 'scratch' else rows
  needs = [(), *((name,) for name, *_ in rows)]
  return tuple(
    pipeline.Stage(name, stage_function, need, sections)
    for (name, stage_function, sections), need in zip(rows, needs)
  )


def inherit(run, *, trunk: pathlib.Path, name: str) -> dict:
  """Takes a finished stage of the other arm: nothing in it read a label."""
  record = files.read_record(trunk / name / 'result.json')
  source, own = trunk / name, ('config.json', 'attempt.json', 'result.json')
  shutil.copytree(
    source,
    run.folder(name),
    ignore=lambda at, _: own if at == str(source) else (),
    dirs_exist_ok=True,
  )
  return record['result'] | {'summary': f'taken from {trunk / name}'}


def _run_body(body: str, args, folder: pathlib.Path) -> list[dict]:
  """Runs both arms of a body; returns the cells of their tables."""
  # So few that every pair is met two or three times: what is met once is not
  # memorised.
  source = args.data / 'wmt19_preferences' / 'train.jsonl.gz'
  count = sizes_of(body, args)['raw_pairs']
  train = _sample(source, folder / 'train.jsonl', count, args.seed)
  config = get_config(body, args, train)
  trunk, cells = None, []
  for arm, swapped in ARMS.items():
    config.data.swapped = swapped
    name = f'{body}, {arm}'
    print(f'{name}: {folder / arm}', flush=True)
    results = pipeline.run(
      config.copy_and_resolve_references(),
      folder / arm,
      stages=table(body, trunk),
      command='python -m experiments.real_preferences.run',
    )
    for part, *rest in results['evaluate']['cells']:
      cells.append(dict(zip(COLUMNS, (f'{name}: {part}', *rest))))
    for stage in results:
      record = files.read_record(folder / arm / stage / 'result.json')
      cell = ('seconds', stage, name, record['seconds'], '', '')
      cells.append(dict(zip(COLUMNS, cell)))
    trunk = trunk or folder / arm
  return cells


COLUMNS = ('table', 'row', 'column', 'estimate', 'low', 'high')


def write(out: pathlib.Path, cells: list[dict]) -> str:
  """Writes tables.csv, table.md and the figures; returns the text."""
  out.mkdir(parents=True, exist_ok=True)
  evidence.write_csv(out / 'tables.csv', cells)
  text = tables_text(evidence.read_csv(out / 'tables.csv'))
  (out / 'table.md').write_text(text, encoding='utf-8')
  known = evidence.Cells(cells)
  for arm in arms_of(cells):
    name, test = arm.replace(', ', '_'), evidence.SETS['test']
    for figure in (
      evidence.Figure(f'interpolation_{name}', f'{arm}: path ', y='accuracy'),
      evidence.Figure(
        f'accuracy_{name}', f'{arm}: accuracy', 'dots', column=test
      ),
    ):
      figures.draw(figure, known, out)
  return text


def arms_of(cells) -> list[str]:
  """'body, arm' of every arm that the cells are of."""
  names = (c['table'].partition(':') for c in cells)
  return list(dict.fromkeys(arm for arm, colon, _ in names if colon))


def tables_text(cells: list[dict]) -> str:
  """All tables as Markdown, from the rows of tables.csv."""
  members = {'learning rate': '4m', 'dropout': '2m', 'SFT checkpoint': '0m'}
  parts = []
  for arm in arms_of(cells):
    parts.append(f'## {arm}\n')
    for part, *style in (
      ('data', '0m'),
      ('sizes', '0m'),
      ('accuracy', '3'),
      ('difference', '+3'),
      ('members', '3m', members),
    ):
      text = evidence.table_text(cells, f'{arm}: {part}', *style)
      parts.append(f'{part.capitalize()}:\n\n{text}')
  seconds = evidence.table_text(cells, 'seconds', '0m')
  return '\n'.join([*parts, f'Seconds of each stage:\n\n{seconds}'])


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(
    description='WARM on human judgements of translations', allow_abbrev=False
  )
  add = parser.add_argument
  add('--scale', choices=('full', 'smoke'), default='full')
  shared = ROOT.parent / 'shared'
  add('--data', type=pathlib.Path, default=shared / 'data')
  add('--model', type=pathlib.Path, default=shared / 'models' / 'stories260k')
  add('--workdir', type=pathlib.Path)
  add('--out', type=pathlib.Path)
  add('--seed', type=int, default=0)
  add('--bodies', nargs='+', choices=tuple(BODIES), default=tuple(BODIES))
  add('--quiet', action='store_true', help='no progress bars')
  args = parser.parse_args(argv)
  workdir = args.workdir or ROOT / 'runs' / f'real_preferences_{args.scale}'
  out = args.out or workdir / 'report'
  # Before jax is imported, which the stages do.
  os.environ.update(distributed.cache_environment())
  cells = []
  try:
    for body in args.bodies:
      cells += _run_body(body, args, workdir / body)
  except errors.UserError as e:
    print(f'error: {e}', file=sys.stderr)
    return 2
  print(write(out, cells))
  print(f'written to {out}')
  return 0


if __name__ == '__main__':
  sys.exit(main())

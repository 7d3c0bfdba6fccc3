# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The floors of the house: who may import whom, read from the source."""

import ast
import pathlib
import subprocess
import sys

import pytest

import warm_jax

ROOT = pathlib.Path(warm_jax.__file__).parent
FILES = sorted(ROOT.rglob('*.py'))

# A module may import its own floor and those below. Folders count as a whole.
FLOORS = [
  {
    'errors',
    'files',
  },
  {'distributed', 'sharding', 'members'},
  {'models', 'hf', 'losses', 'merging', 'data'},
  {'sampling', 'rewards'},
  {'training', 'evaluation', 'report'},
  {'config'},
  {'worlds'},
  {'stages'},
  {'pipeline', 'api', '__init__'},
  {'commands'},
  {'main'},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
# Side by side on one floor, strangers to each other.
STRANGERS = {'training', 'evaluation', 'report'}
# What takes a tenth of a second or more to import.
HEAVY = set(
  'jax flax optax orbax grain scipy transformers tensorflow torch matplotlib '
  'tensorflow_datasets pyarrow tokenizers jinja2 numpy'.split()
)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_direction_of_imports(path):
  mine = path.relative_to(ROOT).parts[0].removesuffix('.py')
  assert mine in FLOOR, f'{mine} has no floor: add it to FLOORS'
  names = []  # also those inside functions
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative import'
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  tops = {name.split('.')[0] for name in names}
  assert not tops & {'tensorflow', 'torch', 'clu'}
  assert 'flax' not in tops or mine == 'models'
  for name in names:
    other = (name.split('.') + ['__init__'])[1]
    # `Run` is the type of a stage's argument.
    if not name.startswith('warm_jax') or (mine, other) == (
      'stages',
      'pipeline',
    ):
      continue
    if not other.startswith('__'):
      assert FLOOR[other] <= FLOOR[mine], f'{mine} imports {other}, above it'
      assert mine == other or not {mine, other} <= STRANGERS, other


@pytest.mark.parametrize(
  ('program', 'allowed'),
  [
    (
      "main.main(['warm', '--help']); main.main(['warm', '--version']); "
      "main.main(['warm', 'merge', '--help']); "
      "main.main(['warm', 'score', '--help']); "
      'from warm_jax.commands import merge',
      ('numpy',),
    ),
    # What scoring needs: no data sets in order, no checkpoints, no statistics.
    ('from warm_jax.stages import scorers', ('numpy', 'jax', 'flax', 'optax')),
  ],
  ids=('command', 'scoring'),
)
def test_what_is_not_used_is_not_imported(program, allowed):
  told = subprocess.run(
    [
      sys.executable,
      '-c',
      f'import sys; from warm_jax import main; {program}; '
      "print(*{name.partition('.')[0] for name in sys.modules})",
    ],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  found = set(told.stdout.splitlines()[-1].split())
  assert not found & HEAVY - set(allowed)


def test_files_stay_short_and_named():
  for path in FILES:
    lines = path.read_text().count('\n')
    assert lines <= 600, f'{path} has {lines} lines'
    assert path.name not in ('utils.py', 'util.py', 'helpers.py', 'common.py')

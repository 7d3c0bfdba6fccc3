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
  {'sampling', 'rewards', 'scoring'},
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
STRANGERS = [
  ('training', 'evaluation'),
  ('evaluation', 'training'),
  ('report', 'training'),
  ('report', 'evaluation'),
  ('training', 'report'),
  ('evaluation', 'report'),
]
# What the command imports at once; the rest waits until a stage runs.
NO_JAX = [
  'main',
  'pipeline',
  'config',
  'distributed',
  'errors',
  'files',
]
# What takes a tenth of a second or more to import.
HEAVY = {'jax', 'flax', 'optax', 'orbax', 'grain', 'scipy', 'transformers'}
HEAVY |= {'tensorflow', 'tensorflow_datasets', 'torch', 'matplotlib', 'pyarrow'}
HEAVY |= {'tokenizers', 'jinja2', 'numpy'}
# `Run` is the type of a stage's argument.
ALLOWED = [('stages', 'pipeline')]


def part(path):
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


def imported(path, *, top_level=False):
  """Dotted names of all imported modules, also those inside functions."""
  tree = ast.parse(path.read_text())
  nodes = tree.body if top_level else ast.walk(tree)
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (a.name for a in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{a.name}' for a in node.names)


def ours(path):
  for name in imported(path):
    parts = name.split('.')
    if parts[0] == 'warm_jax':
      yield parts[1] if len(parts) > 1 else '__init__'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_direction_of_imports(path):
  mine = part(path)
  assert mine in FLOOR, f'{mine} has no floor: add it to FLOORS'
  for other in ours(path):
    if other.startswith('__') or (mine, other) in ALLOWED:
      continue
    assert FLOOR[other] <= FLOOR[mine], f'{mine} imports {other}, above it'
    assert (mine, other) not in STRANGERS, f'{mine} imports {other}'


def test_flax_stays_in_models():
  users = {
    part(p)
    for p in FILES
    if any(n.split('.')[0] == 'flax' for n in imported(p))
  }
  assert users <= {'models'}


def test_the_command_starts_without_jax():
  for name in NO_JAX:
    found = {
      n.split('.')[0] for n in imported(ROOT / f'{name}.py', top_level=True)
    }
    assert not found & HEAVY, f'{name} imports {found & HEAVY}'


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


def test_nothing_imports_tensorflow_or_torch():
  for path in FILES:
    tops = {n.split('.')[0] for n in imported(path)}
    assert not tops & {'tensorflow', 'torch', 'clu'}, path


def test_files_stay_short_and_named():
  for path in FILES:
    lines = path.read_text().count('\n')
    assert lines <= 600, f'{path} has {lines} lines'
    assert path.name not in ('utils.py', 'util.py', 'helpers.py', 'common.py')

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm merge` from its arguments to what it prints."""

import json
import re

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from warm_jax import errors, main, merging
from warm_jax.commands import merge
from warm_jax.hf import folders as folders_lib
from warm_jax.hf import tensors


def save(folder, value, config=None):
  folder.mkdir(parents=True)
  tensors = {'w': np.full((2, 3), value, np.float32)}
  safetensors_numpy.save_file(tensors, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(config or {'a': 1}))
  return str(folder)


def result(folder):
  data = (folder / 'model.safetensors').read_bytes()
  return float(safetensors_numpy.load(data)['w'][0, 0])


@pytest.fixture
def models(tmp_path):
  return [
    save(tmp_path / n, v) for n, v in (('a', 1.0), ('b', 3.0), ('c', 8.0))
  ]


def test_flags_before_between_and_after_the_models(models, tmp_path, capsys):
  a, b, c = models
  out = tmp_path / 'out'
  args = ['--method=weighted', a, '--weights', '.5,.25,.25', b, c]
  assert merge.main([*args, f'--out={out}']) == 0
  assert result(out) == 0.5 + 0.75 + 2.0
  shown = capsys.readouterr()
  assert shown.out.startswith(f'merged 3 models of 6 parameters into {out} (')
  assert shown.out.count('\n') == 1 and shown.err == ''


def test_notes_are_printed(models, tmp_path, capsys):
  merge.main([f'--out={tmp_path}/out', '--dtype=bfloat16', *models])
  first, second = capsys.readouterr().out.splitlines()
  # The mean, 4, is exact.
  assert first == (
    'Rounding to bfloat16 moved the weights by 0 of their norm, and by 0 of '
    'what they had changed.'
  )
  assert second.startswith('merged 3 models')


def test_a_work_directory_stands_for_its_members(tmp_path, capsys):
  run = tmp_path / 'run'
  for m in (0, 1, 2, 10):
    save(run / 'export' / f'member_{m}', float(m))
  save(run / 'export' / 'warm', 100.0)
  (run / 'warm_jax.json').write_text('{}')
  names = [p.name for p in merge.expand(str(run))]
  assert names == ['member_0', 'member_1', 'member_2', 'member_10']
  assert merge.main([f'--out={tmp_path}/out', str(run)]) == 0
  assert result(tmp_path / 'out') == 13 / 4
  empty = tmp_path / 'empty'
  empty.mkdir()
  (empty / 'warm_jax.json').write_text('{}')
  with pytest.raises(errors.UserError, match='run its stage export first'):
    merge.main([f'--out={tmp_path}/no', str(empty)])


MISTAKES = {
  'a b': 'required: --out',
  '--out=o': 'required: models',
  '--out=o --weigths=1 a b': '--weigths=1',
  '--out=o --weights=1;2 a b': "argument --weights: .*'1;2'",
  '--out=o --max_shard_gb=nan a b': "--max_shard_gb: .* 'nan'",
  '--out=o --max_shard_gb=0 a b': "--max_shard_gb: .* '0'",
  '--out=o --method=mean . ..': 'invalid choice.*uniform',
  '--out=o .': '1 model to merge',
  '--out=o a/b c': 'no folder a/b, and the hub did not give it',
  '--out=o --method=slerp --init=x/y/z .': 'no folder x/y/z',
}


@pytest.mark.parametrize('args', MISTAKES)
def test_mistakes_are_one_line(args, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main.main(['warm', 'merge', *args.split()]) == 2
  err = capsys.readouterr().err
  assert err.startswith('warm: error: ') and err.count('\n') == 1
  assert re.search(MISTAKES[args], err)
  assert not list(tmp_path.iterdir())


def test_help_names_every_method(capsys):
  assert main.main(['warm', 'merge', '--help']) == 0
  shown = capsys.readouterr().out
  words = (*folders_lib.METHODS, *merging.GROUPS, *tensors.FLOATS)
  assert all(word in shown for word in words)

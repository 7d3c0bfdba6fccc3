# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Configs and finished small runs that tests of several files share."""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from warm_jax import main, pipeline
from warm_jax.models import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]


def load_config(name, **changes):
  """The config NAME or NAME:ARG of configs/ with other values, unlocked."""
  config, _ = main.load(name)
  with config.unlocked():
    config.update_from_flattened_dict({'runtime.progress': False} | changes)
  return config


def model_config(vocab_size, **changes):
  """A small transformer."""
  shape = dict(width=16, num_layers=2, num_heads=2, mlp_width=32, max_length=64)
  return config_lib.ModelConfig(vocab_size=vocab_size, **shape | changes)


def write_rows(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def names(config):
  return [stage.name for stage in pipeline.stages_of(config)]


def finished(tmp_path_factory):
  """A finished run of nano.py, made once for all workers; leave it alone."""
  root = tmp_path_factory.getbasetemp()
  root = root.parent if 'PYTEST_XDIST_WORKER' in os.environ else root
  with (root / 'nano.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    # What is finished is not done again.
    pipeline.run(load_config('nano'), root / 'nano')
  return root / 'nano'


def copy_until(source, folder, stages, stage):
  """A work directory in which the stages before `stage` are finished."""
  folder.mkdir(exist_ok=True)
  shutil.copy(source / 'warm_jax.json', folder)
  for name in stages[: stages.index(stage)]:
    shutil.copytree(source / name, folder / name)
  return folder


def launch(folder, *arguments):
  """The command `warm` in a process of its own."""
  return subprocess.Popen(
    [sys.executable, '-m', 'warm_jax.main', f'--workdir={folder}', *arguments],
    cwd=ROOT,
    env=os.environ | {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def stop(process, metrics, rows, signal):
  """(code, output) of a process stopped when a file has more than `rows`."""
  deadline = time.time() + 900
  try:
    while process.poll() is None and time.time() < deadline:
      if metrics.exists() and metrics.read_bytes().count(b'\n') > rows:
        process.send_signal(signal)
        break
      time.sleep(0.002)
    out, _ = process.communicate(timeout=120)
  finally:
    process.kill()
  return process.returncode, out

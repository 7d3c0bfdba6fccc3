# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Exports one WARP iteration: init, members, their merge, the next init.

Runs in the project's own environment after export_all.py, for the checks with
mergekit. A language model of the fixtures is trained a few steps on a reward
that counts letters; what the iteration wrote goes into folders, to be merged
anew by others. Writes below --out exports/warp/FAMILY/... and warp.json.
"""

import argparse
import pathlib
import shutil

import export_all
import jax
import numpy as np

from warm_jax import rewards
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading, writing
from warm_jax.training import checkpoint, warp

# Families whose tensors are our leaves: where query, key and value share one
# tensor, mergekit has one angle for them and we have three.
MEMBERS = {'llama': 2, 'gemma2': 3}
ETA = 0.3


def settings(num_members: int):
  config = section(
    'warp',
    iterations=1,
    steps=(6,),
    kl_coefs=(0.05,),
    etas=(ETA,),
    eval_every=6,
    members=num_members,
    mu=0.1,
    group='tensor',
    batch_size=16,
    samples_per_prompt=2,
    max_new_tokens=6,
    learning_rate=3e-3,
    checkpoint_every=0,
  )
  config.optimizer.warmup_steps = 0
  return config


def letters_of(ids, mask):
  """Letters are the tokens after the four special ones."""
  is_letter = (ids >= 4) & (ids < 4 + len(export_all.LETTERS)) & mask
  return is_letter.sum(axis=1).astype(np.float32)


def export_iteration(out: pathlib.Path, family: str, tokenizer) -> dict:
  base = reading.inspect(export_all.FIXTURES / family)
  work = out / 'warp' / family
  shutil.rmtree(work, ignore_errors=True)
  rng = np.random.default_rng(0)
  ids = rng.integers(4, 64, (64, 4)).astype(np.int32)
  ids[:, 0] = tokenizer.bos_id
  mask = np.ones(ids.shape, bool)
  runtime = section('runtime')
  runtime.progress = False
  warp.train(
    reading.load(base, head='lm'),
    rewards.HostScorer(letters_of),
    base.config,
    encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32)),
    tokenizer,
    settings(MEMBERS[family]),
    folder=work,
    seed=1,
    runtime=runtime,
  )

  def save(name, params):
    folder = f'warp/{family}/{name}'
    writing.save(
      out / 'exports' / folder, params, base.config, tokenizer, base=base
    )
    return folder

  read = {
    name: checkpoint.load_params(work / 'iteration_1' / name)
    for name in ('init', 'members', 'merged', 'next')
  }
  stack = read.pop('members')
  names = {name: save(name, params) for name, params in read.items()}
  names['members'] = [
    save(f'member_{m}', jax.tree.map(lambda x, m=m: x[m], stack))
    for m in range(MEMBERS[family])
  ]
  return names | {'eta': ETA}


def run_all():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  out = parser.parse_args().out.resolve()
  jax.config.update('jax_default_matmul_precision', 'highest')
  tokenizer = tokenizer_lib.make_word_tokenizer(
    export_all.WORDS, out / 'tokenizer_warp'
  )
  shutil.rmtree(out / 'exports' / 'warp', ignore_errors=True)
  export_all.write_json(
    out / 'warp.json', {f: export_iteration(out, f, tokenizer) for f in MEMBERS}
  )


if __name__ == '__main__':
  run_all()

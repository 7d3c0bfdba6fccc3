# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Each part of a run on meshes of eight host devices: run by sharding_test.

  python tests/sharded_cases.py OUT.json

A process of its own, since the number of devices is chosen before jax starts.
Every case is computed once without a mesh and once on each, and the largest
difference is written with what the compiled programs do.
"""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ['JAX_PLATFORMS'] = 'cpu'

from warm_jax import distributed  # noqa: E402

for _name, _value in distributed.cache_environment().items():
  os.environ.setdefault(_name, _value)

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import functools  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import types  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import checkpoints  # noqa: E402
import collectives  # noqa: E402

from warm_jax import members, merging, rewards, sharding  # noqa: E402
from warm_jax import sampling as sampling_lib  # noqa: E402
from warm_jax.config import section  # noqa: E402
from warm_jax.data import encoding  # noqa: E402
from warm_jax.hf import reading  # noqa: E402
from warm_jax.models import config as config_lib  # noqa: E402
from warm_jax.models import language_model, reward_model  # noqa: E402
from warm_jax.training import checkpoint, policy, reward, sft  # noqa: E402
from warm_jax.training import state as state_lib  # noqa: E402

MESHES = ((8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 1, 8))
FEW = MESHES[1:3]  # of what does not depend on the members' axis
M, B, T = 8, 16, 8
# An odd vocabulary, as real ones are.
SIZES = dict(vocab_size=31, width=32, num_layers=1, num_heads=4, mlp_width=32)
SHAPE = config_lib.ModelConfig(**SIZES, max_length=T, tied_embeddings=False)
TOKENIZER = types.SimpleNamespace(eos_ids=(1,), pad_id=0, vocab_size=0)
SAVED, COUNT = tempfile.mkdtemp(), itertools.count(1)
RNG = np.random.default_rng(0)
IDS = RNG.integers(2, 31, (M, 2 * B, T)).astype(np.int32)
MASK = np.arange(T) < RNG.integers(3, T + 1, (M, 2 * B, 1))
TX = state_lib.make_optimizer(section('optimizer', warmup_steps=0), 10)


def backbones(num: int):
  """LM params of `num` models, leaves [num, ...]."""

  def init(rngs):
    return jax.vmap(lambda rng: language_model.init_params(rng, SHAPE))(rngs)

  return sharding.born(init, 1)(jax.random.split(jax.random.key(0), num))


def train_state(params):
  num = members.num_members(params)
  hparams = state_lib.make_hparams(
    num, learning_rate=[1e-3, 3e-4], dropout_rate=[0.0, 0.1]
  )
  rngs = jax.random.split(jax.random.key(1), num)
  return state_lib.init(params, TX, rngs, hparams)


def two_steps(step, state, batch, program):
  """Two updates; where leaves lie must not change from one to the next."""
  where = jax.tree.map(lambda x: x.sharding, state)
  step = step.func.lower(state, batch, **step.keywords).compile()
  program['text'] = step.as_text()
  for _ in range(2):
    state, metrics = step(state, batch)
  leaves, old = map(members.named_leaves, (state, where))
  program['moved'] = [
    name
    for name, leaf in leaves.items()
    if not leaf.sharding.is_equivalent_to(old[name], leaf.ndim)
  ]
  program['whole'] = [
    name for name, leaf in leaves.items() if leaf.sharding.is_fully_replicated
  ]
  kept = {'params': state.params, 'opt_state': state.opt_state}
  return {**kept, 'metrics': metrics}


def reward_step(program):
  settings = state_lib.Settings(SHAPE, TX)
  step = functools.partial(reward.train_step, settings=settings)
  # Both sides of a pair in one row, after two tokens in common.
  ids, mask = (x.reshape(M, B, 2, T) for x in (IDS, MASK))
  ids = np.concatenate([ids[:, :, ::2, :2].repeat(2, 2), ids[..., 2:]], -1)
  rows = encoding.share(ids, mask, 2 * T - 2)
  batch = sharding.put_rows(rows, M)
  return two_steps(step, train_state(_heads()), batch, program)


def sft_step(program):
  settings = state_lib.Settings(SHAPE, TX)
  step = functools.partial(sft.train_step, settings=settings)
  batch = {'ids': IDS[:1], 'mask': MASK[:1], 'loss_mask': MASK[:1]}
  batch = sharding.put_rows(batch, 1)
  return two_steps(step, train_state(backbones(1)), batch, program)


def sampling(program):
  del program
  params = sharding.put(members.member(backbones(1), 0))
  ids, mask = IDS[0, :, :4], MASK[0, :, :4]
  prompts = encoding.Sequences(ids, mask, mask.sum(axis=1, dtype=np.int32))
  inputs = (params, SHAPE, TOKENIZER, 4, jax.random.key(3), prompts, 0.9)
  return dataclasses.asdict(sampling_lib.sample_rows(*inputs, batch_size=B))


def policy_step(program):
  """One REINFORCE step of eight policies, judged by an ensemble."""
  config = section('policy', steps=2, eval_every=1)
  config.max_new_tokens = 4
  config.samples_per_prompt = 2
  sft_params = members.member(backbones(1), 0)
  anchors = policy.make_anchors(M, kl_coef=0.1, kind='ema', mu=0.1)
  value = reward_model.init_value(SHAPE, sft_params['backbone'])

  def stacked(params):
    spread = sharding.born(lambda p: members.broadcast(p, M), 1)
    return train_state(spread(params))

  state = policy.PolicyState(
    policy=stacked(sft_params),
    value=stacked(value),
    anchor=sharding.born(anchors.begin, 1)(members.broadcast(sft_params, M)),
  )
  ensemble = rewards.ensemble(sharding.put(_heads(), 1), SHAPE, 'mean')
  static = {'settings': policy.settings(SHAPE, TX, TOKENIZER, config, 'auto')}
  batch = {'ids': IDS[:, : B // 2, :4], 'mask': MASK[:, : B // 2, :4]}
  batch = {name: np.repeat(rows, 2, axis=1) for name, rows in batch.items()}
  samples = policy.sample(state, sharding.put_rows(batch, M), **static)
  scores = policy.score([ensemble], samples, judges=(0,) * M)
  lowered = policy.update.lower(state, samples, scores, sft_params, **static)
  update = lowered.compile()
  program['text'] = update.as_text()
  state, metrics = update(state, samples, scores, sft_params)
  return {
    'ids': samples.ids,
    'scores': scores,
    'params': state.policy.params,
    'value': state.value.params,
    'ema': state.anchor.ema,
    'metrics': metrics,
  }


def restored(program):
  """A state that was saved on the devices before, on one at first."""
  del program
  state, made = train_state(backbones(M)), train_state(backbones(M))
  with checkpoint.Checkpoints(SAVED) as saved:
    if sharding.is_on():
      state, _ = saved.restore_latest(state)
    saved.save(next(COUNT), state)
  is_there = jax.tree.map(
    lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), state, made
  )
  assert all(jax.tree.leaves(is_there)), is_there
  kept = {'params': state.params, 'opt_state': state.opt_state}
  return {**kept, 'rng': jax.random.key_data(state.rng)}


def imported(program):
  """The leaves of a folder, each of them born where the table says."""
  del program
  folder = checkpoints.FIXTURES / 'gpt_neox'
  params = reading.load(reading.inspect(folder))
  for path, leaf in members.named_leaves(params).items():
    where = sharding.of_leaf(path, leaf.shape)
    assert leaf.dtype == np.float32, path
    assert where is None or leaf.sharding.is_equivalent_to(where, leaf.ndim)
  return params


def _heads():
  head = np.linspace(-1, 1, M * SHAPE.width, dtype=np.float32)
  return {
    'backbone': backbones(M)['backbone'],
    'score': {'kernel': head.reshape(M, -1)},
  }


def merge(program):
  stack = backbones(M)
  merged = jax.jit(merging.uniform).lower(stack).compile()
  program['text'] = merged.as_text()
  return {
    'uniform': merged(stack),
    'slerp': merging.merge(
      jax.tree.map(lambda x: x[1:4], stack), 'slerp', members.member(stack, 0)
    ),
  }


def scoring(program):
  del program
  stack = sharding.put(_heads(), 1)
  out = {}
  for name, scorer in (
    ('single', rewards.single(members.member(stack, 3), SHAPE)),
    ('mean', rewards.ensemble(stack, SHAPE, 'mean')),
    ('uncertainty', rewards.ensemble(stack, SHAPE, 'uncertainty')),
  ):
    scorer = rewards.calibrate(scorer, IDS[1], MASK[1])
    call = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))
    # 31 rows: no mesh divides them.
    out[name] = rewards.score_rows(call, scorer, IDS[0, :31], MASK[0, :31], 8)
  return out


CASES = {
  'reward_step': (reward_step, MESHES),
  'sft_step': (sft_step, FEW),
  'sampling': (sampling, FEW),
  'policy_step': (policy_step, MESHES),
  'merge': (merge, MESHES),
  'scoring': (scoring, FEW),
  'restored': (restored, MESHES),
  'imported': (imported, MESHES),
}


def difference(found, expected) -> tuple[float, str]:
  """The largest |a - b| / max(1, |b|) of all leaves, and where it is."""
  apart = {}
  expected = members.named_leaves(expected)
  for name, a in members.named_leaves(found).items():
    a, b = np.asarray(a, np.float64), np.asarray(expected[name], np.float64)
    assert a.shape == b.shape, name
    apart[name] = np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)))
  # NaN is the largest.
  return max((float(np.nan_to_num(x, nan=np.inf)), n) for n, x in apart.items())


def main(out: str) -> None:
  report = {}
  for name, (case, meshes) in CASES.items():
    expected = sharding.to_host(case({}))
    for sizes in meshes:
      mesh, program = sharding.make_mesh(sizes), {}
      with jax.set_mesh(mesh):
        found = sharding.to_host(case(program))
      worst, where = difference(found, expected)
      text = program.pop('text', '')
      report[f'{name} {sizes}'] = {
        'worst': worst,
        'where': where,
        'collectives': sorted(collectives.crossed(text, mesh)),
        **program,
      }
      with contextlib.suppress(BrokenPipeError):
        print(name, sizes, worst, where, flush=True)
  pathlib.Path(out).write_text(json.dumps(report))


if __name__ == '__main__':
  main(sys.argv[1])

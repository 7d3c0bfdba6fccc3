# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A whole step of REINFORCE against TRL's RLOOTrainer, and what it is made of.

Both sample 4 responses to each of 16 prompts, score them with a reward model,
take the KL to a reference into the reward, leave one out, and do one AdamW step:
the same weights (ours are read from folders that TRL's side wrote), lengths and
settings, float32. No response ends early. What is drawn differs, so the results
of TRL's first step are computed again by ours from the tokens that it drew.

Our step is three programs, each waiting for the one before on the device and
none for the host: sampling, scoring, update.
"""

import dataclasses
import functools
import pathlib
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed import machine, turns
from warm_jax import losses, rewards, sampling
from warm_jax.config import section
from warm_jax.hf import reading
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import policy
from warm_jax.training import state as state_lib

AIM = 3.0
# In a turn, some seconds of TRL's.
STEPS = 5
SHAPE = dict(zip(machine.LLAMA, (512, 64, 5, 8, 4, 172)))  # of stories260k
TINY = dict(zip(machine.LLAMA, (32, 16, 2, 2, 1, 24)))
# Largest differences from TRL on its own tokens: of a log-probability of a
# response, a reward and an advantage in absolute terms, and of the change of the
# weights as a share of that change. Adam's first step is nearly a sign, so a
# gradient near 0 may go the other way by rounding.
TOLERANCES = {'logps': 1e-3, 'rewards': 1e-4, 'advantages': 1e-3, 'update': 0.02}  # fmt: skip


def settings(folder: str, quick: bool = False) -> dict:
  """What both sides are made of."""
  prompts, length, response = (2, 6, 4) if quick else (16, 32, 32)
  shape = TINY if quick else SHAPE
  ids = np.random.default_rng(0).integers(
    0, shape['vocab_size'], (4 * prompts, length)
  )
  return shape | {
    'prompts': prompts,
    'samples': 2 if quick else 4,
    'prompt_ids': ids.tolist(),
    'response': response,
    'max_length': length + response,
    'tied_embeddings': True,
    'temperature': 1.0,
    'kl_coef': 0.05,
    'learning_rate': 1e-4,
    'b1': 0.9,
    'b2': 0.98,
    'eps': 1e-8,
    'clip_norm': 1.0,
    'most_steps': 100_000,
    'folder': folder,
  }


def read_models(folder: str) -> tuple:
  """(config, params of the policy, of the reference, of the reward model)."""
  names = ('policy', 'reference', 'judge')
  lm, reference, judge = (reading.inspect(f'{folder}/{name}') for name in names)
  params = *map(reading.load, (lm, reference)), reading.load(judge, 'score')
  return lm.config, *params


def make_models(s: dict) -> tuple:
  """As `read_models`, from our own random weights."""
  config = machine.llama(s)
  keys = jax.random.split(jax.random.key(0), 4)
  lm = [language_model.init_params(key, config) for key in keys[:3]]
  judge = reward_model.init_params(keys[3], config, lm[2]['backbone'])
  return config, lm[0], lm[1], judge


@dataclasses.dataclass(frozen=True)
class Ours:
  """Our side: the programs of a step and what they start from.

  `update` donates its state; `prompts` are ids of the batches, [N, 1, B, P], the
  samples of one prompt adjacent.
  """

  config: config_lib.ModelConfig
  sample: object
  score: object
  update: object
  scorers: tuple
  reference: dict
  new_state: object
  prompts: np.ndarray

  def batch(self, number: int) -> dict:
    """Prompts of a step, as the loop hands them over."""
    ids = jnp.asarray(self.prompts[number % len(self.prompts)], jnp.int32)
    return {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}

  def step(self, state, prompts) -> tuple:
    """One whole step: (state, metrics)."""
    samples = self.sample(state, prompts)
    scores = self.score(self.scorers, samples, judges=(0,))
    return self.update(state, samples, scores, self.reference)


def make_ours(s: dict, models: tuple) -> Ours:
  """The programs that `policy.train` uses, for one policy."""
  shape, start, reference, judge = models
  config = section('policy', steps=s['most_steps'], eval_every=s['most_steps'])
  config.update(
    batch_size=s['prompts'] * s['samples'],
    samples_per_prompt=s['samples'],
    baseline='leave_one_out',
    temperature=s['temperature'],
    max_new_tokens=s['response'],
    missing_eos_penalty=0.0,
    learning_rate=s['learning_rate'],
  )
  config.optimizer.update(
    b1=s['b1'],
    b2=s['b2'],
    eps=s['eps'],
    weight_decay=0.0,
    clip_norm=s['clip_norm'],
    schedule='constant',
    warmup_steps=1,
  )
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  no_end = types.SimpleNamespace(eos_ids=(), pad_id=0, vocab_size=0)
  static = {'settings': policy.settings(shape, tx, no_end, config, 'auto')}

  def new_state():
    stacked = jax.tree.map(lambda x: x[None], start)
    return policy.PolicyState(
      policy=state_lib.init(
        stacked,
        tx,
        jax.random.split(jax.random.key(0), 1),
        state_lib.make_hparams(1, learning_rate=s['learning_rate']),
      ),
      value=None,
      anchor=policy.make_anchors(1, kl_coef=s['kl_coef']).begin(reference),
    )

  ids = np.repeat(np.array(s['prompt_ids']), s['samples'], axis=0)
  return Ours(
    config=shape,
    sample=functools.partial(policy.sample, **static),
    score=policy.score,
    update=functools.partial(policy.update, **static),
    scorers=(rewards.single(judge, shape),),
    reference=reference,
    new_state=new_state,
    prompts=ids.reshape(-1, 1, s['prompts'] * s['samples'], ids.shape[-1]),
  )


def parts(ours: Ours) -> dict:
  """{name: call()} of each program of a step, on its own."""
  prompts, state = ours.batch(0), ours.new_state()
  samples = ours.sample(state, prompts)
  scores = ours.score(ours.scorers, samples, judges=(0,))
  box = [ours.new_state()]

  def update():
    box[0], metrics = ours.update(box[0], samples, scores, ours.reference)
    return metrics

  return {
    'sampling': lambda: ours.sample(state, prompts),
    'scoring': lambda: ours.score(ours.scorers, samples, judges=(0,)),
    'update': update,
  }


def check(ours: Ours, s: dict, told: dict, updated: dict) -> dict:
  """Computes TRL's first step again, from the tokens that it drew.

  told: what TRL made of its tokens; updated: LM params after its step. Returns
  the differences of TOLERANCES, and raises RuntimeError if one is larger than
  that, or a response ended early.
  """
  ids = jnp.asarray(told['ids'], jnp.int32)
  length = ids.shape[1] - s['response']
  expected = (s['prompts'] * s['samples'], length + s['response'])
  if not told['is_whole'] or ids.shape != expected:
    raise RuntimeError(f'responses of TRL ended early, or {ids.shape}')
  mask = jnp.ones(ids.shape, bool)
  state = ours.new_state()
  start = jax.tree.map(lambda x: x[0], state.policy.params)

  def logps(params):
    found = language_model.token_logps(
      params, ours.config, ids, mask, temperature=s['temperature']
    )
    return found[:, length:]

  policy_logps, reference_logps = logps(start), logps(ours.reference)
  scores = ours.scorers[0](ids, mask)
  kl = losses.kl_k1(policy_logps, reference_logps, mask[:, length:])
  advantages = losses.leave_one_out_advantages(
    losses.kl_shaped_rewards(scores, kl, s['kl_coef']), s['samples']
  )
  samples = sampling.Samples(
    ids=ids,
    mask=mask,
    response_start=jnp.full(len(ids), length, jnp.int32),
    logps=jnp.zeros(ids.shape),
    ended=jnp.zeros(len(ids), bool),
  )
  new, _ = ours.update(
    state,
    jax.tree.map(lambda x: x[None], samples),
    scores[None],
    ours.reference,
  )
  change = jax.tree.map(jnp.subtract, updated, start)
  apart = jax.tree.map(lambda x, y: x[0] - y, new.policy.params, updated)
  differences = {
    'logps': largest(jnp.sum(policy_logps, axis=1), told['logps']),
    'rewards': largest(scores, told['rewards']),
    'advantages': largest(advantages, told['advantages']),
    'update': float(optax.tree.norm(apart) / optax.tree.norm(change)),
  }
  for name, difference in differences.items():
    if not difference < TOLERANCES[name]:
      raise RuntimeError(f'{name} of the two sides differ by {difference:.1e}')
  return differences


def largest(ours, theirs) -> float:
  """Largest difference of two lists of numbers."""
  return float(np.max(np.abs(np.asarray(ours) - np.array(theirs))))


def rows(args):
  """The row of a whole step; without peers ours alone, with its parts."""
  with tempfile.TemporaryDirectory() as folder:
    s = settings(folder, args.quick)
    if args.peers is None:
      yield row(make_ours(s, make_models(s)), s, None, args)
      return
    with turns.Peer(args.peers, 'rloo', s) as peer:
      yield row(make_ours(s, read_models(folder)), s, peer, args)


def row(ours: Ours, s: dict, peer: turns.Peer | None, args) -> dict:
  """Both sides in turn, and our parts in the same turns."""
  steps = 1 if args.quick else STEPS
  said = 'nothing to compare with'
  # Before `check`, which needs the same programs.
  begun = jax.block_until_ready((ours.new_state(), ours.batch(0)))
  first = turns.ours(lambda: ours.step(*begun))()
  if peer is not None:
    told = peer.ask(steps=1, tell=True)
    updated = reading.inspect(pathlib.Path(s['folder']) / 'updated')
    found = check(ours, s, told, reading.load(updated))
    said = (
      "TRL's first step computed again from its tokens: log-probabilities of "
      f'responses within {found["logps"]:.0e}, rewards {found["rewards"]:.0e}, '
      f'advantages {found["advantages"]:.0e}, change of the weights '
      f'{found["update"]:.1%}'
    )
  state, number = ours.new_state(), 0

  def mine():
    nonlocal state, number
    for _ in range(steps):
      state, metrics = ours.step(state, ours.batch(number))
      number += 1
    return metrics

  programs = {'ours': turns.ours(mine)}
  if peer is not None:
    programs['torch'] = peer.turn(steps=steps)
  for name, call in parts(ours).items():
    programs[name] = turns.ours(
      lambda call=call: [call() for _ in range(steps)]
    )
  times = turns.alternate(programs, args.repeats)
  ms = {name: 1e3 * t.median / steps for name, t in times.items()}
  chain = ms['sampling'] + ms['scoring'] + ms['update']
  what = f'REINFORCE step, {s["prompts"]} prompts x {s["samples"]} samples, '
  what += f'{len(s["prompt_ids"][0])} + {s["response"]} tokens, '
  what += f'width {s["width"]} x {s["num_layers"]}'
  entry = turns.blank_row(what, 'ms a step', ms['ours']) | {
    'aim': AIM,
    'compile_s': first - ms['ours'] / 1e3,
    'check': said,
    'profile': f'sampling {ms["sampling"]:.1f}, scoring {ms["scoring"]:.1f}, '
    f'update {ms["update"]:.1f}: {chain:.1f} ms together, the whole step '
    f'{ms["ours"]:.1f}',
  }
  if peer is None:
    return entry
  name = f'TRL {peer.told["trl"]} RLOOTrainer, torch {peer.told["torch"]}'
  return entry | turns.against(name, ms['torch'], times['torch'], times['ours'])

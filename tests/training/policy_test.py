# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE against exact expectations: every response of a tiny vocabulary.

With 5 tokens and 2 steps a prompt has 21 responses, so the expectation of the
gradient estimate is a finite sum over the program that trains, and the exact
gradient is that of a finite sum by automatic differentiation.
"""

import dataclasses
import functools
import itertools
import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warm_jax import members, rewards, sampling
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy
from warm_jax.training import state as state_lib

PAD, BOS, EOS, A, B = range(5)
MODEL = config_lib.ModelConfig(
  vocab_size=5,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=8,
)
PROMPTS = ([BOS, A], [BOS, B, A])
LENGTH = 5  # the longest prompt and two new tokens
PENALTY = 0.7

# Keeps the gradients as its state and moves nothing.
RECORDING = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda grads, state, params=None: (
    jax.tree.map(jnp.zeros_like, grads),
    grads,
  ),
)
SETTINGS = policy.Settings(
  MODEL,
  RECORDING,
  'scan',
  temperature=1.0,
  max_new_tokens=2,
  missing_eos_penalty=PENALTY,
  num_samples=1,
  micro_batches=1,
  can_stop=False,
  eos_id=EOS,
  pad_id=PAD,
)


def lm_params(seed, scale=1.6):
  """Random parameters, scaled so that the distribution is not near uniform."""
  params = language_model.init_params(jax.random.key(seed), MODEL)
  return jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)


def value_params(seed):
  """A value model whose values are not 0, unlike those of its start."""
  params = reward_model.init_value(MODEL, lm_params(seed)['backbone'])
  params['value'] = {
    'kernel': jax.random.normal(jax.random.key(seed + 1), (MODEL.width,)) / 4,
    'bias': jnp.float32(0.3),
  }
  return params


def make_samples(prompts, responses):
  """Rows of a prompt and a response, as the sampler lays them out."""
  ids = np.full((len(prompts), LENGTH), PAD, np.int32)
  mask = np.zeros((len(prompts), LENGTH), bool)
  for row, (prompt, response) in enumerate(zip(prompts, responses)):
    tokens = [*prompt, *response]
    ids[row, : len(tokens)] = tokens
    mask[row, : len(tokens)] = True
  return sampling.Samples(
    ids=jnp.array(ids),
    mask=jnp.array(mask),
    response_start=jnp.array([len(p) for p in prompts], jnp.int32),
    logps=jnp.zeros(ids.shape, jnp.float32),
    ended=jnp.array([EOS in r for r in responses]),
  )


def all_responses():
  """Every outcome of at most two tokens: EOS at once, or two tokens."""
  return [[EOS]] + [
    [first, second]
    for first, second in itertools.product(range(5), range(5))
    if first != EOS
  ]


def member_state(params, value=None, *, kl_coef, tx=RECORDING, dropout=0.0):
  def train_state(params):
    hparams = state_lib.make_hparams(1, learning_rate=0.1, dropout_rate=dropout)
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=tx.init(params),
      rng=jax.random.key(0),
      hparams=members.member(hparams, 0),
      is_active=jnp.array(True),
    )

  return policy.PolicyState(
    policy=train_state(params),
    value=None if value is None else train_state(value),
    anchor=members.member(anchor_lib.make(params, 1, kl_coef=kl_coef), 0),
  )


@functools.partial(jax.jit, static_argnames=('temperature', 'spp'))
def member_step(state, samples, scores, anchor, *, temperature=1.0, spp=1):
  settings = SETTINGS._replace(temperature=temperature, num_samples=spp)
  return policy.member_step(state, samples, scores, anchor, settings=settings)


def sequence_logps(params, samples, temperature):
  logps = language_model.token_logps(
    params, MODEL, samples.ids, samples.mask, temperature=temperature
  )
  response = sampling.response_mask(samples.mask, samples.response_start)
  return jnp.sum(jnp.where(response, logps, 0.0), axis=1)


@jax.jit
def exact(params, anchor, samples, scores, temperature, kl_coef):
  """-(E[reward] - kl_coef KL(policy || anchor)) of ONE prompt, its gradient."""

  def objective(params):
    logps = sequence_logps(params, samples, temperature)
    anchor_logps = sequence_logps(anchor, samples, temperature)
    probability = jnp.exp(logps)
    reward = scores - PENALTY * (1.0 - samples.ended)
    kl = jnp.sum(probability * (logps - anchor_logps))
    value = jnp.sum(probability * reward) - kl_coef * kl
    return -value, (probability, kl)

  (_, (probability, kl)), grads = jax.value_and_grad(objective, has_aux=True)(
    params
  )
  return grads, probability, kl


def weighted(probability, stacked):
  return jax.tree.map(lambda g: jnp.tensordot(probability, g, 1), stacked)


def assert_same_gradient(actual, expected, tolerance):
  """Each leaf within a fraction of the largest entry: sums of both signs."""

  def check(path, a, b):
    error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)
    assert error < tolerance, (jax.tree_util.keystr(path), error)

  jax.tree_util.tree_map_with_path(check, actual, expected)


@functools.partial(jax.jit, static_argnames='temperature')
def gradients_of_each(state, samples, scores, anchor, temperature):
  """Gradients of each response as a batch of its own: [21, ...]."""

  def one(samples, score):
    single = jax.tree.map(lambda x: x[None], samples)
    new, _ = member_step(
      state, single, score[None], anchor, temperature=temperature
    )
    return new.policy.opt_state, new.value.opt_state

  return jax.vmap(one)(samples, scores)


@jax.jit
@jax.grad
def exact_of_value(
  value, params, anchor, samples, scores, probability, temperature, kl_coef
):
  """Gradient of the expected squared error of V before each token."""
  logps = sequence_logps(params, samples, temperature)
  log_ratio = logps - sequence_logps(anchor, samples, temperature)
  returns = scores - PENALTY * (1.0 - samples.ended) - kl_coef * log_ratio
  states = language_model.hidden_states(value, MODEL, samples.ids, samples.mask)
  values = reward_model.values(value, states)
  response = sampling.response_mask(samples.mask, samples.response_start)
  error = (returns[:, None] - values[:, :-1]) ** 2
  return jnp.sum(
    probability * jnp.sum(jnp.where(response[:, 1:], error, 0.0), 1)
  )


@pytest.mark.parametrize(
  'baseline, temperature', [('value', 0.7), ('constant', 0.7)]
)
def test_expected_gradient_is_exact(baseline, temperature):
  params, anchor, kl_coef = lm_params(0), lm_params(1), 0.4
  value = value_params(2)
  if baseline != 'value':
    value['value'] = {
      'kernel': jnp.zeros(MODEL.width),
      'bias': jnp.float32(1.7),
    }
  state = member_state(params, value, kl_coef=kl_coef)
  responses = all_responses()
  for prompt in PROMPTS:
    samples = make_samples([prompt] * len(responses), responses)
    scores = jax.random.normal(jax.random.key(3), (len(responses),))
    expected, probability, kl = exact(
      params, anchor, samples, scores, temperature, kl_coef
    )
    # The list is complete, the case is not a degenerate one.
    assert abs(float(probability.sum()) - 1.0) < 1e-6
    assert float(kl) > 0.05 and float(probability.max()) < 0.7
    policy_grads, value_grads = gradients_of_each(
      state, samples, scores, anchor, temperature
    )
    assert_same_gradient(weighted(probability, policy_grads), expected, 2e-5)
    expected = exact_of_value(
      value, params, anchor, samples, scores, probability, temperature, kl_coef
    )
    assert_same_gradient(weighted(probability, value_grads), expected, 2e-5)


def test_leave_one_out_is_unbiased():
  """Over all 21 x 21 pairs of samples of a prompt."""
  params, anchor, kl_coef = lm_params(0), lm_params(1), 0.4
  state = member_state(params, kl_coef=kl_coef)
  responses = all_responses()
  prompt, count = PROMPTS[1], len(responses)
  samples = make_samples([prompt] * count, responses)
  scores = jax.random.normal(jax.random.key(3), (count,))
  expected, probability, _ = exact(
    params, anchor, samples, scores, 1.0, kl_coef
  )

  @jax.jit
  def expectation(pairs, weight):
    def one(pair):
      two = jax.tree.map(lambda x: x[pair], samples)
      new, _ = member_step(state, two, scores[pair], anchor, spp=2)
      return new.policy.opt_state

    return weighted(weight, jax.vmap(one)(pairs))

  pairs = jnp.array(list(itertools.product(range(count), repeat=2)))
  weight = probability[pairs[:, 0]] * probability[pairs[:, 1]]
  assert_same_gradient(expectation(pairs, weight), expected, 1e-4)


# One row each: EOS first, EOS second, none; prompts of two lengths.
HAND_PROMPTS = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
HAND_RESPONSES = [[EOS], [A, EOS], [B, PAD]]


STATES = jax.jit(language_model.hidden_states, static_argnums=1)


def last_state(params, prefix):
  """[D] of a text without padding and without a cache."""
  params, ids = {'backbone': params['backbone']}, np.array([prefix])
  return np.asarray(STATES(params, MODEL, ids, np.ones(ids.shape, bool))[0, -1])


def hand_logps(params, temperature, prompts):
  """[3, 2] log-probabilities of the hand-made responses, NaN where none."""
  out = np.full((3, 2), np.nan)
  for row, (prompt, response) in enumerate(zip(prompts, HAND_RESPONSES)):
    for t in range(len(response)):
      hidden = last_state(params, [*prompt, *response[:t]])
      logits = hidden @ np.asarray(params['backbone']['embed']['embedding']).T
      z = np.float64(logits) / temperature
      out[row, t] = z[response[t]] - np.log(np.exp(z).sum())
  return out


def hand_values(params, prompts):
  """[3, 2] values of the states before the response tokens."""
  out = np.full((3, 2), np.nan)
  for row, (prompt, response) in enumerate(zip(prompts, HAND_RESPONSES)):
    for t in range(len(response)):
      hidden = last_state(params, [*prompt, *response[:t]])
      head = jax.tree.map(np.asarray, params['value'])
      out[row, t] = hidden @ head['kernel'] + head['bias']
  return out


@pytest.mark.parametrize('baseline', ['value', 'leave_one_out'])
def test_metrics_by_hand(baseline, temperature=0.9):
  """Mask, place of the penalty, KL, value alignment (R5, R6, R9)."""
  params, anchor, value = lm_params(0), lm_params(1), value_params(2)
  kl_coef, scores = 0.4, np.array([1.0, -2.0, 0.5])
  use_value = baseline == 'value'
  # With leave-one-out they are samples of one prompt.
  prompts = HAND_PROMPTS if use_value else [PROMPTS[0]] * 3
  logps, anchor_logps = (
    hand_logps(p, temperature, prompts) for p in (params, anchor)
  )
  kl = np.nansum(logps - anchor_logps, axis=1)
  shaped = scores - PENALTY * np.array([0, 0, 1]) - kl_coef * kl
  samples = make_samples(prompts, HAND_RESPONSES)
  state = member_state(params, value if use_value else None, kl_coef=kl_coef)
  _, metrics = member_step(
    state,
    samples,
    jnp.array(scores, jnp.float32),
    anchor,
    temperature=temperature,
    spp=1 if use_value else 3,
  )

  if use_value:
    values = hand_values(value, prompts)
    loss = np.nansum((shaped[:, None] - values) ** 2, axis=1).mean()
    assert float(metrics['value/loss']) == pytest.approx(loss, rel=1e-5)
    advantages = shaped[:, None] - values
  else:
    # Three samples of one prompt: each against the mean of the other two.
    others = (shaped.sum() - shaped) / 2
    advantages = np.repeat((shaped - others)[:, None], 2, axis=1)
    assert 'value/loss' not in metrics
  loss = -np.nansum(logps * advantages, axis=1).mean()
  expected = {
    'policy/loss': loss,
    'objective/kl': kl.mean(),
    'objective/kl_per_token': kl.sum() / 5,
    'objective/scores': scores.mean(),
    'objective/rlhf_reward': shaped.mean(),
    'completions/mean_length': 5 / 3,
    'completions/clipped_ratio': 1 / 3,
  }
  assert metrics['objective/rlhf_reward'].dtype == jnp.float32  # R9
  for name, number in expected.items():
    assert float(metrics[name]) == pytest.approx(number, rel=2e-5), name


def sampled(params, temperature, rows=32):
  half = rows // 2
  prompts = {
    'ids': np.array([[BOS, A, PAD]] * half + [[BOS, B, A]] * half),
    'mask': np.array([[True, True, False]] * half + [[True] * 3] * half),
  }
  state = member_state(params, kl_coef=0.0)
  found = policy.sample(
    jax.tree.map(lambda x: x[None], state),
    jax.tree.map(lambda x: x[None], prompts),
    settings=SETTINGS._replace(temperature=temperature),
  )
  return members.member(found, 0)


@pytest.mark.parametrize('temperature', [1.0, 0.9])
def test_sampler_and_scorer_agree(temperature):
  """The ratio is 1 on fresh samples, and would tell if it were not (R1)."""
  params = lm_params(0)
  samples = sampled(params, temperature)
  state = member_state(params, kl_coef=0.1)
  scores = jnp.zeros(len(samples.ids))
  step = functools.partial(member_step, state, samples, scores, params, spp=2)
  _, metrics = step(temperature=temperature)
  assert abs(float(metrics['policy/sampling_ratio']) - 1.0) < 1e-5
  assert abs(float(metrics['objective/kl'])) < 1e-5  # the anchor is itself
  _, metrics = step(temperature=1.3)
  assert abs(float(metrics['policy/sampling_ratio']) - 1.0) > 1e-3


# ---------------------------------------------------------------------------
# The whole loop
# ---------------------------------------------------------------------------

LOOP_MODEL = dataclasses.replace(MODEL, num_layers=1, layer_types=None)
TOKENIZER = types.SimpleNamespace(eos_id=EOS, pad_id=PAD)


def loop_params():
  return language_model.init_params(jax.random.key(1), LOOP_MODEL)


def count_token(ids, mask):
  return ((ids == A) & mask).sum(axis=1).astype(np.float32)


RULE = rewards.HostScorer(count_token)


def make_prompts(num=16):
  ids = np.full((num, 3), PAD, np.int32)
  ids[:, 0], ids[:, 1] = BOS, B
  ids[::2, 2] = B
  mask = ids != PAD
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


def run(folder, scorers=(RULE,), kl_coefs=None, params=None, **over):
  config = section('policy', steps=4, eval_every=2)
  config.update(
    {
      'batch_size': 8,
      'max_new_tokens': 4,
      'checkpoint_every': 2,
      'learning_rate': 3e-3,
      'kl_coef': 0.1,
      'samples_per_prompt': 2,
    }
    | over
  )
  config.optimizer.warmup_steps = 0
  runtime = section('runtime')
  runtime.update({'member_map': 'scan', 'progress': False})
  start = loop_params() if params is None else params
  return policy.train(
    start,
    scorers,
    LOOP_MODEL,
    make_prompts(),
    TOKENIZER,
    config,
    folder=folder,
    seed=3,
    runtime=runtime,
    anchors=anchor_lib.make(
      start, len(scorers), kl_coef=kl_coefs or config.kl_coef
    ),
  )


def kept(folder, step):
  return checkpoint.load_params(folder / f'params_{step}')


def test_kept_steps_start_and_anchor(tmp_path):
  """Step 0 is the SFT model; the SFT tree itself is not touched (M5)."""
  params = loop_params()
  before = jax.tree.map(np.array, params)
  steps, result = run(tmp_path, params=params)
  assert steps == [0, 2, 4]
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, params), before)
  chex.assert_trees_all_equal(members.member(kept(tmp_path, 0), 0), before)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), kept(tmp_path, 4), kept(tmp_path, 2)
  )
  assert max(jax.tree.leaves(moved)) > 1e-4
  assert set(result) == {
    'objective/scores',
    'objective/kl',
    'completions/mean_length',
    'stopped_at',
  }


def test_nothing_recompiles(tmp_path):
  """A second run of equal settings compiles no program of a step."""

  def sizes():
    programs = (policy.sample, policy.score, policy.update)
    return [program._cache_size() for program in programs]

  run(tmp_path / 'a')
  before = sizes()
  run(tmp_path / 'b')
  assert sizes() == before


def test_resume_equals_uninterrupted(tmp_path, kill_at):
  steps, result = run(tmp_path / 'policy')
  lines = (tmp_path / 'policy' / 'metrics.jsonl').read_text().splitlines()
  # A prompt was read once for two samples, which are scored row by row.
  ratios = [json.loads(x)['policy/sampling_ratio/member_0'] for x in lines]
  np.testing.assert_allclose(ratios, 1.0, atol=1e-4)
  other = tmp_path / 'other' / 'policy'
  with kill_at(3):
    run(other)
  assert [p.name for p in (other / 'checkpoints').iterdir()] == ['2']
  assert run(other) == (steps, result)
  for name in ('metrics.jsonl', 'metrics.csv'):
    expected = (tmp_path / 'policy' / name).read_text()
    assert (other / name).read_text() == expected
  for step in steps:
    chex.assert_trees_all_equal(
      kept(other, step), kept(tmp_path / 'policy', step)
    )


def test_reward_rises_and_a_strong_kl_holds(tmp_path):
  """Two policies on one rule in one stack; only the KL coefficient differs."""
  params = loop_params()
  steps = 40
  run(
    tmp_path,
    (RULE, RULE),
    kl_coefs=[0.0, 20.0],
    params=params,
    steps=steps,
    eval_every=steps,
    checkpoint_every=0,
    batch_size=16,
    samples_per_prompt=1,
    learning_rate=2e-3,
    value_learning_rate=1e-2,
    missing_eos_penalty=0.0,
  )
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  last = rows[-5:]

  def mean(rows, name, member):
    return np.mean([row[f'{name}/member_{member}'] for row in rows])

  start = mean(rows[:1], 'objective/scores', 0)
  assert start < 2.5
  assert mean(last, 'objective/scores', 0) > 3.5  # of at most 4
  assert mean(last, 'objective/kl', 0) > 1.0
  assert abs(mean(last, 'objective/kl', 1)) < 0.15
  assert mean(last, 'objective/scores', 1) < start + 0.7
  ratios = [row['policy/sampling_ratio/member_0'] for row in rows]
  np.testing.assert_allclose(ratios, 1.0, atol=1e-4)

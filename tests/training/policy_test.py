# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE against exact expectations: every response of a tiny vocabulary."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import members, sampling
from warm_jax.models import language_model, reward_model, transformer
from warm_jax.training import policy

PAD, BOS, EOS, A, B = range(5)
MODEL = tiny.POLICY
PROMPTS = ([BOS, A], [BOS, B, A])
LENGTH = 5  # the longest prompt and two new tokens
PENALTY = 0.7

SETTINGS = policy.Settings(
  *(MODEL, tiny.RECORDING, 'scan', (EOS,), PAD, 0),
  can_stop=False,
  temperature=1.0,
  max_new_tokens=2,
  missing_eos_penalty=PENALTY,
  samples_per_prompt=1,
)


def lm_params(seed, scale=1.6):
  """Random parameters, scaled so that the distribution is not near uniform."""
  params = tiny.language_params(MODEL, seed)
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
  rows = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
  lengths = np.array([[len(row)] for row in rows])
  return sampling.Samples(
    ids=jnp.array([row + [PAD] * (LENGTH - len(row)) for row in rows]),
    mask=jnp.array(np.arange(LENGTH) < lengths),
    response_start=jnp.array([len(p) for p in prompts], jnp.int32),
    logps=jnp.zeros((len(rows), LENGTH), jnp.float32),
    ended=jnp.array([EOS in r for r in responses]),
  )


def every_response(prompt):
  """Samples [21] with all outcomes of two tokens, and a score for each."""
  first = [token for token in range(5) if token != EOS]
  pairs = [list(pair) for pair in itertools.product(first, range(5))]
  responses = [[EOS], *pairs]
  scores = jax.random.normal(jax.random.key(3), (len(responses),))
  return make_samples([prompt] * len(responses), responses), scores


def member_state(params, value=None, *, kl_coef):
  anchors = policy.make_anchors(1, kl_coef=kl_coef)
  stack = members.broadcast(params, 1)
  return policy.PolicyState(
    policy=tiny.state(params, tiny.RECORDING, 0.1),
    value=None if value is None else tiny.state(value, tiny.RECORDING, 0.1),
    anchor=members.member(anchors.begin(stack), 0),
  )


@functools.partial(jax.jit, static_argnames=('temperature', 'spp'))
def member_step(state, samples, scores, anchor, *, temperature=1.0, spp=1):
  settings = SETTINGS._replace(temperature=temperature, samples_per_prompt=spp)
  return policy.member_step(state, samples, scores, anchor, settings=settings)


@functools.partial(jax.jit, static_argnames='temperature')
def sequence_logps(params, samples, temperature):
  """[B] log-probabilities of whole responses."""
  logps = language_model.token_logps(
    params, MODEL, samples.ids, samples.mask, temperature=temperature
  )
  response = sampling.response_mask(samples.mask, samples.response_start)
  return jnp.sum(jnp.where(response, logps, 0.0), axis=1)


@functools.partial(jax.jit, static_argnames='temperature')
def exact(params, anchor, samples, scores, temperature, kl_coef):
  """-(E[reward] - kl_coef KL(policy || anchor)) of ONE prompt, its gradient."""

  def objective(params):
    logps = sequence_logps(params, samples, temperature)
    probability = jnp.exp(logps)
    reward = scores - PENALTY * (1.0 - samples.ended)
    log_ratio = logps - sequence_logps(anchor, samples, temperature)
    kl = jnp.sum(probability * log_ratio)
    return kl_coef * kl - jnp.sum(probability * reward), (probability, kl)

  grads, (probability, kl) = jax.grad(objective, has_aux=True)(params)
  return grads, probability, kl


def weighted(probability, stacked):
  return jax.tree.map(lambda g: jnp.tensordot(probability, g, 1), stacked)


def gradient_error(actual, expected):
  """Of all leaves, in fractions of the largest entry: sums of both signs."""

  def error(a, b):
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)

  return max(jax.tree.leaves(jax.tree.map(error, actual, expected)))


@functools.partial(jax.jit, static_argnames='temperature')
def gradients(state, samples, scores, anchor, temperature):
  """Each response as a batch of its own: [21, ...], and the average then."""

  def one(samples, score):
    single = jax.tree.map(lambda x: x[None], samples)
    new, _ = member_step(
      state, single, score[None], anchor, temperature=temperature
    )
    return new.policy.opt_state, new.value.opt_state

  return jax.vmap(one)(samples, scores)


@pytest.mark.parametrize(
  'baseline, temperature', [('value', 0.7), ('flat', 1.0)]
)
def test_expected_gradient_is_exact(baseline, temperature):
  params, anchor, kl_coef = lm_params(0), lm_params(1), 0.4
  value = value_params(2)
  if baseline == 'flat':
    kernel = jnp.zeros(MODEL.width)
    value['value'] = {'kernel': kernel, 'bias': jnp.float32(1.7)}
  state = member_state(params, value, kl_coef=kl_coef)
  for prompt in PROMPTS:
    samples, scores = every_response(prompt)
    expected, probability, kl = exact(
      params, anchor, samples, scores, temperature, kl_coef
    )
    # The list is complete, the case is not a degenerate one.
    assert abs(float(probability.sum()) - 1.0) < 1e-6
    assert float(kl) > 0.05 and float(probability.max()) < 0.7
    policy_grads, value_grads = gradients(
      state, samples, scores, anchor, temperature
    )
    assert gradient_error(weighted(probability, policy_grads), expected) < 2e-5

    @jax.jit
    @jax.grad
    def expected_value_grads(value, samples, scores, p):
      logps = sequence_logps(params, samples, temperature)
      log_ratio = logps - sequence_logps(anchor, samples, temperature)
      returns = scores - PENALTY * (1.0 - samples.ended) - kl_coef * log_ratio
      values = reward_model.values(
        value,
        transformer.hidden_states(value, MODEL, samples.ids, samples.mask),
      )
      response = sampling.response_mask(samples.mask, samples.response_start)
      error = (returns[:, None] - values[:, :-1]) ** 2  # V before each token
      return jnp.sum(p * jnp.sum(jnp.where(response[:, 1:], error, 0.0), 1))

    expected = expected_value_grads(value, samples, scores, probability)
    assert gradient_error(weighted(probability, value_grads), expected) < 2e-5


def test_leave_one_out_is_unbiased():
  """Over all 21 x 21 pairs of samples of a prompt."""
  params, anchor, kl_coef = lm_params(0), lm_params(1), 0.4
  state = member_state(params, kl_coef=kl_coef)
  samples, scores = every_response(PROMPTS[1])
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

  pairs = jnp.array(list(itertools.product(range(len(scores)), repeat=2)))
  weight = probability[pairs[:, 0]] * probability[pairs[:, 1]]
  assert gradient_error(expectation(pairs, weight), expected) < 1e-4


@pytest.mark.parametrize('baseline', ['value', 'leave_one_out'])
def test_metrics_by_hand(baseline, temperature=0.9):
  """Mask, place of the penalty, KL, value alignment (R5, R6, R9) in float64."""
  params, anchor, value = lm_params(0), lm_params(1), value_params(2)
  kl_coef, scores = 0.4, np.array([1.0, -2.0, 0.5])
  use_value = baseline == 'value'
  # EOS first, EOS second, none; with leave-one-out samples of one prompt.
  prompts = [PROMPTS[i if use_value else 0] for i in (0, 1, 0)]
  samples = make_samples(prompts, [[EOS], [A, EOS], [B, PAD]])
  ids, length = np.asarray(samples.ids), np.array([1, 2, 2])
  place = np.arange(LENGTH) - np.asarray(samples.response_start)[:, None]
  response = ((place >= 0) & (place < length[:, None]))[:, 1:]

  def hidden_of(params):
    return transformer.hidden_states(params, MODEL, ids, samples.mask)

  def logps_of(params):
    logits = language_model.logits(params, MODEL, hidden_of(params))
    z = np.asarray(logits, np.float64) / temperature
    z = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    logps = np.take_along_axis(z[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
    return np.where(response, logps, 0.0)

  logps = logps_of(params)
  kl = (logps - logps_of(anchor)).sum(axis=1)
  shaped = scores - PENALTY * np.array([0, 0, 1]) - kl_coef * kl
  # Each against the mean of the other two.
  advantages = np.tile(shaped[:, None] * 1.5 - shaped.sum() / 2, LENGTH - 1)
  expected = {}
  if use_value:
    values = reward_model.values(value, hidden_of(value))[:, :-1]
    advantages = np.where(response, shaped[:, None] - values, 0.0)
    expected['value/loss'] = (advantages**2).sum(axis=1).mean()
  expected |= {
    'policy/loss': -(logps * advantages).sum(axis=1).mean(),
    'objective/kl': kl.mean(),
    'objective/kl_per_token': kl.sum() / 5,
    'objective/scores': scores.mean(),
    'objective/rlhf_reward': shaped.mean(),
    'completions/mean_length': 5 / 3,
    'completions/clipped_ratio': 1 / 3,
  }
  _, metrics = member_step(
    member_state(params, value if use_value else None, kl_coef=kl_coef),
    samples,
    jnp.array(scores, jnp.float32),
    anchor,
    temperature=temperature,
    spp=1 if use_value else 3,
  )
  assert ('value/loss' in metrics) == use_value
  assert metrics['objective/rlhf_reward'].dtype == jnp.float32  # R9
  for name, number in expected.items():
    # A loss of both signs: its terms are a hundred times as large.
    near = pytest.approx(number, rel=2e-5, abs=3e-6)
    assert float(metrics[name]) == near, name


@pytest.mark.parametrize('temperature', [1.0, 0.9])
def test_sampler_and_scorer_agree(temperature):
  """The ratio is 1 on fresh samples, and would tell if it were not (R1)."""
  params = lm_params(0)
  prompts = {
    'ids': np.array([[BOS, A, PAD]] * 16 + [[BOS, B, A]] * 16),
    'mask': np.array([[True, True, False]] * 16 + [[True] * 3] * 16),
  }
  state = member_state(params, kl_coef=0.1)
  stacked = jax.tree.map(lambda x: x[None], (state, prompts))
  samples = members.member(
    policy.sample(
      *stacked, settings=SETTINGS._replace(temperature=temperature)
    ),
    0,
  )
  scores = jnp.zeros(len(samples.ids))
  step = functools.partial(member_step, state, samples, scores, params, spp=2)
  _, metrics = step(temperature=temperature)
  assert abs(float(metrics['policy/sampling_ratio']) - 1.0) < 1e-5
  assert abs(float(metrics['objective/kl'])) < 1e-5  # the anchor is itself
  _, metrics = step(temperature=1.3)
  assert abs(float(metrics['policy/sampling_ratio']) - 1.0) > 1e-3

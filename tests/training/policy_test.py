# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE against exact expectations: every response of a tiny vocabulary.

With 5 tokens and 2 steps a prompt has 21 responses, so the expectation of the
gradient estimate is a finite sum over the program that trains, and the exact
gradient is that of a finite sum by automatic differentiation. In the loop all
policies of a stack have settings of their own, and what it did is worked out
again from what it kept at each step.
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

from warm_jax import errors, members, rewards, sampling
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
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=8,
)
PROMPTS = ([BOS, A], [BOS, B, A])
LENGTH = 5  # the longest prompt and two new tokens
PENALTY = 0.7
TEMPERATURE = 0.9  # of the loop
TOKENIZER = types.SimpleNamespace(eos_id=EOS, pad_id=PAD)

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
def gradients(state, samples, scores, anchor, temperature):
  """Each response as a batch of its own: [21, ...], and the average then."""

  def one(samples, score):
    single = jax.tree.map(lambda x: x[None], samples)
    new, _ = member_step(
      state, single, score[None], anchor, temperature=temperature
    )
    return new.policy.opt_state, new.value.opt_state, new.anchor.ema

  return jax.vmap(one)(samples, scores)


@pytest.mark.parametrize(
  'baseline, temperature', [('value', 0.7), ('constant', 1.0)]
)
def test_expected_gradient_is_exact(baseline, temperature):
  params, anchor, kl_coef = lm_params(0), lm_params(1), 0.4
  value = value_params(2)
  if baseline != 'value':
    kernel = jnp.zeros(MODEL.width)
    value['value'] = {'kernel': kernel, 'bias': jnp.float32(1.7)}
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
    policy_grads, value_grads, _ = gradients(
      state, samples, scores, anchor, temperature
    )
    assert_same_gradient(weighted(probability, policy_grads), expected, 2e-5)

    @jax.jit
    @jax.grad
    def expected_value_grads(value, samples, scores, p):
      logps = sequence_logps(params, samples, temperature)
      log_ratio = logps - sequence_logps(anchor, samples, temperature)
      returns = scores - PENALTY * (1.0 - samples.ended) - kl_coef * log_ratio
      values = reward_model.values(
        value,
        language_model.hidden_states(value, MODEL, samples.ids, samples.mask),
      )
      response = sampling.response_mask(samples.mask, samples.response_start)
      error = (returns[:, None] - values[:, :-1]) ** 2  # V before each token
      return jnp.sum(p * jnp.sum(jnp.where(response[:, 1:], error, 0.0), 1))

    expected = expected_value_grads(value, samples, scores, probability)
    assert_same_gradient(weighted(probability, value_grads), expected, 2e-5)


@pytest.mark.parametrize('kind', ['ema', 'fixed'])
def test_the_kl_is_to_the_average_or_to_fixed_weights(kind):
  params, ema, fixed = lm_params(0), lm_params(1), lm_params(4)
  anchor = anchor_lib.make(ema, 1, kl_coef=0.4, kind=kind, mu=0.25)
  state = member_state(params, value_params(2), kl_coef=0.4)
  state = dataclasses.replace(state, anchor=members.member(anchor, 0))
  responses = all_responses()
  samples = make_samples([PROMPTS[1]] * len(responses), responses)
  scores = jax.random.normal(jax.random.key(3), (len(responses),))
  right, wrong = (ema, fixed) if kind == 'ema' else (fixed, ema)
  case = samples, scores, TEMPERATURE, 0.4
  expected, probability, kl = exact(params, right, *case)
  assert float(kl) > 0.05
  found, _, moved = gradients(state, samples, scores, fixed, TEMPERATURE)
  found = weighted(probability, found)
  assert_same_gradient(found, expected, 3e-5)
  with pytest.raises(AssertionError):
    assert_same_gradient(found, exact(params, wrong, *case)[0], 0.05)
  chex.assert_trees_all_close(
    jax.tree.map(lambda x: x[0], moved),
    jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, ema, params),
    atol=1e-7,
  )


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


@jax.jit
def last_hidden(params, ids, length):
  """[D] after `length` tokens, uncached."""
  mask = jnp.arange(LENGTH)[None] < length
  hidden = language_model.hidden_states(params, MODEL, ids[None], mask)
  return hidden[:, length - 1]


def by_hand(of_hidden, params, prompts):
  """[3, 2] of_hidden(state [1, D] before a token, token); NaN where none."""
  out = np.full((3, 2), np.nan)
  for row, (prompt, response) in enumerate(zip(prompts, HAND_RESPONSES)):
    for t, token in enumerate(response):
      prefix = [*prompt, *response[:t]]
      ids = np.array(prefix + [PAD] * (LENGTH - len(prefix)))
      out[row, t] = of_hidden(last_hidden(params, ids, len(prefix)), token)
  return out


def hand_logps(params, temperature, prompts):
  def logp(hidden, token):
    logits = language_model.logits(params, MODEL, hidden)[0]
    z = np.asarray(logits, np.float64) / temperature
    return z[token] - np.log(np.exp(z).sum())

  return by_hand(logp, params, prompts)


def hand_values(params, prompts):
  def value(hidden, _):
    return reward_model.values(params, hidden[None])[0, 0]

  return by_hand(value, params, prompts)


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
    # A loss of both signs: its terms are a hundred times as large.
    near = pytest.approx(number, rel=2e-5, abs=3e-6)
    assert float(metrics[name]) == near, name


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

PROMPT = 3  # tokens of the longer prompts


def count_token(ids, mask):
  return ((ids == A) & mask).sum(axis=1).astype(np.float32)


RULE = rewards.HostScorer(count_token)


def make_prompts(lengths=(3,), tokens=(A, B), num=16):
  ids = np.full((num, PROMPT), BOS, np.int32)
  ids[:, 1] = np.resize(tokens, num)
  ids[:, 2] = np.resize(np.repeat(tokens, 2), num)
  mask = np.arange(PROMPT) < np.resize(lengths, num)[:, None]
  ids = np.where(mask, ids, PAD)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


# Of two lengths, and without the token that is counted.
PLAIN = make_prompts((3, 2), (B,))


@functools.cache
def start_params():
  return language_model.init_params(jax.random.key(1), MODEL)


def run(
  folder,
  kl_coef=(0.1,),
  kind='fixed',
  mu=0.0,
  scorers=(RULE,),
  prompts=None,
  member_map='scan',
  given=None,
  **over,
):
  """Trains as many policies as kl_coef has entries; `given` goes to train."""
  config = section('policy', steps=3, eval_every=1)
  config.update(
    {
      'batch_size': 8,
      'max_new_tokens': 4,
      'temperature': TEMPERATURE,
      'checkpoint_every': 0,
      'learning_rate': 3e-2,
      'baseline': 'leave_one_out',
      'samples_per_prompt': 2,
    }
    | over
  )
  config.optimizer.warmup_steps = 0
  runtime = section('runtime')
  runtime.update({'member_map': member_map, 'progress': False})
  start = start_params()
  anchors = anchor_lib.make(
    start, len(kl_coef), kl_coef=kl_coef, kind=kind, mu=mu
  )
  before = jax.tree.map(np.array, (start, anchors))
  done = policy.train(
    start,
    scorers,
    MODEL,
    prompts or make_prompts(),
    TOKENIZER,
    config,
    folder=folder,
    seed=4,
    runtime=runtime,
    anchors=anchors,
    **(given or {}),
  )
  # What is donated must not be the caller's (M5).
  after = jax.tree.map(np.asarray, (start, anchors))
  chex.assert_trees_all_equal(after, before)
  return done


def params_at(folder, step, name='params'):
  return checkpoint.load_params(folder / f'{name}_{step}')


def metrics_of(folder, name):
  """[steps, P]."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  columns = [c for c in rows[0] if c.rsplit('/member_', 1)[0] == name]
  return np.array([[row[c] for c in columns] for row in rows])


def recording(seen, sign=1.0):
  """The rule, which keeps the rows that it is shown."""

  def rule(ids, mask):
    seen.append((ids.copy(), mask.copy()))
    return sign * count_token(ids, mask)

  return rewards.HostScorer(rule)


def assert_equal_files(one, other, steps, names=('params', 'ema')):
  for step, name in itertools.product(steps, names):
    chex.assert_trees_all_equal(
      params_at(one, step, name), params_at(other, step, name)
    )


@jax.jit
def logps_of(params, ids, mask, start):
  """[B] log-probabilities of whole responses."""
  samples = sampling.Samples(ids, mask, start, None, None)
  return sequence_logps(params, samples, TEMPERATURE)


# Six policies in one stack: two of the same settings, one that differs by its
# order, one whose average is itself, one with a fixed anchor and an average
# beside it, and one that is held by nothing.
KINDS = ('ema', 'ema', 'ema', 'ema', 'fixed', 'fixed')
MUS = np.float32([0.2, 0.2, 0.2, 1.0, 0.3, 0.0])
KL_COEFS = (0.3, 0.3, 0.3, 0.3, 2.0, 0.0)
ORDERS = (0, 0, 4, 0, 0, 7)


@pytest.fixture(scope='module')
def six(tmp_path_factory):
  """The run, the fixed anchor (not the start) and all rows it was scored on."""
  folder, seen, fixed = tmp_path_factory.mktemp('six'), [], lm_params(5)
  steps, result = run(
    folder,
    KL_COEFS,
    KINDS,
    MUS,
    scorers=(recording(seen),),
    given={'orders': ORDERS, 'anchor_params': fixed},
  )
  assert steps == [0, 1, 2, 3] and result['stopped_at'] == [3] * 6
  assert len(seen) == 3
  seen = [[x.reshape(6, 8, -1) for x in pair] for pair in seen]
  return types.SimpleNamespace(folder=folder, seen=seen, fixed=fixed)


def test_average_follows_the_new_weights(six):
  """ema_{t+1} = (1 - mu) ema_t + mu theta_{t+1}, each member its own."""
  start = jax.tree.map(np.asarray, start_params())
  for name in ('params', 'ema'):
    for one in members.unstack(params_at(six.folder, 0, name)):
      chex.assert_trees_all_equal(one, start)
  ema = params_at(six.folder, 0, 'ema')
  for step in (1, 2, 3):
    theta, kept = (params_at(six.folder, step, n) for n in ('params', 'ema'))

    def move(e, t):
      mu = MUS.astype(np.float64).reshape(-1, *[1] * (t.ndim - 1))
      return (1 - mu) * e.astype(np.float64) + mu * t.astype(np.float64)

    ema = jax.tree.map(move, ema, theta)
    chex.assert_trees_all_close(
      kept, jax.tree.map(np.float32, ema), atol=2e-7, rtol=2e-7
    )
    # The policies do move, and a shifted average would be seen.
    late = jax.tree.map(lambda a, b: np.abs(a - b).max(), kept, theta)
    assert max(jax.tree.leaves(late)) > 1e-2
    chex.assert_trees_all_equal(
      members.member(kept, 3), members.member(theta, 3)
    )
    chex.assert_trees_all_equal(members.member(kept, 5), start)


def test_kl_of_each_step_is_to_its_anchor(six):
  """From the rows that were scored and the weights that were kept."""
  reported = metrics_of(six.folder, 'objective/kl')
  scores = metrics_of(six.folder, 'objective/scores')
  shaped = metrics_of(six.folder, 'objective/rlhf_reward')
  start = jnp.full(8, PROMPT)
  for step, (ids, mask) in enumerate(six.seen):
    theta, ema = (params_at(six.folder, step, n) for n in ('params', 'ema'))
    ended = ((ids == EOS) & mask)[..., PROMPT:].any(axis=-1)
    for p, kind in enumerate(KINDS):
      place = ids[p], mask[p], start
      anchor = members.member(ema, p) if kind == 'ema' else six.fixed
      logps = logps_of(members.member(theta, p), *place)
      kl = float(np.mean(logps - logps_of(anchor, *place)))
      assert reported[step, p] == pytest.approx(kl, abs=2e-5), (step, p)
      reward = scores[step, p] - (1 - ended[p]).mean() - KL_COEFS[p] * kl
      assert shaped[step, p] == pytest.approx(reward, abs=1e-4), (step, p)
  assert np.abs(reported[0, :4]).max() < 1e-5  # all start where they are
  assert np.abs(reported[:, 3]).max() < 1e-5  # mu = 1: the KL to itself
  assert np.abs(reported[1:, :3]).min() > 1e-4
  assert abs(reported[0, 4]) > 0.05  # the fixed anchor is not the start


def test_orders(six):
  """Equal numbers meet the same prompts and draw alike; others do not."""
  for step, (ids, _) in enumerate(six.seen):
    prompts = ids[..., :PROMPT]
    for same in (1, 3, 4):
      np.testing.assert_array_equal(prompts[0], prompts[same])
    np.testing.assert_array_equal(prompts[:, ::2], prompts[:, 1::2])
    if step == 0:
      for same in (1, 3, 4):
        np.testing.assert_array_equal(ids[0], ids[same])
  assert any((ids[0] != ids[2])[..., :PROMPT].any() for ids, _ in six.seen)
  assert any((ids[2] != ids[5])[..., :PROMPT].any() for ids, _ in six.seen)
  last, ema = (params_at(six.folder, 3, name) for name in ('params', 'ema'))
  for tree in (last, ema):
    # 0 and 1 have equal settings and order; all others are their own.
    chex.assert_trees_all_equal(*(members.member(tree, p) for p in (0, 1)))
  for p, q in itertools.combinations((0, 2, 3, 4, 5), 2):
    apart = jax.tree.map(lambda x, p=p, q=q: np.abs(x[p] - x[q]).max(), last)
    assert max(jax.tree.leaves(apart)) > 1e-3, (p, q)


def test_one_scorer_for_all_equals_one_each(six, tmp_path):
  """And a second run of equal settings compiles no program of a step."""
  programs = policy.sample, policy.update
  compiled = [program._cache_size() for program in programs]
  run(
    tmp_path,
    KL_COEFS,
    KINDS,
    MUS,
    scorers=[RULE] * 6,
    given={'orders': ORDERS, 'anchor_params': six.fixed},
  )
  assert_equal_files(tmp_path, six.folder, (1, 2, 3))
  expected = (six.folder / 'metrics.jsonl').read_text()
  assert (tmp_path / 'metrics.jsonl').read_text() == expected
  assert [program._cache_size() for program in programs] == compiled


# --- stopping ---------------------------------------------------------------

# The first is free, the second held tightly, the third in between; what the
# limit stops is worked out from a run without one.
FAR = {
  'kl_coef': (0.0, 30.0, 0.3),
  'kind': 'ema',
  'mu': 0.05,
  'steps': 8,
  'eval_every': 2,
  'checkpoint_every': 2,
  'learning_rate': 6e-3,
  'given': {'orders': (0, 1, 2)},
}


@pytest.fixture(scope='module')
def far(tmp_path_factory):
  """Without a limit; and the KL to the start when it will be looked at."""
  folder, seen = tmp_path_factory.mktemp('far'), []
  run(folder, scorers=(recording(seen),), **FAR)
  kls = []
  for step in (2, 4, 6):
    ids, mask = (x.reshape(3, 8, -1) for x in seen[step])
    for p, theta in enumerate(members.unstack(params_at(folder, step))):
      place = ids[p], mask[p], jnp.full(8, PROMPT)
      ratio = logps_of(theta, *place)
      ratio = ratio - logps_of(start_params(), *place)
      kls.append(float(np.mean(ratio)))
  return types.SimpleNamespace(folder=folder, kls=np.reshape(kls, (3, 3)))


def stops(kls, limit):
  """[P] where each stops: the first of steps 2, 4, 6 at or above the limit."""
  return [
    next((2 * i + 2 for i, kl in enumerate(column) if kl >= limit), 8)
    for column in kls.T
  ]


def limit_where(kls, is_wanted):
  """The limit farthest from any KL of those that stop them as wanted."""
  values = np.sort(kls.ravel())
  limits = [
    (high - low, (high + low) / 2)
    for low, high in itertools.pairwise(values)
    if is_wanted(stops(kls, (high + low) / 2))
  ]
  assert limits and max(limits)[0] > 1e-3, kls  # else change the rates of FAR
  return max(limits)[1]


def one_stops(found):
  """Early enough to be resumed from, while another goes on to the end."""
  return min(found) == 2 and max(found) == 8


def all_stop(found):
  return max(found) < 8 and len(set(found)) > 1


@pytest.fixture(scope='module')
def limited(far, tmp_path_factory):
  """With a limit that stops some policies and not others."""
  folder = tmp_path_factory.mktemp('limited')
  limit = limit_where(far.kls, one_stops)
  done = run(folder, max_kl=limit, **FAR)
  return types.SimpleNamespace(folder=folder, limit=limit, done=done)


def test_a_policy_stops_at_its_own_kl(far, limited):
  """It stays as it was kept there; its neighbours go their way."""
  steps, result = limited.done
  at = stops(far.kls, limited.limit)
  assert steps == [0, 2, 4, 6, 8]
  assert result['stopped_at'] == at
  for name, step in itertools.product(('params', 'ema'), steps):
    stack = params_at(limited.folder, step, name)
    for p in range(3):
      # As without a limit, up to where it stopped.
      free = params_at(far.folder, min(step, at[p]), name)
      chex.assert_trees_all_equal(
        members.member(stack, p), members.member(free, p)
      )
  rows = (limited.folder / 'metrics.csv').read_text().splitlines()
  assert len(rows) == 1 + 8


@pytest.mark.slow
def test_the_loop_ends_with_the_last(far, tmp_path):
  limit = limit_where(far.kls, all_stop)
  at = stops(far.kls, limit)
  done = steps, result = run(tmp_path, max_kl=limit, **FAR)
  assert steps == list(range(0, max(at) + 1, 2))
  assert result['stopped_at'] == at
  kept = {f'{n}_{step}' for n in ('params', 'ema') for step in steps}
  found = {p.name for p in tmp_path.iterdir() if p.name[-1].isdigit()}
  assert found == kept
  last = params_at(tmp_path, steps[-1])
  for p in range(3):
    chex.assert_trees_all_equal(
      members.member(last, p), members.member(params_at(far.folder, at[p]), p)
    )
  # A relaunch, before anyone has written down that it is done.
  before = (tmp_path / 'metrics.csv').read_text()
  assert run(tmp_path, max_kl=limit, **FAR) == done
  assert (tmp_path / 'metrics.csv').read_text() == before
  chex.assert_trees_all_equal(params_at(tmp_path, steps[-1]), last)
  assert {p.name for p in tmp_path.iterdir() if p.name[-1].isdigit()} == kept


@pytest.mark.slow
def test_the_limit_is_measured_from_the_reference(tmp_path):
  """Whatever the anchor: far from it at once, and so stopped at once."""
  far_away = lm_params(6, scale=3.0)
  wanted = FAR | {
    'kl_coef': (0.1,) * 3,
    'eval_every': 1,
    'learning_rate': 1e-4,
    'given': {'ref_params': far_away},
  }
  steps, result = run(tmp_path, max_kl=1.0, **wanted)
  assert steps == [0, 1] and result['stopped_at'] == [1] * 3
  assert np.abs(metrics_of(tmp_path, 'objective/kl')).max() < 0.1


# When the checkpoint of the first to stop does not know that yet, and when it
# does.
@pytest.mark.slow
@pytest.mark.parametrize('killed_at, saved', [(3, [2]), (5, [2, 4])])
def test_resume_equals_uninterrupted(
  limited, tmp_path, kill_at, killed_at, saved
):
  """With moving anchors, and policies that have stopped (R16)."""
  with kill_at(killed_at):
    run(tmp_path, max_kl=limited.limit, **FAR)
  found = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert found == saved
  assert run(tmp_path, max_kl=limited.limit, **FAR) == limited.done
  assert_equal_files(tmp_path, limited.folder, (0, 2, 4, 6, 8))
  for name in ('metrics.jsonl', 'metrics.csv'):
    expected = (limited.folder / name).read_text()
    assert (tmp_path / name).read_text() == expected


def test_nan_names_the_member(tmp_path):
  """And nothing that it has spoilt is kept."""
  calls = []

  def failing(ids, mask):
    calls.append(ids.shape)
    score = count_token(ids, mask)
    return score * np.nan if len(calls) == 2 else score

  scorers = RULE, rewards.HostScorer(failing), RULE
  with pytest.raises(errors.NonFiniteError, match=r'member 1 \(step 1'):
    run(tmp_path, scorers=scorers, **FAR | {'eval_every': 1})
  found = sorted(p.name for p in tmp_path.iterdir() if p.name[-1].isdigit())
  assert found == ['ema_0', 'ema_1', 'params_0', 'params_1']


# --- P policies, one program ------------------------------------------------


@pytest.mark.parametrize(
  'member_map', ['scan', pytest.param('vmap', marks=pytest.mark.slow)]
)
def test_each_policy_has_its_scorer(tmp_path, member_map):
  up, down = [], []
  scorers = recording(up), recording(down, -1.0)
  run(tmp_path, (0.1, 0.1), scorers=scorers, member_map=member_map)
  # At first the policies are one and so are the responses; later they are not.
  np.testing.assert_array_equal(up[0][0], down[0][0])
  assert (up[-1][0] != down[-1][0]).any()
  apart = jax.tree.map(
    lambda x: np.abs(x[0] - x[1]).max(), params_at(tmp_path, 3)
  )
  assert max(jax.tree.leaves(apart)) > 1e-5


def test_resume_equals_uninterrupted_with_a_value_model(tmp_path, kill_at):
  extra = {
    'prompts': PLAIN,
    'steps': 4,
    'eval_every': 2,
    'checkpoint_every': 2,
    'baseline': 'value',
  }
  done = run(tmp_path / 'policy', **extra)
  assert done[0] == [0, 2, 4]
  # A prompt is read once for two samples, which are scored row by row.
  ratios = metrics_of(tmp_path / 'policy', 'policy/sampling_ratio')
  np.testing.assert_allclose(ratios, 1.0, atol=1e-4)
  other = tmp_path / 'other' / 'policy'
  with kill_at(3):
    run(other, **extra)
  assert [p.name for p in (other / 'checkpoints').iterdir()] == ['2']
  assert run(other, **extra) == done
  for name in ('metrics.jsonl', 'metrics.csv'):
    expected = (tmp_path / 'policy' / name).read_text()
    assert (other / name).read_text() == expected
  assert_equal_files(other, tmp_path / 'policy', done[0], ('params',))


def test_reward_rises_and_a_strong_kl_holds(tmp_path):
  """Two policies on one rule in one stack; only the KL coefficient differs."""
  run(
    tmp_path,
    (0.0, 20.0),
    prompts=PLAIN,
    steps=40,
    eval_every=40,
    batch_size=16,
    learning_rate=2e-3,
    baseline='value',
    samples_per_prompt=1,
    value_learning_rate=1e-2,
    missing_eos_penalty=0.0,
  )
  scores = metrics_of(tmp_path, 'objective/scores')
  kls = metrics_of(tmp_path, 'objective/kl')[-5:].mean(axis=0)
  start, last = scores[0, 0], scores[-5:].mean(axis=0)
  assert start < 2.5
  assert last[0] > 3.5 and kls[0] > 1.0  # of at most 4
  assert last[1] < start + 0.7 and abs(kls[1]) < 0.15
  ratios = metrics_of(tmp_path, 'policy/sampling_ratio')
  np.testing.assert_allclose(ratios[:, 0], 1.0, atol=1e-4)

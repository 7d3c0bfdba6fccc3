# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the KL is taken to, who meets which prompts, and where policies stop.

Gradients against exact expectations over a tiny vocabulary, as in
policy_test.py. In the loop all policies of a stack have settings of their own,
and what it did is worked out again in numpy from what it kept at each step.
"""

import functools
import itertools
import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
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
TOKENIZER = types.SimpleNamespace(eos_id=EOS, pad_id=PAD)
TEMPERATURE = 0.9


def lm_params(seed, scale=1.6):
  """Random parameters, scaled so that the distribution is not near uniform."""
  params = language_model.init_params(jax.random.key(seed), MODEL)
  return jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)


@jax.jit
def sequence_logps(params, ids, mask, start):
  """[B] log-probabilities of whole responses at the sampling temperature."""
  logps = language_model.token_logps(
    params, MODEL, ids, mask, temperature=TEMPERATURE
  )
  response = sampling.response_mask(mask, start)
  return jnp.sum(jnp.where(response, logps, 0.0), axis=1)


# ---------------------------------------------------------------------------
# One step
# ---------------------------------------------------------------------------


def all_samples(prompt):
  """Every response of at most two tokens: EOS at once, or two tokens."""
  responses = [[EOS]] + [
    [first, second]
    for first, second in itertools.product(range(5), range(5))
    if first != EOS
  ]
  rows = [[*prompt, *response] for response in responses]
  length = len(prompt) + 2
  ids = np.array([row + [PAD] * (length - len(row)) for row in rows], np.int32)
  mask = np.array([np.arange(length) < len(row) for row in rows])
  return sampling.Samples(
    ids=jnp.array(ids),
    mask=jnp.array(mask),
    response_start=jnp.full(len(rows), len(prompt), jnp.int32),
    logps=jnp.zeros(ids.shape, jnp.float32),
    ended=jnp.array([EOS in response for response in responses]),
  )


KL_COEF = 0.4


@pytest.fixture(scope='module')
def mean_gradient(recording):
  """Mean gradient of policy.member_step, each response a batch of its own."""
  settings = policy.Settings(
    MODEL,
    recording,
    'scan',
    temperature=TEMPERATURE,
    max_new_tokens=2,
    missing_eos_penalty=0.0,
    num_samples=1,
    micro_batches=1,
    can_stop=False,
    eos_id=EOS,
    pad_id=PAD,
  )

  @jax.jit
  def compute(state, fixed, samples, scores, probability):
    def one(samples, score):
      single = jax.tree.map(lambda x: x[None], samples)
      new, _ = policy.member_step(
        state, single, score[None], fixed, settings=settings
      )
      return new.policy.opt_state, new.anchor.ema

    grads, moved = jax.vmap(one)(samples, scores)
    grads = jax.tree.map(lambda g: jnp.tensordot(probability, g, 1), grads)
    return grads, jax.tree.map(lambda x: x[0], moved)

  return compute


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def exact(params, anchor, samples, scores):
  """-(E[score] - KL_COEF KL(policy || anchor)) over all responses."""
  place = samples.ids, samples.mask, samples.response_start
  logps = sequence_logps(params, *place)
  probability = jnp.exp(logps)
  kl = jnp.sum(probability * (logps - sequence_logps(anchor, *place)))
  return KL_COEF * kl - jnp.sum(probability * scores), (probability, kl)


@pytest.mark.parametrize('kind', ['ema', 'fixed'])
def test_expected_gradient_is_exact(recording, mean_gradient, kind):
  """The KL is to the average, or to the fixed weights with one kept beside."""
  params, ema, fixed = lm_params(0), lm_params(1), lm_params(4)
  anchor = anchor_lib.make(ema, 1, kl_coef=KL_COEF, kind=kind, mu=0.25)
  value = reward_model.init_value(MODEL, lm_params(2)['backbone'])

  def train_state(params):
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=recording.init(params),
      rng=jax.random.key(0),
      hparams=members.member(state_lib.make_hparams(1, learning_rate=0.1), 0),
      is_active=jnp.array(True),
    )

  state = policy.PolicyState(
    policy=train_state(params),
    value=train_state(value),
    anchor=members.member(anchor, 0),
  )
  samples = all_samples([BOS, B, A])
  scores = jax.random.normal(jax.random.key(3), samples.ended.shape)
  right, wrong = (ema, fixed) if kind == 'ema' else (fixed, ema)
  expected, (probability, kl) = exact(params, right, samples, scores)
  assert abs(float(probability.sum()) - 1.0) < 1e-6 and float(kl) > 0.05
  actual, moved = mean_gradient(state, fixed, samples, scores, probability)

  def error(expected):
    """The worst leaf, as a fraction of its largest entry: sums of both signs."""
    return max(
      float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))
      for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected))
    )

  assert error(expected) < 3e-5
  # The other anchor would be seen.
  assert error(exact(params, wrong, samples, scores)[0]) > 0.05
  chex.assert_trees_all_close(
    moved,
    jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, ema, params),
    atol=1e-7,
  )


# ---------------------------------------------------------------------------
# The whole loop
# ---------------------------------------------------------------------------

PROMPT = 3  # tokens of every prompt, so that a row shows where it ends


def count_token(ids, mask):
  return ((ids == A) & mask)[:, PROMPT:].sum(axis=1).astype(np.float32)


RULE = rewards.HostScorer(count_token)


def make_prompts(num=16):
  ids = np.full((num, PROMPT), BOS, np.int32)
  ids[:, 1] = np.where(np.arange(num) % 2, A, B)
  ids[:, 2] = np.where(np.arange(num) // 2 % 2, A, B)
  mask = np.ones(ids.shape, bool)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


@functools.cache
def start_params():
  return language_model.init_params(jax.random.key(1), MODEL)


def run(
  folder, kl_coef, kind='fixed', mu=0.0, scorers=(RULE,), given=None, **over
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
  runtime.update({'member_map': 'scan', 'progress': False})
  start = start_params()
  anchors = anchor_lib.make(
    start, len(kl_coef), kl_coef=kl_coef, kind=kind, mu=mu
  )
  before = jax.tree.map(np.array, anchors)
  done = policy.train(
    start,
    scorers,
    MODEL,
    make_prompts(),
    TOKENIZER,
    config,
    folder=folder,
    seed=4,
    runtime=runtime,
    anchors=anchors,
    **(given or {}),
  )
  # What is donated must not be the caller's.
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, anchors), before)
  return done


def params_at(folder, step, name='params'):
  return checkpoint.load_params(folder / f'{name}_{step}')


def metrics_of(folder, name):
  """[steps, P]."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  columns = [c for c in rows[0] if c.rsplit('/member_', 1)[0] == name]
  return np.array([[row[c] for c in columns] for row in rows])


def recording(seen):
  """The rule, which keeps the rows that it is shown."""

  def rule(ids, mask):
    seen.append((ids.copy(), mask.copy()))
    return count_token(ids, mask)

  return rewards.HostScorer(rule)


def assert_equal_files(one, other, steps, names=('params', 'ema')):
  for step, name in itertools.product(steps, names):
    chex.assert_trees_all_equal(
      params_at(one, step, name), params_at(other, step, name)
    )


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
      logps = sequence_logps(members.member(theta, p), *place)
      kl = float(np.mean(logps - sequence_logps(anchor, *place)))
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
      ratio = sequence_logps(theta, *place)
      ratio = ratio - sequence_logps(start_params(), *place)
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

  with pytest.raises(errors.NonFiniteError, match=r'member 1 \(step 1'):
    scorers = (RULE, rewards.HostScorer(failing), RULE)
    run(tmp_path, scorers=scorers, **FAR | {'eval_every': 1})
  found = sorted(p.name for p in tmp_path.iterdir() if p.name[-1].isdigit())
  assert found == ['ema_0', 'ema_1', 'params_0', 'params_1']

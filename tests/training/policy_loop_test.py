# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The loop of REINFORCE: all policies of a stack have settings of their own."""

import itertools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import errors, members, rewards, sampling
from warm_jax.config import section
from warm_jax.models import language_model
from warm_jax.training import checkpoint, policy

BOS, EOS, A, B = range(1, 5)
MODEL = tiny.POLICY
TEMPERATURE = 0.9
PROMPT = 3  # tokens of the longer prompts
RULE = rewards.HostScorer(tiny.count_token)
# Of two lengths, and without the token that is counted.
PLAIN = tiny.prompts((3, 2), (B,))
START = tiny.language_params(MODEL, 1)


def far_params(seed, scale):
  params = tiny.language_params(MODEL, seed)
  return jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)


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
  anchors = policy.make_anchors(len(kl_coef), kl_coef=kl_coef, kind=kind, mu=mu)
  before = jax.tree.map(np.array, (START, anchors))
  done = policy.train(
    *(START, scorers, MODEL, prompts or tiny.prompts(), tiny.TOKENIZER, config),
    folder=folder,
    seed=4,
    runtime=tiny.runtime(member_map),
    anchors=anchors,
    **(given or {}),
  )
  # What is donated must not be the caller's (M5).
  after = jax.tree.map(np.asarray, (START, anchors))
  chex.assert_trees_all_equal(after, before)
  return done


def params_at(folder, step, name='params'):
  return checkpoint.load_params(folder / f'{name}_{step}')


def metrics_of(folder, name):
  """[steps, P]."""
  rows = tiny.rows_of(folder)
  columns = [c for c in rows[0] if c.rsplit('/member_', 1)[0] == name]
  return np.array([[row[c] for c in columns] for row in rows])


def recording(seen, sign=1.0):
  """The rule, which keeps the rows that it is shown."""

  def rule(ids, mask):
    seen.append((ids.copy(), mask.copy()))
    return sign * tiny.count_token(ids, mask)

  return rewards.HostScorer(rule)


def kept_names(steps, names=('params', 'ema')):
  return [f'{name}_{step}' for name in names for step in steps]


@jax.jit
def logps_of(params, ids, mask):
  """[B] log-probabilities of whole responses."""
  logps = language_model.token_logps(
    params, MODEL, ids, mask, temperature=TEMPERATURE
  )
  response = sampling.response_mask(mask, jnp.full(len(ids), PROMPT))
  return jnp.sum(jnp.where(response, logps, 0.0), axis=1)


def kl_to(anchor, theta, ids, mask):
  return float(
    np.mean(logps_of(theta, ids, mask) - logps_of(anchor, ids, mask))
  )


# Six policies in one stack: two of the same settings, one that differs by its
# order, one whose average is itself, one with a fixed anchor and an average
# beside it, and one that is held by nothing.
KINDS = ('ema', 'ema', 'ema', 'ema', 'fixed', 'fixed')
MUS = np.float32([0.2, 0.2, 0.2, 1.0, 0.3, 0.0])
KL_COEFS = (0.3, 0.3, 0.3, 0.3, 2.0, 0.0)
SIX = {'orders': (0, 0, 4, 0, 0, 7), 'anchor_params': far_params(5, 1.6)}


@pytest.fixture(scope='module')
def six(tmp_path_factory):
  """The run, whose fixed anchor is not the start; the rows that it scored."""
  folder, seen = tmp_path_factory.mktemp('six'), []
  steps, result = run(
    folder, KL_COEFS, KINDS, MUS, scorers=(recording(seen),), given=SIX
  )
  assert steps == [0, 1, 2, 3] and result['stopped_at'] == [3] * 6
  assert len(seen) == 3
  seen = [[x.reshape(6, 8, -1) for x in pair] for pair in seen]
  return types.SimpleNamespace(folder=folder, seen=seen)


def test_average_follows_the_new_weights(six):
  """ema_{t+1} = (1 - mu) ema_t + mu theta_{t+1}, each member its own."""
  start = jax.tree.map(np.asarray, START)
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
    assert tiny.largest(kept, theta) > 1e-2
    tiny.assert_members_equal(kept, theta, [(3, 3)])
    chex.assert_trees_all_equal(members.member(kept, 5), start)


def test_kl_of_each_step_is_to_its_anchor(six):
  """From the rows that were scored and the weights that were kept."""
  reported = metrics_of(six.folder, 'objective/kl')
  scores = metrics_of(six.folder, 'objective/scores')
  shaped = metrics_of(six.folder, 'objective/rlhf_reward')
  for step, (ids, mask) in enumerate(six.seen):
    theta, ema = (params_at(six.folder, step, n) for n in ('params', 'ema'))
    ended = ((ids == EOS) & mask)[..., PROMPT:].any(axis=-1)
    for p, kind in enumerate(KINDS):
      anchor = members.member(ema, p) if kind == 'ema' else SIX['anchor_params']
      kl = kl_to(anchor, members.member(theta, p), ids[p], mask[p])
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
    np.testing.assert_array_equal(prompts[[0, 0, 0]], prompts[[1, 3, 4]])
    np.testing.assert_array_equal(prompts[:, ::2], prompts[:, 1::2])
    if step == 0:
      np.testing.assert_array_equal(ids[[0, 0, 0]], ids[[1, 3, 4]])
  for p, q in ((0, 2), (2, 5)):
    assert any((ids[p] != ids[q])[..., :PROMPT].any() for ids, _ in six.seen)
  last, ema = (params_at(six.folder, 3, name) for name in ('params', 'ema'))
  # 0 and 1 have equal settings and order; all others are their own.
  for tree in (last, ema):
    tiny.assert_members_equal(tree, tree, [(0, 1)])
  for p, q in itertools.combinations((0, 2, 3, 4, 5), 2):
    one, other = members.member(last, p), members.member(last, q)
    assert tiny.largest(one, other) > 1e-3, (p, q)


def test_a_scorer_of_several_policies_is_called_once_for_all():
  seen, ids = [], np.arange(24).reshape(3, 2, 4) % 7
  samples = types.SimpleNamespace(ids=ids, mask=np.ones_like(ids, bool))
  scorers = [recording(seen, -1.0), RULE]
  with jax.disable_jit():
    found = policy.score(scorers, samples, judges=(1, 0, 1))
  (alone,) = seen
  np.testing.assert_array_equal(alone[0], ids[1])
  for p, sign in enumerate((1, -1, 1)):
    expected = sign * tiny.count_token(ids[p], samples.mask[p])
    np.testing.assert_array_equal(found[p], expected)


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
      kls.append(kl_to(START, theta, ids[p], mask[p]))
  return types.SimpleNamespace(folder=folder, kls=np.reshape(kls, (3, 3)))


def stops(kls, limit):
  """[P] where each stops: the first of steps 2, 4, 6 at or above the limit."""
  return [
    next((2 * i + 2 for i, kl in enumerate(column) if kl >= limit), 8)
    for column in kls.T
  ]


@pytest.fixture(scope='module')
def limited(far, tmp_path_factory):
  """One stops early enough to be resumed from, another goes on to the end."""
  limits = [
    (high - low, (high + low) / 2)
    for low, high in itertools.pairwise(np.sort(far.kls.ravel()))
    if {2, 8} <= set(stops(far.kls, (high + low) / 2))
  ]
  # The farthest from any KL; else change the rates of FAR.
  assert limits and max(limits)[0] > 1e-3, far.kls
  limit = max(limits)[1]
  folder = tmp_path_factory.mktemp('limited')
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
      tiny.assert_members_equal(stack, free, [(p, p)])
  assert len(tiny.rows_of(limited.folder)) == 8


@pytest.mark.slow
def test_the_limit_is_measured_from_the_reference(tmp_path):
  """Whatever the anchor: far from it at once, and so stopped at once."""
  wanted = FAR | {
    'kl_coef': (0.1,) * 3,
    'eval_every': 1,
    'learning_rate': 1e-4,
    'given': {'ref_params': far_params(6, 3.0)},
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
  names = ['metrics.jsonl', 'metrics.csv', *kept_names((0, 2, 4, 6, 8))]
  tiny.assert_same_files(tmp_path, limited.folder, names)


def test_nan_names_the_member(tmp_path):
  """And nothing that it has spoilt is kept."""
  calls = []

  def failing(ids, mask):
    calls.append(ids.shape)
    score = tiny.count_token(ids, mask)
    return score * np.nan if len(calls) == 2 else score

  scorers = RULE, rewards.HostScorer(failing), RULE
  with pytest.raises(errors.NonFiniteError, match=r'member 1 \(step 1'):
    run(tmp_path, scorers=scorers, **FAR | {'eval_every': 1})
  found = {p.name for p in tmp_path.iterdir() if p.name[-1].isdigit()}
  assert found == {*kept_names((0, 1))}


# --- P policies, one program ------------------------------------------------


def test_resume_equals_uninterrupted_with_a_value_model(tmp_path, kill_at):
  extra = {
    'prompts': PLAIN,
    'steps': 4,
    'eval_every': 2,
    'checkpoint_every': 2,
    'baseline': 'value',
  }
  whole, other = tmp_path / 'policy', tmp_path / 'other' / 'policy'
  done = run(whole, **extra)
  assert done[0] == [0, 2, 4]
  # A prompt is read once for two samples, which are scored row by row.
  ratios = metrics_of(whole, 'policy/sampling_ratio')
  np.testing.assert_allclose(ratios, 1.0, atol=1e-4)
  with kill_at(3):
    run(other, **extra)
  assert [p.name for p in (other / 'checkpoints').iterdir()] == ['2']
  assert run(other, **extra) == done
  names = ['metrics.jsonl', 'metrics.csv', *kept_names(done[0], ['params'])]
  tiny.assert_same_files(other, whole, names)


def test_reward_rises_and_a_strong_kl_holds(tmp_path):
  """Two policies on one rule in one stack; only the KL coefficient differs."""
  run(
    tmp_path,
    (0.0, 20.0),
    prompts=PLAIN,
    member_map='vmap',
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

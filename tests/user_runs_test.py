# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A user's path: checkpoint and files in, folders out, scores from them."""

import json
import os
import pathlib
import random
import shutil

import chains
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, members, pipeline, worlds
from warm_jax.commands import score
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading, writing
from warm_jax.models import language_model
from warm_jax.stages import scorers
from warm_jax.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.hf]
GOOD, BAD = ('clear', 'true', 'short'), ('vague', 'false', 'endless')


def pairs(num, seed):
  """Preferences for answers that hold good words."""
  rng = random.Random(seed)

  def answer(words):
    return f'it is {rng.choice(words)} and {rng.choice(words)}'

  return [
    {
      'prompt': f'what about {rng.choice("abcdefghij")} {seed} {i // 2}',
      'chosen': answer(GOOD),
      'rejected': answer(BAD),
    }
    for i in range(num)
  ]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """A tiny Llama as a Hugging Face folder, and preferences."""
  folder = tmp_path_factory.mktemp('files')
  train = pairs(160, 0)
  tokenizer = tokenizer_lib.train_bpe_tokenizer(
    (text for row in train for text in row.values()), 300, folder / 'tokenizer'
  )
  shape = chains.model_config(tokenizer.vocab_size)
  params = language_model.init_params(jax.random.key(0), shape)
  writing.save(folder / 'model', params, shape, tokenizer)
  # A base without a chat template, as most are that were only pretrained.
  (folder / 'model' / 'chat_template.jinja').unlink()
  chains.write_rows(folder / 'train.jsonl', train)
  chains.write_rows(folder / 'test.jsonl', pairs(40, 1))
  return folder


def paths(folder):
  return {f'data.{x}': str(folder / f'{x}.jsonl') for x in ('train', 'test')}


SFT = {
  'data.max_length': 48,
  'sft.steps': 4,
  'sft.keep_steps': (2, 3, 4),
  'sft.batch_size': 16,
  'sft.optimizer.warmup_steps': 2,
}
REWARD = SFT | {
  'reward.steps': 8,
  'reward.batch_size': 16,
  'reward.members': 2,
  'reward.optimizer.warmup_steps': 2,
  'merge.num_lambdas': 3,
}
RL = {
  'eval_every': 2,
  'batch_size': 8,
  'max_new_tokens': 8,
  'checkpoint_every': 2,
  'num_reference': 16,
  'optimizer.warmup_steps': 1,
}
POLICY, WARP = (
  {f'{section}.{name}': value for name, value in RL.items()}
  | {f'{section}.steps': steps, 'evaluate.num_prompts': 5}
  | {'data.max_length': 48}
  for section, steps in (('policy', 4), ('warp', (4, 2)))
)


@pytest.fixture(scope='module')
def reward_run(files, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('reward') / 'run'
  model = str(files / 'model')
  config = chains.load_config('reward', model=model, **REWARD | paths(files))
  pipeline.run(config, workdir)
  return workdir


def load(folder, head='lm'):
  return reading.load(reading.inspect(folder), head=head)


def score_ids(tokenizer, rows, length=48):
  """What its tokenizer makes of prompt and response, then the end."""
  ids = np.full((len(rows), length), tokenizer.pad_id, np.int32)
  mask = np.zeros((len(rows), length), bool)
  for i, (prompt, response) in enumerate(rows):
    line = tokenizer.hf(prompt + response)['input_ids'] + [tokenizer.eos_id]
    ids[i, : len(line)], mask[i, : len(line)] = line, True
  return ids, mask


def test_reward_run_exports_what_it_merged(reward_run):
  stack = checkpoint.load_params(reward_run / 'reward' / 'params')
  by_hand = jax.tree.map(lambda x: np.mean(x, axis=0, dtype=np.float64), stack)
  chex.assert_trees_all_close(
    load(reward_run / 'export' / 'warm', 'score'),
    jax.tree.map(lambda x: x.astype(np.float32), by_hand),
    atol=1e-7,
  )
  for m in (0, 1):
    member = load(reward_run / 'export' / f'member_{m}', 'score')
    chex.assert_trees_all_equal(member, members.member(stack, m))
  card = (reward_run / 'export' / 'warm' / 'README.md').read_text()
  result = json.loads((reward_run / 'merge' / 'result.json').read_text())
  accuracy = result['result']['table']['test']['warm']['value']
  for text in ('2401.12187', f'{accuracy:.3f}', 'member', 'transformers'):
    assert text in card, text


def test_scores_of_the_exports_are_those_of_the_run(reward_run):
  """Merged and as an ensemble, exported and working models agree."""
  both = ','.join(str(reward_run / 'export' / f'member_{m}') for m in (0, 1))
  rows = [(f'{r["prompt"]}\n', r['chosen']) for r in pairs(10, 2)]
  for outside, inside in (
    (str(reward_run / 'export' / 'warm'), str(reward_run)),
    (both, f'{reward_run}:ens'),
  ):
    outside, inside = map(scorers.open_model, (outside, inside))
    ids, mask = score_ids(outside.chat.tokenizer, rows)
    raw = [  # the order of members does not matter
      np.sort(np.atleast_2d(x.scorer.raw_scores(ids, mask)), axis=0)
      for x in (outside, inside)
    ]
    np.testing.assert_allclose(*raw, atol=1e-6)
    if outside.scorer.aggregate == 'single':
      np.testing.assert_allclose(
        outside.scorer(ids, mask), inside.scorer(ids, mask), atol=1e-4
      )


TEMPLATE = (
  '{{ bos_token }}{% for m in messages %}'
  "{{ m['role'] + ':' + m['content'] + eos_token + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def test_an_export_of_conversations_scores_them_as_in_training(files, tmp_path):
  """And plain prompts as one turn, though their file says nothing of turns."""
  shutil.copytree(files / 'model', tmp_path / 'model')
  (tmp_path / 'model' / 'chat_template.jinja').write_text(TEMPLATE)
  plain, turns = pairs(24, 6), []
  for row in plain:
    ask = {'role': 'user', 'content': row['prompt']}
    sides = ('chosen', 'rejected')
    answers = {k: {'role': 'assistant', 'content': row[k]} for k in sides}
    turns.append({k: [ask, answer] for k, answer in answers.items()})
  found = {'plain': plain, 'turns': turns}
  for name, rows in found.items():
    chains.write_rows(tmp_path / f'{name}.jsonl', rows)
  data = str(tmp_path / 'turns.jsonl')
  changes = REWARD | {'data.test': data, 'data.train': data}
  changes |= {'sft.enabled': False, 'reward.batch_size': 8, 'reward.steps': 2}
  model = str(tmp_path / 'model')
  config = chains.load_config('reward', model=model, **changes)
  for stage in chains.names(config):
    if stage != 'report':
      pipeline.run(config, tmp_path / 'run', stage=stage)
  run = pipeline.Run(config, tmp_path / 'run')
  test = worlds.of(run).pairs('test')
  batch = test.batch(np.arange(len(test)))
  scorer = scorers.open_model(str(run.workdir)).scorer
  wanted = np.reshape(scorer.raw_scores(batch['ids'], batch['mask']), (2, -1))
  for name in found:
    out = tmp_path / f'{name}_scores.jsonl'
    where = [f'--data={tmp_path}/{name}.jsonl', f'--out={out}']
    assert score.main([f'--model={run.workdir}/export/warm', *where]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    rows = [rows[number - 1] for number in test.rows]
    got = [[r[f'score_{k}'] for r in rows] for k in ('chosen', 'rejected')]
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_sft_and_policy_runs(reward_run, files, tmp_path):
  """The exported SFT model starts a policy; the policy loads again."""
  sft = tmp_path / 'sft'
  responses = chains.write_rows(
    tmp_path / 'sft.jsonl',
    [{'prompt': r['prompt'], 'completion': r['chosen']} for r in pairs(60, 4)],
  )
  config = chains.load_config(
    'sft', model=str(files / 'model'), **{'data.train': str(responses)}, **SFT
  )
  pipeline.run(config, sft)
  exported = tokenizer_lib.load_pretrained(sft / 'export' / 'sft_4').hf
  turns = [
    {'role': 'user', 'content': 'what is it'},
    {'role': 'assistant', 'content': 'clear'},
  ]
  # The chat template writes what the run's plain rows were.
  assert exported.apply_chat_template(turns, tokenize=False) == (
    f'{exported.bos_token}what is it\nclear{exported.eos_token}'
  )
  config = chains.load_config(
    'policy',
    model=str(sft / 'export' / 'sft_4'),
    reward_model=str(reward_run / 'export' / 'member_0'),
    control_model=f'{reward_run}:member_1',
    **POLICY | {'data.train': str(responses)},
  )
  other = config.copy_and_resolve_references()
  other.data.prompt_template = 'Q: {prompt}'
  with pytest.raises(errors.UserError, match='reads prompts like'):
    pipeline.run(other, tmp_path / 'other')
  results = pipeline.run(config, tmp_path / 'policy')
  rows = results['evaluate']['rows']
  assert [row['step'] for row in rows] == [0, 2, 4]
  assert {'proxy', 'control', 'kl', 'length', 'ended'} <= set(rows[-1])
  assert results['evaluate']['win_rate_by'] == 'control'
  assert rows[0]['win_rate'] == rows[0]['win_rate_lc'] == 0.5
  (example, *_) = results['evaluate']['samples']
  assert [s['step'] for s in example['summaries']] == [0, 4]
  # The member that was not climbed judges the gain, here as control as well.
  agreed = results['evaluate']['agreement']['policy']
  assert agreed['witnesses'] == [f'{reward_run}:member_1']
  values = dict(np.load(tmp_path / 'policy' / 'evaluate' / 'values.npz'))
  gain, other = (
    (x[2].mean() - x[0].mean()) / x[0].std()
    for x in (values['proxy'], values['control'])
  )
  assert agreed['gain'] == pytest.approx(gain, rel=1e-4)
  if agreed['tau_reward']:
    assert agreed['tau_reward'][0] == pytest.approx(other / gain, rel=1e-3)
  assert agreed['sentence'][:-1] in results['evaluate']['summary']
  # The first policy is the anchor, on whose samples the reward is 0.
  assert rows[0]['kl'] == pytest.approx(0.0, abs=1e-5)
  kept = checkpoint.load_params(tmp_path / 'policy' / 'policy' / 'params_4')
  chex.assert_trees_all_equal(
    load(tmp_path / 'policy' / 'export' / 'policy_4'),
    jax.tree.map(lambda x: x[0], kept),
  )
  start = load(files / 'model')
  assert any(
    (np.asarray(a) != b[0]).any()
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(kept))
  )


def test_warp_run_exports_the_line_from_the_start_to_the_merge(
  reward_run, files, tmp_path
):
  config = chains.load_config(
    'warp_policy',
    model=str(files / 'model'),
    reward_model=str(reward_run / 'export' / 'warm'),
    **WARP | paths(files),
    **{
      'warp.learning_rate': 1e-3,
      'evaluate.etas': (0.5,),
      'export.etas': (0.3,),
    },
  )
  results = pipeline.run(config, tmp_path)
  rows = {row['policy']: row for row in results['evaluate']['rows']}
  assert list(rows) == ['start', 'merged_1', 'eta_0.5', 'merged_2']
  assert rows['start']['kl'] == pytest.approx(0.0, abs=1e-5)
  samples = (tmp_path / 'evaluate' / 'samples.jsonl').read_text().splitlines()
  assert len(samples) == 4 * 5
  assert {'policy', 'prompt', 'response', 'proxy', 'kl'} <= set(
    json.loads(samples[0])
  )
  assert results['export']['folders'] == ['eta_0.3', 'merged']
  merged, point = (
    load(tmp_path / 'export' / name) for name in ('merged', 'eta_0.3')
  )
  kept = checkpoint.load_params(tmp_path / 'warp' / 'iteration_2' / 'merged')
  chex.assert_trees_all_equal(merged, jax.tree.map(jnp.asarray, kept))
  start = load(files / 'model')
  chex.assert_trees_all_close(
    point,
    jax.tree.map(lambda a, b: a + 0.3 * (b - a), start, merged),
    atol=1e-6,
  )
  card = (tmp_path / 'export' / 'eta_0.3' / 'README.md').read_text()
  assert '2406.16768' in card and '(1 - 0.3) start + 0.3 merged' in card


def test_walk_with_a_trained_model_and_human_preferences(tmp_path):
  """From pairs to two policies, each run to its page."""
  default = chains.ROOT.parent / 'shared'
  shared = pathlib.Path(os.environ.get('WARM_JAX_SHARED', default))
  model = shared / 'models' / 'stories260k'
  train = shared / 'data' / 'wmt19_preferences' / 'train.jsonl.gz'
  if not (model.is_dir() and train.is_file()):
    pytest.skip('WARM_JAX_SHARED has no stories260k and wmt19_preferences')
  given = {'model': str(model), 'data.train': str(train), 'data.max_pairs': 60}
  given |= {'data.max_length': 160}
  rewarded = {'reward_model': str(tmp_path / 'reward' / 'export' / 'warm')}
  for name, changes, outcome in (
    ('reward', REWARD, 'merge'),
    ('policy', POLICY | rewarded, 'evaluate'),
    ('warp_policy', WARP | rewarded, 'evaluate'),
  ):
    config = chains.load_config(name, **changes | given)
    results = pipeline.run(config, tmp_path / name)
    assert results[outcome]['summary'] and results['export']['folders']
    page = (tmp_path / name / 'report' / 'index.html').read_text()
    assert '</html>' in page and 'nan' not in results[outcome]['summary']

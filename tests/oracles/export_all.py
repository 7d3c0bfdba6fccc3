# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Exports tiny models of every family, with our numbers beside them.

Runs in the project's own environment, between make_odd.py and the checks. Below
--out, exports/FAMILY are folders (init, members, their merges, a policy), ours/
our scores and logits of them, and *.json what there is, what `warm score` made
of text, and the folders of one iteration of WARP.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import sys

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['TRANSFORMERS_VERBOSITY'] = 'error'

from warm_jax import distributed  # noqa: E402

for _name, _value in distributed.cache_environment().items():
  os.environ.setdefault(_name, _value)

import jax  # noqa: E402
import numpy as np  # noqa: E402

from warm_jax import errors, losses, main, rewards, sampling  # noqa: E402
from warm_jax.config import section  # noqa: E402
from warm_jax.data import encoding  # noqa: E402
from warm_jax.data import tokenizer as tokenizer_lib  # noqa: E402
from warm_jax.hf import reading, writing  # noqa: E402
from warm_jax.models import config as config_lib  # noqa: E402
from warm_jax.models import language_model, reward_model, transformer  # noqa: E402
from warm_jax.training import checkpoint, warp  # noqa: E402

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from checkpoints import FAMILIES, FIXTURES, qwen_tokenizer  # noqa: E402

SIDES = ('right', 'left', 'full')
NUM_MEMBERS = 3
NUM_PAIRS = 24
# 64 tokens with the four special ones; rows of text are made of letters.
LETTERS = [chr(ord('a') + i) for i in range(26)]
WORDS = LETTERS + [f'w{i}' for i in range(34)]
# WARP of families whose tensors are our leaves: where query, key and value share
# one tensor, mergekit has one angle for them and we have three.
WARP_MEMBERS = {'llama': 2, 'gemma2': 3}
ETA = 0.3

_TINY = dict(vocab_size=64, width=16, num_layers=2, num_heads=4)
_TINY |= dict(mlp_width=24, max_length=48)
_BIASES = dict(qkv_bias=True, attention_out_bias=True, mlp_bias=True)
_LAYERNORM = dict(norm='layernorm', norm_eps=1e-5, mlp='plain')
# Models trained from scratch: nothing of theirs comes from a checkpoint.
SCRATCH = {
  'scratch_llama': config_lib.ModelConfig(**_TINY, num_kv_heads=2),
  'scratch_gpt2': config_lib.ModelConfig(
    **(_TINY | _LAYERNORM | _BIASES),
    position='learned',
    activation='gelu_tanh',
  ),
  'scratch_neox': config_lib.ModelConfig(
    **(_TINY | _LAYERNORM | _BIASES),
    activation='gelu',
    rotary_fraction=0.5,
    parallel_residual=True,
    tied_embeddings=False,
  ),
  'scratch_qwen3': config_lib.ModelConfig(**_TINY, qk_norm=True, head_dim=8),
  'scratch_gemma3': config_lib.ModelConfig(
    **_TINY,
    norm_plus_one=True,
    post_norms=True,
    embed_scale=True,
    qk_norm=True,
    activation='gelu_tanh',
    query_scale=8**-0.5,
    head_dim=8,
    sliding_window=4,
    layer_types=('sliding', 'full'),
    rope_theta=900.0,
    rope_theta_local=50.0,
  ),
}


# One of each for all exports: members of a family share what is compiled.
scores_of = jax.jit(reward_model.scores, static_argnums=1)


@functools.partial(jax.jit, static_argnums=1)
def logits_of(params, config, ids, mask):
  hidden = transformer.hidden_states(params, config, ids, mask)
  return language_model.logits(params, config, hidden)


class Exports:
  """The folders, and what is known about each."""

  def __init__(self, out: pathlib.Path):
    self.out = out
    self.data = dict(np.load(FIXTURES / 'llama' / 'expected.npz'))
    self.tokenizer = tokenizer_lib.make_word_tokenizer(WORDS, out / 'tokenizer')
    self.qwen_tokenizer = qwen_tokenizer(out / 'tokenizer_qwen')
    self.index = {'reward': {}, 'policy': {}}
    rng = np.random.default_rng(11)

    def row():
      words = rng.integers(4, 64, rng.integers(2, 12)).tolist()
      return [self.tokenizer.bos_id, *words, self.tokenizer.eos_id]

    self.pairs = [
      {
        'chosen_ids': row(),
        'rejected_ids': row(),
        'margin': round(float(rng.uniform(0, 2)), 3),
      }
      for _ in range(NUM_PAIRS)
    ]
    self.losses = {}

  def save(self, name, params, config, **options):
    tokenizer = self.qwen_tokenizer if 'qwen' in name else self.tokenizer
    folder = self.out / 'exports' / name
    writing.save(folder, params, config, tokenizer, **options)

  def _open(self, name, head):
    """An export read back: what is in the files counts."""
    found = reading.inspect(self.out / 'exports' / name)
    return reading.load(found, head), found.config

  def _keep(self, name, kind, compute, **arrays):
    """Ids, masks and `compute(ids, mask)` of each side, for the checks."""
    for side in SIDES:
      ids, mask = self.data[f'{side}_ids'], self.data[f'{side}_mask']
      arrays[f'{side}_ids'], arrays[f'{side}_mask'] = ids, mask
      arrays[f'{side}_{kind}'] = np.asarray(compute(ids, mask))
    path = self.out / 'ours' / f'{name}.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)

  def reward(self, name, params, config, *, dtype='float32', **options):
    """Exports a reward model and keeps our scores of it."""
    self.save(name, params, config, dtype=dtype, **options)
    self.keep_scores(name, dtype)

  def keep_scores(self, name, dtype='float32'):
    params, config = self._open(name, 'score')
    compute = functools.partial(scores_of, params, config)
    self._keep(name, 'scores', compute)
    self.index['reward'][name] = {'dtype': dtype}
    # For the loss a few of each family will do.
    if not name.endswith(('member_1', 'member_2', 'slerp')):
      self._keep_losses(name, compute)

  def _keep_losses(self, name, compute):
    """Our loss on the pairs, with and without margins."""
    sides = ('chosen_ids', 'rejected_ids')
    rows = [pair[side] for side in sides for pair in self.pairs]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
      ids[i, : len(row)], mask[i, : len(row)] = row, True
    chosen, rejected = np.split(compute(ids, mask), 2)
    margins = np.array([p['margin'] for p in self.pairs], np.float32)
    self.losses[name] = {}
    for margin in (False, True):
      loss, metrics = losses.bradley_terry_loss(
        chosen, rejected, margin=margins if margin else None
      )
      kept = {k: float(v) for k, v in metrics.items()}
      self.losses[name][f'margin={margin}'] = kept | {'loss': float(loss)}

  def policy(self, name, params, config, **options):
    """Exports a language model; keeps our logits and greedy continuations."""
    self.save(name, params, config, **options)
    params, config = self._open(name, 'lm')
    ids, mask = self.data['right_ids'], self.data['right_mask']
    new = 4  # at most: GPT-2's fixture has 16 positions
    samples = sampling.sample(
      *(params, config, jax.random.key(0), ids, mask),
      max_new_tokens=new,
      temperature=1e-6,  # the most probable token
      eos_ids=self.tokenizer.eos_ids,
      pad_id=self.tokenizer.pad_id,
    )
    columns = mask.sum(1)[:, None] + np.arange(new)
    self._keep(
      name,
      'logits',
      functools.partial(logits_of, params, config),
      # transformers continues prompts that are padded on the left.
      greedy_prompts=self.data['left_ids'],
      greedy_mask=self.data['left_mask'],
      greedy_new=np.take_along_axis(np.asarray(samples.ids), columns, 1),
    )
    self.index['policy'][name] = {}

  def merge(self, name, *arguments):
    """Runs `warm merge` into an export."""
    run('merge', f'--out={self.out / "exports" / name}', *arguments)
    self.keep_scores(name)


def run(*arguments: str) -> str:
  """The command `warm`, in this process; its output."""
  output = io.StringIO()
  with contextlib.redirect_stdout(output):
    code = main.main(['warm', *arguments])
  if code:
    sys.exit(f'warm {" ".join(arguments)} ended with {code}')
  return output.getvalue()


def perturbed(params, seed: int, size: float = 0.05):
  """A fine-tuned model: every leaf moved a little."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  moved = [
    x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)
  ]
  return jax.tree.unflatten(tree, moved)


def export_family(exports: Exports, family: str) -> dict:
  """Import, move, export, merge: the road of a user."""
  base = reading.inspect(FIXTURES / family / 'reward')
  params = reading.load(base, head='score')
  exports.reward(f'{family}/init', params, base.config, base=base)
  members = [f'{family}/member_{i}' for i in range(NUM_MEMBERS)]
  for i, member in enumerate(members):
    normaliser = {'reward_mean': 0.1 * i, 'reward_std': 1.0 + i}
    exports.reward(
      member, perturbed(params, i), base.config, base=base, **normaliser
    )
  folder = exports.out / 'exports'
  paths = [str(folder / member) for member in members]
  exports.merge(f'{family}/warm', *paths)
  init = f'--init={folder / family / "init"}'
  # mergekit has an angle for each tensor.
  slerp = ('--method=slerp', '--group=tensor', init)
  exports.merge(f'{family}/slerp', *slerp, *paths[:2])
  base = reading.inspect(FIXTURES / family)
  params = perturbed(reading.load(base, head='lm'), 9)
  exports.policy(f'{family}/policy', params, base.config, base=base)
  names = {'init': 'init', 'uniform': 'warm', 'slerp': 'slerp'}
  found = {key: f'{family}/{name}' for key, name in names.items()}
  return found | {'members': members}


def export_scratch(exports: Exports, name: str, config):
  params = language_model.init_params(jax.random.key(1), config)
  params = perturbed(params, 2, 0.3)
  exports.policy(f'{name}/policy', params, config)
  reward = reward_model.init_params(
    jax.random.key(3), config, params['backbone']
  )
  exports.reward(f'{name}/reward', reward, config)


def import_odd(folder: pathlib.Path):
  """Our logits of an unusual checkpoint, or why it is refused."""
  for name in ('ours.npz', 'refused.txt'):
    (folder / name).unlink(missing_ok=True)
  data = np.load(folder / 'expected.npz')
  try:
    checkpoint = reading.inspect(folder)
    params = reading.load(checkpoint, head='lm')
  except errors.UserError as e:
    (folder / 'refused.txt').write_text(f'UserError: {e}\n')
    return
  arrays = {}
  for side in SIDES:
    mask = data[f'{side}_mask']
    ids = data[f'{side}_ids']
    out = np.asarray(logits_of(params, checkpoint.config, ids, mask))
    arrays[f'{side}_logits'] = out * mask[..., None]
  np.savez(folder / 'ours.npz', **arrays)


def export_warp(exports: Exports, family: str, num_members: int) -> dict:
  """One iteration of WARP: a few steps on a reward that counts letters.

  What it wrote goes into folders, to be merged anew by others.
  """
  base = reading.inspect(FIXTURES / family)
  work = exports.out / 'warp' / family
  shutil.rmtree(work, ignore_errors=True)
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
  runtime = section('runtime')
  runtime.progress = False
  ids = np.random.default_rng(0).integers(4, 64, (64, 4)).astype(np.int32)
  ids[:, 0] = exports.tokenizer.bos_id
  mask = np.ones(ids.shape, bool)

  def letters_of(ids, mask):  # they are the tokens after the four special ones
    is_letter = (ids >= 4) & (ids < 4 + len(LETTERS)) & mask
    return is_letter.sum(axis=1).astype(np.float32)

  warp.train(
    reading.load(base, head='lm'),
    rewards.HostScorer(letters_of),
    base.config,
    encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32)),
    exports.tokenizer,
    config,
    folder=work,
    seed=1,
    runtime=runtime,
  )
  written = {
    name: checkpoint.load_params(work / 'iteration_1' / name)
    for name in ('init', 'members', 'merged', 'next')
  }
  stack = written.pop('members')
  for m in range(num_members):
    written[f'member_{m}'] = jax.tree.map(lambda x, m=m: x[m], stack)
  names = {name: f'warp/{family}/{name}' for name in written}
  for name, params in written.items():
    exports.save(names[name], params, base.config, base=base)
  members = [names.pop(f'member_{m}') for m in range(num_members)]
  return names | {'members': members, 'eta': ETA}


def make_rows(style: str) -> list[dict]:
  """Pairs as users bring them: plain, turns, or as RewardBench has them."""
  rng = np.random.default_rng(5)

  def text():
    return ' '.join(rng.choice(LETTERS, rng.integers(2, 8)))

  rows = []
  for _ in range(NUM_PAIRS):
    prompt, chosen, rejected = text(), ' ' + text(), ' ' + text()
    if style != 'plain':
      asked = [{'role': 'user', 'content': prompt}]
      chosen, rejected = (
        [{'role': 'assistant', 'content': x.strip()}]
        for x in (chosen, rejected)
      )
    if style == 'turns':
      prompt = asked
    elif style == 'rewardbench':
      chosen, rejected = asked + chosen, asked + rejected
    rows.append({'prompt': prompt, 'chosen': chosen, 'rejected': rejected})
  return rows


def score_rows(exports: Exports, style: str, names: list[str]) -> dict:
  """Writes rows to a file, and what `warm score` makes of it."""
  path = exports.out / f'{style}.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n' for r in make_rows(style)))
  folder = exports.out / 'exports'
  scores = {name: scored(folder / name, path) for name in names}
  return {'data': path.name, 'scores': scores}


def scored(model: pathlib.Path, data: pathlib.Path) -> dict:
  """What `warm score` makes of the pairs of a file."""
  out = data.with_name('scored.jsonl')
  run('score', f'--model={model}', f'--data={data}', f'--out={out}')
  got = [json.loads(line) for line in out.read_text().splitlines()]
  out.unlink()
  assert not any(row.get('error') for row in got), got
  return {
    side: [row[f'score_{side}'] for row in got]
    for side in ('chosen', 'rejected')
  }


def write_json(path: pathlib.Path, value):
  path.write_text(json.dumps(value, indent=1) + '\n')


def run_all():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  out = args.out.resolve()
  jax.config.update('jax_default_matmul_precision', 'highest')
  for name in ('exports', 'ours', 'tokenizer', 'tokenizer_qwen'):
    shutil.rmtree(out / name, ignore_errors=True)
  (out / 'measured.jsonl').unlink(missing_ok=True)
  odd = json.loads((out / 'odd' / 'odd.json').read_text())
  for name in odd['same'] + odd['hard']:
    import_odd(out / 'odd' / name)
  judges = out / 'judges'
  ours = {}
  for name in json.loads((judges / 'judges.json').read_text()):
    kind, style = name.split('/')
    ours[name] = scored(judges / kind, judges / f'{style}.jsonl')
  write_json(judges / 'ours.json', ours)
  exports = Exports(out)
  merges = {family: export_family(exports, family) for family in FAMILIES}
  for name, config in SCRATCH.items():
    export_scratch(exports, name, config)
  base = reading.inspect(FIXTURES / 'llama3' / 'reward')
  params = reading.load(base, head='score')
  for name, options in (
    ('llama3/sharded', {'max_shard_bytes': 9e3}),
    ('llama3/bfloat16', {'dtype': 'bfloat16'}),
  ):
    exports.reward(name, params, base.config, base=base, **options)
  base = reading.inspect(FIXTURES / 'llama' / 'reward')
  params = reading.load(base, head='score')
  frame = {'prompt_template': 'q {prompt} r'}
  exports.reward('llama/framed', params, base.config, base=base, **frame)
  write_json(out / 'exports.json', exports.index)
  write_json(out / 'merges.json', merges)
  write_json(
    out / 'pairs.json', {'pairs': exports.pairs, 'losses': exports.losses}
  )
  some = ['llama/warm', 'gpt_neox/warm', 'gpt2/warm', 'qwen2/warm']
  some.append('scratch_llama/reward')
  for style in ('plain', 'turns'):
    write_json(out / f'{style}.json', score_rows(exports, style, some))
  framed = score_rows(exports, 'plain', ['llama/framed'])
  write_json(out / 'framed.json', framed)
  # GPT-2's positions are not shifted under RewardBench's left padding, and its
  # version of transformers does not know Gemma3TextForSequenceClassification.
  names = [f'{f}/warm' for f in FAMILIES if f not in ('gpt2', 'gemma3_text')]
  names.append('scratch_llama/reward')
  write_json(
    out / 'rewardbench.json', score_rows(exports, 'rewardbench', names)
  )
  warp_facts = {f: export_warp(exports, f, m) for f, m in WARP_MEMBERS.items()}
  write_json(out / 'warp.json', warp_facts)
  print(f'{sum(map(len, exports.index.values()))} exports in {out}')


if __name__ == '__main__':
  run_all()

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The sections of a config: defaults, allowed values and meaning of each field.

`section` makes one, with the defaults of the toy world; `validate` checks a
config by the same tables, and `warm --config=X --help` prints them.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections

from warm_jax import errors, merging
from warm_jax.models import config as model_config


class Rule(NamedTuple):
  """Allowed values of a field."""

  text: str
  holds: Callable[[Any], bool]


def choice(*values) -> Rule:
  """Allows the given values."""
  return Rule(f'one of {", ".join(map(repr, values))}', lambda v: v in values)


def each(rule: Rule, least: int = 1) -> Rule:
  """Allows tuples of `least` or more values that `rule` allows."""
  return Rule(
    f'a tuple of {least} or more, each {rule.text}',
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) >= least
      and all(map(rule.holds, v))
    ),
  )


def whole(least: int) -> Rule:
  """Allows whole numbers, and not bool, which isinstance would take."""
  text = f'a whole number of at least {least}'
  return Rule(text, lambda v: type(v) is int and v >= least)


def real(text: str, holds: Callable[[float], bool]) -> Rule:
  """Allows numbers that are `text`."""
  return Rule(
    f'a number {text}', lambda v: type(v) in (int, float) and holds(v)
  )


ANY = Rule('', lambda v: True)
TEXT = Rule('a text', lambda v: isinstance(v, str))
SWITCH = Rule('True or False', lambda v: isinstance(v, bool))
COUNT, SIZE, TWO = map(whole, range(3))
FROM_0 = real('of at least 0', lambda v: 0 <= v < math.inf)
ABOVE_0 = real('above 0', lambda v: 0 < v < math.inf)
BELOW_1 = real('in [0, 1)', lambda v: 0 <= v < 1)
BELOW_HALF = real('in [0, 0.5)', lambda v: 0 <= v < 0.5)
SHARE = real('in [0, 1]', lambda v: 0 <= v <= 1)
STEP = real('in (0, 1]', lambda v: 0 < v <= 1)
MESH = Rule(
  'three whole numbers of at least 1, of which one may be -1',
  lambda v: (
    isinstance(v, (tuple, list))
    and len(v) == 3
    and all(type(n) is int and (n > 0 or n == -1) for n in v)
    and list(v).count(-1) <= 1
  ),
)
PROMPT = Rule(
  "a text with '{prompt}' in it, once",
  lambda v: isinstance(v, str) and v.count('{prompt}') == 1,
)
DTYPE = choice('float32', 'bfloat16')
SCHEDULE = choice('constant', 'linear', 'cosine')
MAP = choice('auto', 'vmap', 'scan')
NONFINITE = choice('stop', 'drop_member')
OVERLONG = choice('filter', 'truncate')
STYLE = choice('', 'chat', 'plain')
ANCHOR = choice('sft', 'ema')
BASELINE = choice('value', 'leave_one_out')
# With `control`, the names of stages.scorers.MEANING.
_SCORERS = 'single', 'second', 'ens_2', 'warm_2'
_SCORERS += *merging.ENSEMBLES, *merging.SCORERS
SCORER, CLIMBED = choice(*_SCORERS), choice('member', *_SCORERS)
MERGES = [n for n, m in merging.METHODS.items() if {*m.needs} <= {'init'}]
# Where metrics may go: the package, and the extra that installs it.
WRITERS = {'tensorboard': ('tensorboardX', 'tb'), 'wandb': ('wandb', 'wandb')}

# {section: {field: (default, allowed values, meaning)}}. A default is a value, a
# function of the fields before it, GIVEN by whoever makes the section, or EXTRA:
# the field is there only if it is given.
GIVEN, EXTRA = object(), object()
STEPS = GIVEN, SIZE, 'Number of updates.'
BATCH = 64, SIZE, 'Rows of an update, on all devices together.'
SAVE = 100, COUNT, 'Steps between checkpoints; 0: none.'
RATE = 5e-4, ABOVE_0, 'Peak learning rate.'
TEMPERATURE = 1.0, ABOVE_0, 'Sampling temperature.'
PROMPTS = GIVEN, SIZE, 'Prompts that policies are judged on.'
ETAS = EXTRA, each(FROM_0), 'Points between start and merge.'
MICRO = 1, SIZE, 'Parts of a batch, one at a time (gradient accumulation).'
DROPOUT = 0.0, BELOW_1, 'Share of activations that is dropped.'
SMOOTHING = 0.0, BELOW_HALF, 'Share of the opposite label.'
NEW_TOKENS = 16, SIZE, 'Tokens of the longest sample.'
RESAMPLES = 1_000, SIZE, 'Bootstrap resamples of an interval.'
SWAPPED = 0.0, SHARE, 'Share of training labels to swap (experiments).'
COMPUTE = 'float32', DTYPE, 'Dtype of activations; bfloat16 on accelerators.'
REMAT = False, SWITCH, 'Recompute layers backward (gradient checkpointing).'
FIT = 1e-3, FROM_0, 'Penalty on the first head.'
DECAYED = {'weight_decay': 0.01}

_TRAINING = {
  'steps': STEPS,
  'batch_size': (32, *BATCH[1:]),
  'micro_batches': MICRO,
  'learning_rate': RATE,
  'dropout_rate': DROPOUT,
  'checkpoint_every': SAVE,
  'optimizer': {},
}
_LANGUAGE = _TRAINING | {
  'keep_steps': (lambda s: (s['steps'],), each(SIZE), 'Steps to keep.'),
  'loss_on': ('response', choice('all', 'response'), 'Tokens to learn.'),
}
_POLICY = {
  'steps': STEPS,
  'eval_every': (GIVEN, SIZE, 'Steps between kept policies.'),
  'batch_size': BATCH,
  'micro_batches': MICRO,
  'samples_per_prompt': (1, SIZE, 'Samples of one prompt in a batch.'),
  'baseline': ('value', BASELINE, 'Value model, or the other samples.'),
  'temperature': (0.9, *TEMPERATURE[1:]),
  'max_new_tokens': NEW_TOKENS,
  'kl_coef': (0.02, FROM_0, 'Weight of the KL in the reward (beta).'),
  'anchor': ('sft', ANCHOR, 'KL to the start, or an average (set max_kl).'),
  'mu': (0.01, STEP, 'Step of the moving average.'),
  'max_kl': (0.0, FROM_0, 'Nats from the start where a policy stops; 0: none.'),
  'missing_eos_penalty': (1.0, FROM_0, 'Subtracted if a sample has no EOS.'),
  'learning_rate': (2e-4, *RATE[1:]),
  'value_learning_rate': (1e-3, ABOVE_0, 'Peak rate of the value model.'),
  'checkpoint_every': (60, *SAVE[1:]),
  'optimizer': {'schedule': 'constant'},
  'rewards': (EXTRA, each(CLIMBED), 'Reward models; member: another per seed.'),
  'seeds': (EXTRA, SIZE, 'Policies of each of the rewards.'),
  'aggregate': (EXTRA, choice(*merging.AGGREGATES), 'How rewards combine.'),
  'num_reference': (EXTRA, SIZE, 'Samples that set the scale of the reward.'),
}

SECTIONS: dict[str, dict[str, Any]] = {
  '': {
    'seed': (0, COUNT, 'Random seed of the run.'),
    'model': ('', TEXT, 'Hugging Face checkpoint: folder or hub id.'),
    'reward_model': ('', TEXT, 'Reward model: folders, or a work directory.'),
    'control_model': ('', TEXT, 'Reward model that judges but does not train.'),
    'witness_model': ('', TEXT, 'Held out of the reward, to judge its gain.'),
  },
  'runtime': {
    'member_map': ('auto', MAP, 'Members at once, or one by one as on CPUs.'),
    'mesh': ((1, 1, 1), MESH, 'Devices of member, data, model; -1: the rest.'),
    'compile_cache': ('', TEXT, "Folder of compiled programs, or 'off'."),
    'memory_gb': (0.0, FROM_0, 'Memory of a device to use; 0: all.'),
    'progress': (True, SWITCH, 'Show the progress of loops.'),
    'report_to': ('', choice('', *WRITERS), 'Also write metrics there.'),
  },
  'base': {'compute_dtype': COMPUTE, 'remat': REMAT},
  # ModelConfig checks these, and takes more of them.
  'model': {
    'width': (GIVEN, ANY, 'Width of the residual stream.'),
    'num_layers': (GIVEN, ANY, 'Transformer blocks.'),
    'num_heads': (GIVEN, ANY, 'Attention heads.'),
    'mlp_width': (lambda s: 4 * s['width'], ANY, 'Width of the hidden layer.'),
    'mlp': ('plain', ANY, "'plain' or 'gated'."),
    'activation': ('gelu_tanh', ANY, 'silu, gelu, gelu_tanh or relu.'),
    'position': ('rotary', ANY, "'rotary' or 'learned'."),
    'rope_theta': (100.0, ANY, 'Base of the wavelengths; fits 40 tokens.'),
    'compute_dtype': COMPUTE,
    'remat': REMAT,
  },
  'optimizer': {
    'name': ('adamw', choice('adam', 'adamw'), 'Update rule.'),
    'b1': (0.9, BELOW_1, 'Decay of the first moment.'),
    'b2': (0.98, BELOW_1, 'Decay of the second moment.'),
    'eps': (1e-8, ABOVE_0, 'Added to the root of the second moment.'),
    'weight_decay': (0.0, FROM_0, 'Decoupled, times the rate.'),
    'clip_norm': (1.0, FROM_0, 'Largest norm of a gradient; 0: any.'),
    'schedule': ('cosine', SCHEDULE, 'Shape of the learning rate.'),
    'warmup_steps': (20, COUNT, 'Updates until the peak.'),
    'final_fraction': (0.1, SHARE, 'Share of the peak left at the end.'),
  },
  'data': {
    'train': ('', TEXT, '.jsonl, .json, .csv, .parquet, tfds:... or hf:...'),
    'columns': ('', TEXT, 'Names in the files: prompt=question,margin=gap.'),
    'selection': ('', TEXT, 'Pairs that rank members; empty: a part of train.'),
    'test': ('', TEXT, 'Held-out rows; empty: a part of train.'),
    'ood': ('', TEXT, 'Pairs of another distribution; optional.'),
    'sft': ((), each(TEXT, 0), 'Texts to fine-tune on; empty: as preferred.'),
    'pretrain': (EXTRA, each(TEXT, 0), 'Texts to pretrain on; empty: as sft.'),
    'labeler': ('', TEXT, 'Field of train; members learn from own labelers.'),
    'selection_fraction': (0.1, SHARE, 'Share of train, without selection.'),
    'test_fraction': (0.1, SHARE, 'Share of train, without test.'),
    'max_pairs': (0, COUNT, 'Random sample of each split; 0: all.'),
    'swapped': SWAPPED,
    'prompt_template': ('{prompt}\n', PROMPT, 'How plain prompts are written.'),
    'format': ('', STYLE, 'Plain prompts as chats, or chats as plain text.'),
    'chat_template': ('', TEXT, "File of one; empty: the tokenizer's."),
    'append_eos': ('', choice('', 'true', 'false'), 'What judges end with.'),
    'max_length': (512, SIZE, 'Tokens of a prompt with its response.'),
    'vocab_size': (EXTRA, SIZE, 'Size of the tokenizer to train.'),
    'overlong': ('filter', OVERLONG, 'What happens to longer rows.'),
    'max_rejected': (0.05, SHARE, 'Share of unusable rows that stops the run.'),
  },
  'world': {
    'name': (EXTRA, choice('old', 'covered'), 'Rules of the toy world.'),
    'num_facts': (EXTRA, each(SIZE), 'Facts of a post.'),
    'num_pretrain': (EXTRA, SIZE, 'Texts for pretraining.'),
    'num_sft': (EXTRA, SIZE, 'Texts of the better writers.'),
    'num_prompts': (EXTRA, SIZE, 'Posts that policies train on.'),
    'num_eval_prompts': (EXTRA, SIZE, 'Posts for evaluation.'),
  },
  'pretrain': _LANGUAGE,
  'sft': {'enabled': (True, SWITCH, 'False: the model is fine-tuned already.')}
  | _LANGUAGE
  | {
    'dropout_rate': (0.05, *DROPOUT[1:]),
    'optimizer': {'schedule': 'constant'} | DECAYED,
  },
  'preferences': {
    'num_train': (EXTRA, SIZE, 'Pairs to train on.'),
    'num_selection': (EXTRA, SIZE, 'Pairs that rank members.'),
    'num_test': (EXTRA, SIZE, 'Held-out pairs.'),
    'num_ood': (EXTRA, SIZE, 'Pairs of other policies.'),
    'num_control': (EXTRA, SIZE, 'Pairs for the control model.'),
    'temperature': (EXTRA, *TEMPERATURE[1:]),
    'ood_temperature': (EXTRA, ABOVE_0, 'Temperature of the hotter policy.'),
    'max_new_tokens': (EXTRA, *NEW_TOKENS[1:]),
    'sharpness': (EXTRA, FROM_0, 'Sharpness of the annotators.'),
    'length_cue': (EXTRA, ANY, 'What annotators add per word.'),
    'swapped': (EXTRA, *SWAPPED[1:]),
    'selection_swapped': (EXTRA, SHARE, 'The same of the selection split.'),
    'pools': (EXTRA, SIZE, 'Pools of annotators; member m learns m % pools.'),
    'shared_errors': (EXTRA, SHARE, 'Share of likes, coins and swaps of all.'),
    'tuned': (EXTRA, ANY, ''),
  },
  'preferences.tuned': _POLICY,
  'control': {
    'model': {'width': 64, 'num_layers': 2, 'num_heads': 4},
    'probe_l2': FIT,
    'pretrain': {'steps': 600},
    'reward': {'steps': 400},
  },
  'control.reward': _TRAINING
  | {'label_smoothing': SMOOTHING, 'optimizer': DECAYED},
  'probe': {'l2': FIT},
  'reward': {
    'members': (GIVEN, SIZE, 'Reward models; 0:3 trains only members 0, 1, 2.'),
    'member_slice': ('', TEXT, 'Set by --config.reward.members=FIRST:END.'),
    'on_nonfinite': ('stop', NONFINITE, 'If a loss or update is not finite.'),
    'max_loss': (100.0, FROM_0, 'A member above it has gone bad; 0: no limit.'),
    'steps': STEPS,
    'batch_size': BATCH,
    'micro_batches': MICRO,
    'learning_rates': ((5e-4, 1e-3, 2e-3), each(ABOVE_0), 'Dealt to members.'),
    'dropout_rates': ((0.05, 0.1), each(BELOW_1), 'Dealt to members.'),
    'sft_checkpoints': ((0, 1, 2), each(COUNT), 'Indices of sft.keep_steps.'),
    'labels': (
      EXTRA,
      choice('own', 'drawn', 'all'),
      'Own pool, one drawn for each pair, or all.',
    ),
    'same_order': (False, SWITCH, 'One order of the data for all members.'),
    'label_smoothing': SMOOTHING,
    'checkpoint_every': SAVE,
    'optimizer': DECAYED,
  },
  'merge': {
    'num_lambdas': (11, TWO, 'Points between two members.'),
    'num_path_pairs': (1_000, SIZE, 'Pairs scored at each point.'),
    'num_train_pairs': (1_500, SIZE, 'Training pairs that are scored.'),
    'weight_temperature': (0.01, ABOVE_0, 'Softmax temperature of accuracies.'),
  },
  'best_of_n': {
    'scorers': (GIVEN, each(SCORER), 'Reward models that choose.'),
    'num_samples': (32, SIZE, 'Samples of each prompt: the largest N.'),
    'num_prompts': (300, SIZE, 'Number of prompts.'),
    'num_bootstrap': RESAMPLES,
    'temperature': TEMPERATURE,
    'max_new_tokens': NEW_TOKENS,
  },
  'policy': _POLICY,
  'warp': {
    'iterations': (GIVEN, SIZE, 'Rounds of training and merging.'),
    'steps': (GIVEN, each(SIZE), 'Updates of each iteration.'),
    'kl_coefs': (GIVEN, each(FROM_0), 'Weight of the KL in each iteration.'),
    **{k: v for k, v in _POLICY.items() if k not in ('steps', 'kl_coef')},
    'baseline': ('leave_one_out', *_POLICY['baseline'][1:]),
    'samples_per_prompt': (4, *_POLICY['samples_per_prompt'][1:]),
    'anchor': ('ema', choice('ema', 'init', 'sft'), 'What the KL is taken to.'),
    'max_kl': (12.0, *_POLICY['max_kl'][1:]),
    'members': (2, SIZE, 'Policies of an iteration.'),
    'etas': ((0.3,), each(FROM_0), 'Share of the merge in the next start.'),
    'merge': ('slerp', choice(*MERGES), 'Merging method.'),
    'group': ('layer', choice(*merging.GROUPS), 'Parts that share an angle.'),
    'reward': (EXTRA, SCORER, 'The reward model.'),
  },
  'reinforce': {
    'kl_coef': (0.1, *_POLICY['kl_coef'][1:]),
    'eval_every': (30, *_POLICY['eval_every'][1:]),
  },
  'evaluate': {
    'num_prompts': PROMPTS,
    'num_bootstrap': (EXTRA, *RESAMPLES[1:]),
    'kl_targets': (EXTRA, each(FROM_0), 'KL at which policies are compared.'),
    'etas': ETAS,
  },
  'fronts': {
    'num_prompts': (256, *PROMPTS[1:]),
    'num_samples': (2, SIZE, 'Samples of each prompt; likeness needs two.'),
    'etas': ((0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.3), *ETAS[1:]),
    'max_kl': (3.0, ABOVE_0, 'Fronts are averaged up to this KL.'),
    'num_bootstrap': RESAMPLES,
  },
  'export': {
    'dtype': ('float32', DTYPE, 'bfloat16 loses part of what a merge changed.'),
    'max_shard_gb': (5.0, ABOVE_0, 'Larger models are cut into files.'),
    'merged': (EXTRA, each(choice(*merging.SCORERS)), 'Merges to write.'),
    'include_members': (EXTRA, SWITCH, 'Write the members, too.'),
    'also_steps': (EXTRA, each(COUNT, 0), 'Kept policies beside the last.'),
    'etas': ETAS,
  },
}


def section(name: str, /, *given, **more) -> ml_collections.ConfigDict:
  """A section with its defaults; *given are its GIVEN fields, in order."""
  rows, config = SECTIONS[name], {}
  more |= zip([f for f, row in rows.items() if GIVEN in row], given)
  for field in more.keys() - rows.keys():
    hint = nearest(field, rows)
    raise errors.UserError(f'section {name} has no field {field!r}{hint}')
  for field, row in rows.items():
    if field in more:
      config[field] = more[field]
    elif isinstance(row, dict):
      path = f'{name}.{field}'
      config[field] = section(path if path in SECTIONS else field, **row)
    elif row[0] is not EXTRA:
      missing = f'section {name} needs the field {field}'
      errors.need(row[0] is not GIVEN, missing)
      config[field] = row[0](config) if callable(row[0]) else row[0]
  return ml_collections.ConfigDict(config)


def flatten(tree, prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}; an empty section stays as a leaf."""
  out = {}
  for key, value in tree.items():
    if hasattr(value, 'items') and len(value):
      out |= flatten(value, f'{prefix}{key}.')
    else:
      out[prefix + key] = value
  return out


# {path: row}; sections inside of others have rows by their own name.
ROWS = {
  f'{name}.{field}'.lstrip('.'): row
  for name, rows in SECTIONS.items()
  for field, row in rows.items()
  if isinstance(row, tuple)
}


def fields(config):
  """Yields (path, value, rule, meaning) for the fields of a config."""
  for path, value in flatten(config).items():
    inner = '.'.join(path.split('.')[-2:])
    yield path, value, *ROWS.get(path, ROWS.get(inner, (None, ANY, '')))[1:]


def described(config) -> str:
  """Lists all fields: the value, its meaning, and the allowed values."""
  out = ''
  for path, value, rule, meaning in fields(config):
    if not hasattr(value, 'items'):  # an empty section has no fields
      allowed = f' [{rule.text}]' * bool(rule.text)
      out += f'--config.{path}={value!r}\n      {meaning}{allowed}\n'
  return out


def validate(config) -> None:
  """Raises one UserError with all values that cannot work, a clause each.

  Whole numbers in tuples of fractions become floats.
  """
  wrong: list[str] = []
  parts: dict[str, dict[str, Any]] = {}
  for path, value, rule, _ in fields(config):
    name, _, field = path.rpartition('.')
    parts.setdefault(name, {})[field] = value
    if value is not None and not rule.holds(value):
      wrong.append(f'config.{path} is {value!r}: it must be {rule.text}')
    # ml_collections makes whole numbers floats, but not in tuples.
    elif rule is not ANY and isinstance(value, tuple) and rule.holds((0.5,)):
      config.update_from_flattened_dict({path: tuple(map(float, value))})
  for name in parts.keys() & {'model', 'control.model'}:
    # The vocabulary and the longest text may be known only from the data.
    shape = {k: v for k, v in parts[name].items() if v is not None}
    try:
      model_config.ModelConfig(**{'vocab_size': 2, 'max_length': 2} | shape)
    except (errors.UserError, TypeError) as e:
      wrong.append(f'config.{name}: {str(e).split("__init__() ")[-1]}')
  # Only values that are fine one by one are worth comparing.
  errors.need(not wrong, '; '.join(wrong))

  context = parts.get('data', {}).get('max_length', math.inf)
  for name, part in parts.items():
    here, get = f'config.{name}.', part.get
    steps, keep = get('steps'), get('keep_steps')
    if keep and steps and ([*keep] != sorted({*keep}) or keep[-1] != steps):
      kept = tuple(sorted({-(-steps * k // max(keep)) for k in keep}))
      wrong.append(
        f'{here}keep_steps is {tuple(keep)!r}: it must rise and end at '
        f'{here}steps={steps}, such as --{here}keep_steps="{kept!r}"'
      )
    if isinstance(steps, (tuple, list)):  # one for each iteration
      steps = min(steps[: get('iterations')])
    warmup = parts.get(f'{name}.optimizer', {}).get('warmup_steps', 0)
    if steps and warmup > steps:
      limit = f'it must not exceed {here}steps={steps}'
      wrong.append(f'{here}optimizer.warmup_steps is {warmup}: {limit}')
    per_prompt = get('samples_per_prompt', 1)
    if get('baseline') == 'leave_one_out' and per_prompt < 2:
      needs = f'it needs {here}samples_per_prompt of at least 2'
      wrong.append(f"{here}baseline is 'leave_one_out': {needs}")
    units = per_prompt * get('micro_batches', 1)
    if (size := get('batch_size', 0)) % units:
      wrong.append(
        f'{here}batch_size is {size}: it must be a multiple of '
        f'{here}micro_batches (times samples_per_prompt), {units}'
      )
    if name and get('seeds', 1) > 1 and 'rewards' not in part:
      wrong.append(f'{here}seeds is {get("seeds")}: it needs {here}rewards')
    if (new := get('max_new_tokens', 0)) >= context:
      room = f'room for a prompt in config.data.max_length={context}'
      wrong.append(f'{here}max_new_tokens is {new}: it must leave {room}')
  starts = parts.get('reward', {}).get('sft_checkpoints', ())
  sft = parts.get('sft', {})
  kept = sft.get('keep_steps') or starts
  if parts.get('data', {}).get('labeler') and 'reward' not in parts:
    wrong.append(
      'config.data.labeler is set, but this run trains no reward models'
    )
  if starts and kept is not starts and max(starts) >= len(kept):
    there = f'config.sft.keep_steps keeps {len(kept)}, numbered from 0'
    wrong.append(f'config.reward.sft_checkpoints is {tuple(starts)!r}: {there}')
  texts = parts.get('data', {}).get('sft')
  if texts and not (starts and sft.get('enabled', bool(sft))):
    wrong.append(
      f'config.data.sft is {tuple(texts)!r}, but nothing is fine-tuned on it: '
      'it needs a section reward, and config.sft.enabled=True'
    )
  member_slice(config)  # raises
  errors.need(not wrong, '; '.join(wrong))


def member_slice(config) -> tuple[int, int] | None:
  """(first, end) of the members that a run trains; None: all of them."""
  reward = config.get('reward', {})
  text, most = reward.get('member_slice', ''), reward.get('members', 0)
  first, _, end = text.partition(':')
  is_slice = first.isdecimal() and end.isdecimal()
  errors.need(
    not text or is_slice and int(first) < int(end) <= most,
    f'--config.reward.members={text}: it must be FIRST:END with FIRST below '
    f'END, at most the number of members, {most}; they are numbered from 0',
  )
  return (int(first), int(end)) if text else None


def plain(config) -> dict[str, Any]:
  """Converts a config to nested dicts of JSON values, to write and compare."""
  return json.loads(config.to_json_best_effort())


# What TRL calls a field, or we called it before: our name, and what differs.
SYNONYMS = {
  theirs: ours
  for names, ours in {
    'kind': '(it went: the sections of a config decide its stages)',
    'tensorboard wandb': 'report_to (tensorboard or wandb)',
    'lora lora_r lora_alpha lora_rank lora_dropout use_lora use_peft peft': (
      '(LoRA members are not trained; adapters are read: docs/your_data.md)'
    ),
    'load_in_4bit load_in_8bit': '(weights are not quantised)',
    'attn_implementation': '(the device decides how attention is computed)',
    'deepspeed fsdp': '(runtime.mesh divides the work among devices)',
    'packing': '(rows are not packed: each stands alone in its batch)',
    'optim': '(each stage has optimizer.name: adam or adamw)',
    'top_p top_k': '(samples are drawn from all tokens; see temperature)',
    'logging_steps': '(there is no such setting; metrics are always written)',
    'eval_strategy': '(evaluation is a stage; policies have eval_every)',
    'num_train_epochs num_epochs epochs': 'steps (counted in updates)',
    'max_steps': 'steps',
    'per_device_train_batch_size': 'batch_size (of all devices together)',
    'gradient_accumulation_steps': 'micro_batches (parts of batch_size)',
    'gradient_checkpointing': 'remat',
    'bf16': 'compute_dtype (bfloat16)',
    'fp16': 'compute_dtype (bfloat16; there is no float16)',
    'torch_dtype': 'compute_dtype',
    'max_seq_length': 'max_length',
    'max_completion_length response_length': 'max_new_tokens',
    'beta': 'kl_coef',
    'num_generations': 'samples_per_prompt',
    'learning_rate lr': 'learning_rates (a tuple for members, else a number)',
    'lr_scheduler_type': 'schedule',
    'warmup_ratio': 'warmup_steps (counted in updates)',
    'max_grad_norm': 'clip_norm',
    'adam_beta1': 'b1',
    'adam_beta2': 'b2',
    'adam_epsilon': 'eps',
    'save_steps': 'checkpoint_every',
    'eval_steps': 'eval_every',
    'model_name_or_path': 'model',
    'reward_model_path': 'reward_model (a field of configs policy)',
    'dataset_name': 'train (a file, or hf:FOLDER of a saved data set)',
    'output_dir': '--workdir',
    'resume_from_checkpoint': '--workdir (the same command continues)',
  }.items()
  for theirs in names.split()
}


def nearest(name: str, known: Iterable[str]) -> str:
  """A hint for an unknown dotted name: '; did you mean ...?', or ''."""
  known, last = list(known), name.rpartition('.')[2]
  said = SYNONYMS.get(name.partition('.')[0]) or SYNONYMS.get(last, '')
  ours, _, note = said.partition(' ')
  if ours.startswith('('):
    return f'; {ours} {note}'
  alike = ours, ours.removesuffix('s')  # one model has a learning_rate
  found = [k for k in known if k.rpartition('.')[2] in alike]
  own = [k for k in found if k.startswith(name.split('.')[0] + '.')]
  if found or ours.startswith('--'):
    where = ', '.join((own or found)[:3]) or ours
    return f'; here that is {where} {note}'.rstrip()
  if ours:
    return f'; that would be {ours}, which is not here {note}'.rstrip()
  # A field of its section, or of another one.
  ends = {k.rpartition('.')[2]: k for k in reversed(known)}
  found = difflib.get_close_matches(name, known, n=1)
  found += [ends[x] for x in difflib.get_close_matches(last, ends, n=1)]
  return f'; did you mean {found[0]}?' if found else ''


def parse_arg(arg: str, **defaults) -> ml_collections.ConfigDict:
  """Reads the text after ':' in --config=FILE.py:TEXT.

  'small,members=4' with small=False, members=6 gives small=True, members=4.
  """
  out = ml_collections.ConfigDict(defaults)
  switch = {'': True, 'true': True, 'false': False}
  for part in filter(None, map(str.strip, arg.split(','))):
    name, _, text = part.partition('=')
    if name not in defaults:
      hint = (
        f'{nearest(name, defaults)}; known: {", ".join(defaults) or "none"}'
      )
      raise errors.UserError(f'unknown config argument {name!r}{hint}')
    kind = type(defaults[name])
    try:
      out[name] = switch[text.lower()] if kind is bool else kind(text)
    except (KeyError, TypeError, ValueError):
      form = f'expected {name}=<{kind.__name__}>'
      raise errors.UserError(f'config argument {part!r}: {form}') from None
  return out

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Config values, checked before anything starts; names, matched to fields.

One table maps patterns of field paths to what their values must be. A pattern
is matched against the dotted path (`reward.num_epochs`); the first that fits
decides, so exceptions stand above the general rules. Tuples are checked entry
by entry, None (an unset optional) passes. What fields say to one another is
checked after that, in `_conflicts`.
"""

import dataclasses
import difflib
import fnmatch
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from warm_jax import errors
from warm_jax.models import config as model_config


@dataclasses.dataclass(frozen=True)
class Rule:
  """Values of fields whose path fits a pattern must pass a predicate.

  Attributes:
    patterns: fnmatch patterns; '*' also crosses dots.
    holds: predicate of one value.
    must: what it must be, for the message; a function if that imports much.
  """

  patterns: tuple[str, ...]
  holds: Callable[[Any], bool]
  must: str | Callable[[], str]


def _number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(least):
  def holds(value):
    return _number(value) and value == int(value) and value >= least

  return holds, f'a whole number of at least {least}'


def _between(low, high, *, open_low=False, open_high=False):
  def holds(value):
    return (
      _number(value)
      and (value > low if open_low else value >= low)
      and (value < high if open_high else value <= high)
    )

  left, right = '(' if open_low else '[', ')' if open_high else ']'
  return holds, f'a number in {left}{low:g}, {high:g}{right}'


def _at_least(low, *, is_open=False):
  def holds(value):
    return _number(value) and (value > low if is_open else value >= low)

  return holds, f'a number {"above" if is_open else "of at least"} {low:g}'


def _one_of(*choices):
  return (lambda v: v in choices), f'one of {", ".join(map(repr, choices))}'


def _one_of_merges(names: Callable[[Any], Iterable[str]]):
  """One of the names that `merging` lists; it is imported when asked."""

  def choices():
    from warm_jax import merging

    return _one_of(*names(merging))

  return (lambda v: choices()[0](v)), (lambda: choices()[1])


def _rule(patterns: str, check) -> Rule:
  return Rule(tuple(patterns.split()), *check)


_HOLDS_PROMPT = (
  (lambda v: isinstance(v, str) and v.count('{prompt}') == 1),
  "a text with '{prompt}' in it, once",
)

_MESH_AXIS = (
  (lambda v: _number(v) and (v == -1 or (v == int(v) and v >= 1))),
  'whole numbers of at least 1, or one -1',
)

# With merging.SCORERS the names of stages.scorers.MEANING, which imports jax; a
# test compares them.
SCORERS = ('single', 'second', 'ens', 'ens_2', 'min', 'uncertainty', 'warm_2')

NOT_EMPTY = (
  *('*_rates', '*.keep_steps', '*.sft_checkpoints'),
  *('policy.rewards', 'best_of_n.scorers'),
  *('warp.steps', 'warp.kl_coefs', 'warp.etas', 'fronts.etas'),
)

RULES: tuple[Rule, ...] = (
  # Sections of the model are checked by ModelConfig itself.
  _rule('*.optimizer.name', _one_of('adam', 'adamw')),
  _rule('*.optimizer.schedule', _one_of('constant', 'linear', 'cosine')),
  _rule('*.optimizer.b1 *.optimizer.b2', _between(0, 1, open_high=True)),
  _rule('*.optimizer.eps', _at_least(0, is_open=True)),
  _rule('*.optimizer.weight_decay *.optimizer.clip_norm', _at_least(0)),
  _rule('*.optimizer.warmup_steps', _whole(0)),
  _rule('runtime.member_map', _one_of('auto', 'vmap', 'scan')),
  _rule('runtime.mesh', _MESH_AXIS),
  _rule('runtime.memory_gb', _at_least(0)),
  _rule('*.micro_batches', _whole(1)),
  _rule('seed *.seed *_seed *_seeds', _whole(0)),
  _rule('*.loss_on', _one_of('all', 'response')),
  _rule('*.baseline', _one_of('value', 'leave_one_out')),
  _rule(
    '*.rewards *.scorers warp.reward',
    _one_of_merges(lambda m: (*SCORERS, *m.SCORERS)),
  ),
  _rule('*.swapped', _between(0, 1)),
  _rule('export.dtype *.compute_dtype', _one_of('float32', 'bfloat16')),
  _rule('export.merged', _one_of_merges(lambda m: m.SCORERS)),
  _rule('export.max_shard_gb', _at_least(0, is_open=True)),
  _rule('*.also_steps', _whole(0)),
  _rule('*.aggregate', _one_of('mean', 'min', 'uncertainty')),
  _rule('*.overlong', _one_of('filter', 'truncate')),
  _rule('*.max_rejected', _between(0, 1)),
  _rule('*.prompt_template', _HOLDS_PROMPT),
  _rule('*.num_lambdas', _whole(2)),
  _rule('*.max_pairs *.checkpoint_every', _whole(0)),
  _rule('*.eval_every *.keep_steps *.samples_per_prompt', _whole(1)),
  _rule('*.sft_checkpoints', _whole(0)),
  _rule('*.kl_targets *.sharpness *_penalty *.l2 *_l2', _at_least(0)),
  _rule('reward.on_nonfinite', _one_of('stop', 'drop_member')),
  _rule('reward.max_loss', _at_least(0)),
  _rule('*.members *.num_samples *.batch_size *_batch_size', _whole(1)),
  _rule('*.max_new_tokens *.max_length *.max_*_length', _whole(1)),
  _rule('*.every_steps *_every_steps *.log_every', _whole(0)),
  _rule('*.num_epochs *.epochs *.num_steps *.steps', _whole(1)),
  _rule('*.num_*', _whole(1)),
  _rule('*.keep', _whole(1)),
  _rule('*learning_rate *learning_rates', _at_least(0, is_open=True)),
  _rule('*dropout_rate *dropout_rates', _between(0, 1, open_high=True)),
  _rule('*.label_smoothing', _between(0, 0.5, open_high=True)),
  _rule('*fraction *fractions *_probability', _between(0, 1)),
  _rule('*.temperature *_temperature', _at_least(0, is_open=True)),
  _rule('*.kl_coef *.kl_coefs *_coef *.max_kl', _at_least(0)),
  _rule('fronts.max_kl', _at_least(0, is_open=True)),
  _rule('warp.anchor', _one_of('ema', 'init', 'sft')),
  _rule('*.anchor', _one_of('sft', 'ema')),
  _rule('warp.merge', _one_of_merges(lambda m: m.available('init'))),
  _rule('warp.group', _one_of('tensor', 'layer', 'model')),
  _rule('*.iterations', _whole(1)),
  _rule('*.etas', _at_least(0)),
  _rule('*.mu', _between(0, 1, open_low=True)),
)


def validate(config, rules: Iterable[Rule] = RULES) -> None:
  """Raises one UserError with all values that cannot work, one clause each.

  Args:
    config: ml_collections ConfigDict or nested dict.
    rules: the table.
  """
  rules, wrong = tuple(rules), []
  model_sections = list(_model_sections(plain(config)))
  for path, value in flatten(config).items():
    if any(path.startswith(section + '.') for section, _ in model_sections):
      continue
    values = value if isinstance(value, (tuple, list)) else (value,)
    if not values and any(fnmatch.fnmatchcase(path, p) for p in NOT_EMPTY):
      wrong.append(f'config.{path} is empty: give at least one value')
    for entry in values:
      problem = _problem(path, entry, rules)
      if problem:
        wrong.append(f'config.{path} is {value!r}: it must be {problem}')
        break
  for path, section in model_sections:
    # The vocabulary and the longest text may be known only from the data.
    known: dict[str, Any] = {'vocab_size': 2, 'max_length': 2}
    known |= {k: v for k, v in section.items() if v is not None}
    try:
      model_config.ModelConfig(**known)
    except errors.UserError as e:
      wrong.append(f'config.{path}: {e}')
    except TypeError as e:
      wrong.append(f'config.{path}: {str(e).split("__init__() ")[-1]}')
  # Only values that are fine one by one are worth comparing.
  wrong = wrong or list(_conflicts(plain(config)))
  if wrong:
    raise errors.UserError('; '.join(wrong))


def _conflicts(config: Mapping[str, Any]):
  """Fields that do not go together, one clause each."""
  mesh = config.get('runtime', {}).get('mesh')
  if mesh is not None and (len(mesh) != 3 or mesh.count(-1) > 1):
    yield (
      f'config.runtime.mesh is {tuple(mesh)!r}: it must be three numbers of '
      'devices, along member, data and model, of which one may be -1'
    )
  for path, section in _sections(config):
    here = f'config.{path}.'
    steps = section.get('steps')
    keep = section.get('keep_steps')
    if keep is not None and steps is not None:
      if not keep or keep != sorted(set(keep)) or keep[-1] != steps:
        yield (
          f'{here}keep_steps is {tuple(keep)!r}: it must rise and end at '
          f'{here}steps={steps}'
        )
    warmup = section.get('optimizer', {}).get('warmup_steps', 0)
    if isinstance(steps, list):  # one for each iteration
      steps = min(steps[: section.get('iterations')], default=None)
    if steps is not None and warmup > steps:
      yield (
        f'{here}optimizer.warmup_steps is {warmup}: it must not exceed '
        f'{here}steps={steps}'
      )
    per_prompt = section.get('samples_per_prompt')
    if per_prompt is not None:
      if section['batch_size'] % per_prompt:
        yield (
          f'{here}batch_size is {section["batch_size"]}: it must be a multiple '
          f'of {here}samples_per_prompt={per_prompt}'
        )
      if section['baseline'] == 'leave_one_out' and per_prompt < 2:
        yield (
          f"{here}baseline is 'leave_one_out': it needs "
          f'{here}samples_per_prompt of at least 2'
        )
    parts = section.get('micro_batches', 1)
    units = section.get('batch_size', parts) // (per_prompt or 1)
    if units % parts:
      what = 'prompts' if per_prompt else 'rows'
      yield (
        f'{here}micro_batches is {parts}: it must divide the {units} {what} '
        f'of {here}batch_size'
      )
    context = config.get('data', {}).get('max_length')
    new_tokens = section.get('max_new_tokens')
    if context and new_tokens and new_tokens >= context:
      yield (
        f'{here}max_new_tokens is {new_tokens}: it leaves no room for a prompt '
        f'in config.data.max_length={context}'
      )
  try:
    members = member_slice(config)
  except errors.UserError as e:
    yield str(e)
  else:
    if members and members[1] > config['reward']['members']:
      yield (
        f'config.reward.member_slice ends at {members[1]}: there are '
        f'config.reward.members={config["reward"]["members"]}, numbered from 0'
      )
  kept = config.get('sft', {}).get('keep_steps')
  starts = config.get('reward', {}).get('sft_checkpoints')
  if kept and starts and max(starts) >= len(kept):
    yield (
      f'config.reward.sft_checkpoints is {tuple(starts)!r}: '
      f'config.sft.keep_steps keeps {len(kept)}, numbered from 0'
    )


def _sections(tree, prefix=''):
  """All sections with their dotted paths."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield prefix + key, value
      yield from _sections(value, f'{prefix}{key}.')


def _problem(path, value, rules) -> str | None:
  if value is None:
    return None
  if isinstance(value, float) and not math.isfinite(value):
    return 'a finite number'
  for rule in rules:
    if any(fnmatch.fnmatchcase(path, p) for p in rule.patterns):
      must = rule.must if isinstance(rule.must, str) else rule.must()
      return None if rule.holds(value) else must
  return None


def _model_sections(tree, prefix=''):
  """Sections called model, or something_model, wherever they are."""
  for key, value in tree.items():
    if isinstance(value, dict):
      path = f'{prefix}{key}'
      if key == 'model' or key.endswith('_model'):
        yield path, value
      else:
        yield from _model_sections(value, path + '.')


def member_slice(config) -> tuple[int, int] | None:
  """(first, end) of the members that a run trains; None: all.

  Raises:
    UserError: `reward.member_slice` is not of the form FIRST:END.
  """
  text = config.get('reward', {}).get('member_slice', '')
  found = re.fullmatch(r'(\d+):(\d+)', text)
  if found and int(found[1]) < int(found[2]):
    return int(found[1]), int(found[2])
  if text:
    raise errors.UserError(
      f'config.reward.member_slice is {text!r}: it must be FIRST:END, such as '
      '0:3 for members 0, 1 and 2'
    )
  return None


def plain(config) -> dict[str, Any]:
  """The config as nested dicts of what JSON has: what is written and compared."""
  if hasattr(config, 'to_json_best_effort'):
    return json.loads(config.to_json_best_effort())
  return json.loads(json.dumps(config))


def flatten(tree, prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}; an empty section stays as a leaf."""
  out = {}
  for key, value in tree.items():
    if hasattr(value, 'items') and len(value):
      out |= flatten(value, f'{prefix}{key}.')
    else:
      out[prefix + key] = value
  return out


def differences(old: Mapping, new: Mapping) -> dict[str, tuple[str, str]]:
  """{field: (old value, new value)} as text, for the fields that differ."""
  old, new = flatten(old), flatten(new)
  names = [*old, *(k for k in new if k not in old)]

  def text(side, name):
    return json.dumps(side[name]) if name in side else 'absent'

  return {
    name: (text(old, name), text(new, name))
    for name in names
    if name not in old or name not in new or old[name] != new[name]
  }


def nearest(name: str, known: Iterable[str]) -> str:
  """'; did you mean ...?' or nothing, for an unknown dotted name.

  The last part decides when the full path has no likeness: a right field in a
  wrong section is found too.
  """
  known = list(known)
  found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  if not found:
    last = {k.rsplit('.', 1)[-1]: k for k in reversed(known)}
    close = difflib.get_close_matches(name.rsplit('.', 1)[-1], last, n=1)
    found = [last[x] for x in close]
  return f'; did you mean {found[0]}?' if found else ''


def parse_arg(arg: str, **defaults) -> dict[str, Any]:
  """Reads the text after ':' in --config=FILE.py:TEXT against declared options.

  'tiny,members=4' with tiny=False, members=6 gives {'tiny': True, 'members':
  4}. A bare name switches a bool on; a value takes the type of its default.

  Raises:
    UserError: an undeclared option, or a value of the wrong type.
  """
  out = dict(defaults)
  for part in filter(None, (p.strip() for p in (arg or '').split(','))):
    name, given, text = part.partition('=')
    if name not in defaults:
      raise errors.UserError(
        f'unknown config argument {name!r}{nearest(name, defaults)}; '
        f'known: {", ".join(defaults) or "none"}'
      )
    kind = type(defaults[name])
    try:
      if kind is bool:
        out[name] = {'': True, 'true': True, 'false': False}[text.lower()]
      elif not given:
        raise ValueError
      else:
        out[name] = kind(text)
    except (KeyError, ValueError):
      raise errors.UserError(
        f'config argument {part!r}: expected {name}=<{kind.__name__}>'
      ) from None
  return out

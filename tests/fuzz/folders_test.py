# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model folders that are broken in every way we could think of.

Each is opened with the weights it has or refused in one line; nothing is read
or written elsewhere, nothing runs, and no result is left behind by a refusal.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from checkpoints import FIXTURES
from fuzz import folder_mutations as mutations

from warm_jax import errors
from warm_jax.commands import score
from warm_jax.data import sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import folders as folders_lib
from warm_jax.hf import reading, tensors
from warm_jax.stages import scorers

pytestmark = [pytest.mark.slow, pytest.mark.hf]

FAMILIES = ('gemma2', 'gemma3_text', 'gpt2', 'gpt_neox', 'llama3', 'mistral')
FAMILIES += ('qwen2', 'qwen3')
FOLDERS = {'single': 340, 'sharded': 220, 'config': 260, 'tokenizer': 220}

# Kinds that make another model, and no damaged one.
UNKNOWN = ('shapes', 'types', 'entries', 'strays')


@pytest.fixture(scope='module')
def good(tmp_path_factory, small_model):
  """{'single', 'sharded', 'twin'}: reward models; and what they hold."""
  folder = tmp_path_factory.mktemp('models')
  texts = ['hello world', 'this is text']
  tokenizer = tokenizer_lib.train_bpe_tokenizer(texts, 280, folder / 'words')
  sizes = {'single': 1e9, 'sharded': 8_000, 'twin': 1e9}
  folders = [(folder / name, size) for name, size in sizes.items()]
  return folder, small_model(tokenizer, *folders)


def prepare(fuzz, good, group, number):
  """A fresh folder to be changed, and files beside it that would fit."""
  folder, away = fuzz.folder / 'model', fuzz.folder / 'outside'
  for old in fuzz.folder.iterdir():
    shutil.rmtree(old) if old.is_dir() else old.unlink()
  source = good[0] / ('sharded' if group == 'sharded' else 'single')
  if group == 'config' and number % 3:
    source = FIXTURES / FAMILIES[number % len(FAMILIES)] / 'reward'
  shutil.copytree(source, folder)
  shutil.copytree(source, away)
  if group == 'tokenizer':
    (away / 'tokenizer.0.1.json').write_text('not to be read')
  return folder


def attempt(fuzz, action):
  """What an action returns, or None and its one line."""
  try:
    with fuzz.limits():
      return action(), ''
  except errors.UserError as error:
    text = str(error)
    assert text.isprintable() and 20 < len(text) < 2_500, text[:3_000]
    return None, text


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def merged(folder, twin, out):
  """Whether the mean of a folder and its like is what each of them is."""
  folders_lib.merge([folder, twin], out)
  one, two = tensors.inspect(folder), tensors.inspect(out)
  assert one.keys() == two.keys()
  for name in one:
    if twin.name != 'twin':  # a flipped number moves half as far
      np.testing.assert_array_equal(one[name].read(), two[name].read())
  return True


def loaded(folder):
  return reading.load(reading.inspect(folder), 'score')


def judged(folder):
  """The parameters of a folder whose tokenizer can be used."""
  judge = scorers.open_model(str(folder))
  turns = [{'role': 'user', 'content': 'hi'}]
  try:
    judge.chat.prompt(turns)
  except sources.BadRow as bad:
    assert str(bad).isprintable()
    raise errors.UserError(f'refused row by row: {bad}') from bad
  return judge.scorer.params


@pytest.mark.parametrize('group', list(FOLDERS))
def test_folders_are_opened_as_they_are_or_refused(fuzz, good, group):
  kinds = mutations.GROUPS[group]
  out = fuzz.folder / 'out'
  for number in range(FOLDERS[group] * fuzz.times):
    kind = list(kinds)[number % len(kinds)]
    verdict, change = kinds[kind]
    folder = prepare(fuzz, good, group, number)
    beside = contents(fuzz.folder / 'outside')
    change(fuzz.rng, folder)
    names = sorted(folder.iterdir())
    opened = judged if group == 'tokenizer' else loaded
    params, line = attempt(fuzz, lambda f=folder, o=opened: o(f))
    outcome = 'refused' if params is None else 'kept'
    told = f'{kind}, number {number}: {line}'
    fuzz.seen[kind, outcome] += 1
    assert verdict in (outcome, 'either'), told
    if outcome == 'kept' and verdict == 'kept':
      equal = jax.tree.map(np.array_equal, params, good[1])
      assert jax.tree.all(equal), told
    twin = good[0] / 'twin'
    small = (p.is_file() and p.stat().st_size < 2**24 for p in names)
    if number // len(kinds) % 2 and all(small):
      twin = shutil.copytree(folder, fuzz.folder / 'again', symlinks=True)
    made, line = attempt(fuzz, lambda f=folder, t=twin: merged(f, t, out))
    fuzz.seen[kind, 'merged' if made else 'not merged'] += 1
    if verdict == 'refused' and group in ('single', 'sharded'):
      # Merging takes models of any family, so also tensors of no family.
      assert not made or kind in UNKNOWN, told
    left = {'model', 'outside', *(['out'] if made else [])}
    left |= {twin.name} - {'twin'}
    assert {path.name for path in fuzz.folder.iterdir()} == left, told
    assert sorted(folder.iterdir()) == names, told
    assert contents(fuzz.folder / 'outside') == beside, told
    assert not pathlib.Path('unpickled').exists(), told
  for kind, (verdict, _) in kinds.items():
    kept, refused = (fuzz.seen[kind, way] for way in ('kept', 'refused'))
    ways = {'kept': kept, 'refused': refused, 'either': kept + refused}
    assert ways[verdict] > 2, kind


def test_scores_by_broken_models(fuzz, good):
  """The whole command, for some of each group: a file or one line."""
  data = good[0] / 'rows.jsonl'
  row = {'prompt': 'hello', 'chosen': ' world', 'rejected': ' text'}
  data.write_text(json.dumps(row) + '\n')
  out = fuzz.folder / 'out'
  names = [(g, k) for g, kinds in mutations.GROUPS.items() for k in kinds]
  for number, (group, kind) in enumerate(names * fuzz.times):
    folder = prepare(fuzz, good, group, 0)
    verdict, change = mutations.GROUPS[group][kind]
    change(fuzz.rng, folder)
    flags = [f'--model={folder}', f'--data={data}', f'--out={out}']
    code, line = attempt(fuzz, lambda f=flags: score.main(f))
    told = f'{kind}, number {number}: {line}'
    left = {'model', 'outside'} | ({'out'} if code == 0 else set())
    assert {path.name for path in fuzz.folder.iterdir()} == left, told
    fuzz.seen[kind, 'scored' if code == 0 else 'refused'] += 1
    assert verdict == 'either' or (verdict == 'kept') == (code == 0), told

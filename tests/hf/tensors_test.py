# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finding, reading and writing: damaged and hostile files, shards, parts."""

import json
import shutil

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils
import ml_dtypes
import numpy as np
import pytest
import safetensors
from checkpoints import FIXTURES, assert_identical, stored

from warm_jax import errors
from warm_jax.hf import tensors

REVISION = '0123456789abcdef0123456789abcdef01234567'
WEIGHTS = 'model.safetensors'


# ---------------------------------------------------------------------- finding


def fill(folder, *names):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text('{"a": 1}')
  for name in names:
    (folder / name).write_bytes(b'')
  return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty cache of the hub; the network is off in all tests."""
  folder = tmp_path / 'hub'
  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(folder))
  return folder


def cached(cache, repo, ref='main'):
  """A repository as huggingface_hub leaves it in its cache."""
  base = cache / ('models--' + repo.replace('/', '--'))
  (base / 'refs').mkdir(parents=True, exist_ok=True)
  (base / 'refs' / ref).write_text(REVISION)
  return fill(base / 'snapshots' / REVISION, WEIGHTS)


def test_folders_ids_and_revisions(tmp_path, cache, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cached(cache, 'gpt2') == tensors.find('gpt2')
  assert cached(cache, 'o/n', 'step1000') == tensors.find('o/n@step1000')
  with pytest.raises(errors.UserError, match='no folder o/n') as e:
    tensors.find('o/n')
  assert '\n' not in str(e.value)
  # A folder comes before the hub.
  cached(cache, 'o/n')
  fill(tmp_path / 'o' / 'n', WEIGHTS)
  assert tensors.find('o/n').resolve() == tmp_path / 'o' / 'n'


@pytest.mark.parametrize('source', ['/nowhere/a/b', './a', '../a/b', 'a/b/c'])
def test_a_path_that_is_nowhere(cache, source):
  with pytest.raises(errors.UserError, match=f'no folder {source}'):
    tensors.find(source)


def test_only_usual_weights_and_small_files_are_fetched(monkeypatch, tmp_path):
  asked, checked = [], []

  def snapshot(repo, **options):
    asked.append((repo, options['revision'], options['allow_patterns']))
    return fill(tmp_path / 'x', WEIGHTS)

  def check(config):  # before any weights
    checked.append((config, len(asked)))

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot)
  tensors.find('o/n@v2', check)
  assert checked == [({'a': 1}, 1)]
  small = ['config.json', 'model.safetensors.index.json', 'tokenizer.model']
  small += ['chat_template.jinja']
  weights = ['model-00001-of-00002.safetensors', 'value_head.safetensors']
  weights += ['adapter_model.safetensors']
  others = ['model.fp16.safetensors', 'consolidated.safetensors']
  others += ['original/model.safetensors', 'pytorch_model.bin', 'evil.py']
  (repo, revision, first), (_, _, second) = asked
  assert (repo, revision) == ('o/n', 'v2')
  for patterns, expected in ((first, small), (second, small + weights)):
    chosen = huggingface_hub.utils.filter_repo_objects(
      small + weights + others, allow_patterns=patterns, ignore_patterns=['*/*']
    )
    assert list(chosen) == expected


# ------------- reading: damaged files (tests/fuzz has a thousand hostile ones)


def refused(folder, match):
  with pytest.raises(errors.UserError, match=match) as e:
    tensors.inspect(folder)
  assert '\n' not in str(e.value) and str(folder) in str(e.value)


def test_links_into_the_cache_of_the_hub(tmp_path):
  snapshot = tmp_path / 'models--a--b' / 'snapshots' / 'main'
  blobs = tmp_path / 'models--a--b' / 'blobs'
  for place in (snapshot, blobs):
    place.mkdir(parents=True)
  shutil.copy(FIXTURES / 'llama' / WEIGHTS, blobs / 'c0ffee')
  (snapshot / WEIGHTS).symlink_to('../../blobs/c0ffee')
  assert tensors.inspect(snapshot).keys() == stored('llama').keys()


def test_shards_without_their_index(tmp_path):
  sharded = shutil.copytree(FIXTURES / 'llama3_sharded', tmp_path / 'sharded')
  (sharded / tensors.INDEX).unlink()
  refused(sharded, 'shards without their model.safetensors.index.json')


# ---------------------------------------------------------------------- writing


def write(folder, values, *args):
  """The files; each tensor is given in two parts, the second one first."""
  plan = {name: (a.shape, a.dtype) for name, a in values.items()}

  def parts(name, put):
    one, two = np.array_split(values[name].reshape(-1), 2)
    return [put(one.size, two), put(0, one)]

  return tensors.write(folder, plan, parts, *args)[0]


def test_every_dtype_is_read_back(tmp_path):
  rng = np.random.default_rng(0)
  values = {
    'a.weight': rng.standard_normal((3, 5)).astype(np.float32),
    'odd': rng.integers(0, 255, 7).astype(np.uint8),
    'b': rng.standard_normal((4, 2, 3)).astype(ml_dtypes.bfloat16),
    'half': rng.standard_normal(5).astype(np.float16),
    'positions': np.arange(6)[None],
    'flag': np.array([True, False, True]),
    'scalar': np.float64(1.5).reshape(()),
    'nothing': np.zeros((0, 4), np.float32),
  }
  assert write(tmp_path, values) == [WEIGHTS]
  assert_identical(stored(tmp_path), values)
  found = tensors.inspect(tmp_path)
  assert_identical({name: found[name].read() for name in values}, values)
  part = found['b'].read(5, 7)
  assert part.tobytes() == values['b'].reshape(-1)[5:12].tobytes()
  assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS]
  for name, array in values.items():
    assert found[name].offset % array.dtype.itemsize == 0
  with safetensors.safe_open(tmp_path / WEIGHTS, 'numpy') as file:
    assert file.metadata() == {'format': 'pt'}  # transformers asks for it


def test_shards_and_their_index(tmp_path):
  values = {f't{i}': np.full((10,), i, np.float32) for i in range(5)}
  values['large'] = np.ones((100,), np.float32)
  out = write(tmp_path, values, 80)
  index = json.loads((tmp_path / tensors.INDEX).read_text())
  assert index['metadata']['total_size'] == 5 * 40 + 400
  # Two of 40 bytes fill 80; the one of 400 stands alone.
  expected = [f'model-0000{i}-of-00004.safetensors' for i in (1, 2, 3, 4)]
  assert out == expected
  assert_identical(stored(tmp_path), values)
  found = tensors.inspect(tmp_path)
  assert index['weight_map'] == {n: t.path.name for n, t in found.items()}
  assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize('size', [3, 5])
def test_a_tensor_of_another_size_is_refused(tmp_path, size):
  plan = {'x': ((4,), np.dtype(np.float32))}
  with pytest.raises(ValueError, match='x: the values are not'):
    tensors.write(tmp_path, plan, lambda _, put: [put(0, np.ones(size))])

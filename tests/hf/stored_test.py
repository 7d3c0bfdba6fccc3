# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Damaged and hostile files: one line each, never other numbers."""

import json
import os
import pathlib
import shutil
import struct

import pytest

from warm_jax import errors
from warm_jax.hf import stored

FIXTURES = pathlib.Path(__file__).parents[1] / 'oracles' / 'fixtures'
NORM = 'model.layers.0.input_layernorm.weight'


def refused(folder, match):
  with pytest.raises(errors.UserError, match=match) as e:
    with stored.StoredTensors(folder):
      pass
  assert '\n' not in str(e.value) and str(folder) in str(e.value)


@pytest.fixture
def sharded(tmp_path):
  return shutil.copytree(FIXTURES / 'llama3_sharded', tmp_path / 'sharded')


@pytest.mark.parametrize(
  'name',
  ['../other.safetensors', '/elsewhere/other.safetensors', 'a/b', '..', ''],
)
def test_an_index_does_not_lead_out_of_the_folder(sharded, name):
  path = sharded / 'model.safetensors.index.json'
  index = json.loads(path.read_text())
  index['weight_map'][NORM] = name
  path.write_text(json.dumps(index))
  refused(sharded, 'is no safetensors file in the folder')


@pytest.mark.parametrize(
  'content', ['[]', '{}', '3', 'no json', '{"weight_map": {"a": 3, "b": "c"}}']
)
def test_an_index_that_is_none(sharded, content):
  (sharded / 'model.safetensors.index.json').write_text(content)
  refused(sharded, 'is not an index of shards')


def test_shards_without_index(sharded):
  (sharded / 'model.safetensors.index.json').unlink()
  refused(sharded, 'shards without their model.safetensors.index.json')


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'version https://git-lfs.github.com/spec/v1\nsize 7\n',
    struct.pack('<Q', 1 << 60) + b'{}',
    struct.pack('<Q', 2) + b'[]',
    struct.pack('<Q', 9) + b'{"a": [] }'[:9],
  ],
)
def test_a_file_that_is_none(tmp_path, content):
  (tmp_path / 'model.safetensors').write_bytes(content)
  refused(tmp_path, 'is not a whole safetensors file')


def test_a_folder_in_place_of_the_file(tmp_path):
  (tmp_path / 'model.safetensors').mkdir()
  refused(tmp_path, 'cannot read')


@pytest.mark.parametrize('offsets', [[0, 32], [-64, 0], [64, 64]])
def test_a_tensor_whose_bytes_are_not_its_own(tmp_path, offsets):
  data = (FIXTURES / 'llama' / 'model.safetensors').read_bytes()
  (size,) = struct.unpack('<Q', data[:8])
  header = json.loads(data[8 : 8 + size])
  header[NORM]['data_offsets'] = offsets
  # Not the last tensor: the file is as long as its header says.
  ends = [e['data_offsets'][1] for e in header.values() if len(e) == 3]
  assert 8 + size + max(ends) == len(data)
  text = json.dumps(header).encode()
  content = struct.pack('<Q', len(text)) + text + data[8 + size :]
  (tmp_path / 'model.safetensors').write_bytes(content)
  refused(tmp_path, f'the bytes of {NORM}')


# ------------------------------------- hostile folders (found by tests/fuzz)


def rewrite(tmp_path, change, extra=b''):
  """llama's file with another header, `extra` before its tensors."""
  data = (FIXTURES / 'llama' / 'model.safetensors').read_bytes()
  (size,) = struct.unpack('<Q', data[:8])
  header = change(json.loads(data[8 : 8 + size]))
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  content = struct.pack('<Q', len(text)) + text + extra + data[8 + size :]
  (tmp_path / 'model.safetensors').write_bytes(content)


def shifted(header):
  for name, entry in header.items():
    if name != '__metadata__':
      entry['data_offsets'] = [n + 8 for n in entry['data_offsets']]
  return header


def test_bytes_that_are_no_tensors(tmp_path):
  rewrite(tmp_path, shifted, b'x' * 8)
  refused(tmp_path, 'do not follow those before')


def test_bytes_of_two_tensors(tmp_path):
  names = [f'model.layers.{i}.input_layernorm.weight' for i in (0, 1)]

  def share(header):
    header[names[0]] = header[names[1]]
    return header

  rewrite(tmp_path, share)
  refused(tmp_path, 'do not follow those before')


@pytest.mark.parametrize(
  'field, value',
  [
    ('shape', [-1, -16]),  # their product is the right one
    ('shape', [16.0]),
    ('shape', [True, 16]),
    ('shape', [1] * 99 + [16]),
    ('shape', [0, 2**70]),
    ('data_offsets', [0.0, 64.0]),
    ('data_offsets', [10**400, 10**400 + 64]),
  ],
)
def test_sizes_that_pass_for_numbers(tmp_path, field, value):
  def change(header):
    header[NORM][field] = value
    return header

  rewrite(tmp_path, change)
  refused(tmp_path, 'is not a whole safetensors file')


def test_a_tensor_twice(tmp_path):
  def twice(header):
    more = f', "{NORM}": {json.dumps(header[NORM])}}}'
    return json.dumps(header)[:-1].encode() + more.encode()

  rewrite(tmp_path, twice)
  refused(tmp_path, 'is there twice')


def test_a_bottomless_header(tmp_path):
  rewrite(tmp_path, lambda header: b'[' * 10**5)
  refused(tmp_path, 'nested deeper than 100')


def test_a_header_of_gigabytes_is_not_read(tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(struct.pack('<Q', 2**31) + b'{}')
  os.truncate(path, 3 * 2**30)  # takes no place on the disk
  refused(tmp_path, 'its header has 2147483648 bytes')


def test_what_is_no_file_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'model.safetensors')
  refused(tmp_path, 'no plain file')


def test_links_lead_nowhere_else(tmp_path):
  """But to the blobs of the hub's cache, and within the folder."""
  source = FIXTURES / 'llama' / 'model.safetensors'
  away, folder = tmp_path / 'away', tmp_path / 'model'
  for place in (away, folder):
    place.mkdir()
  (folder / 'model.safetensors').symlink_to(shutil.copy(source, away))
  refused(folder, 'a link that leads out of its folder')
  (folder / 'model.safetensors').unlink()
  (folder / 'model.safetensors').symlink_to('other')
  shutil.copy(source, folder / 'other')
  linked = tmp_path / 'linked'
  linked.symlink_to(folder)
  cached = tmp_path / 'models--a--b' / 'snapshots' / 'main'
  cached.mkdir(parents=True)
  blobs = tmp_path / 'models--a--b' / 'blobs'
  blobs.mkdir()
  shutil.copy(source, blobs / 'c0ffee')
  (cached / 'model.safetensors').symlink_to('../../blobs/c0ffee')
  for good in (folder, linked, cached):
    with stored.StoredTensors(good) as tensors:
      assert NORM in tensors.tensors


def test_a_tensor_in_two_shards(sharded):
  paths = sorted(sharded.glob('model-*.safetensors'))
  index = sharded / 'model.safetensors.index.json'
  names = json.loads(index.read_text())['weight_map']
  first = next(n for n, f in names.items() if f == paths[0].name)
  data = paths[1].read_bytes()
  (size,) = struct.unpack('<Q', data[:8])
  header = json.loads(data[8 : 8 + size])
  old = next(n for n in header if n != '__metadata__')
  header[first] = header.pop(old)
  text = json.dumps(header).encode()
  paths[1].write_bytes(struct.pack('<Q', len(text)) + text + data[8 + size :])
  refused(sharded, f'both hold {first}')


def test_an_index_that_names_other_shards(sharded):
  index = sharded / 'model.safetensors.index.json'
  value = json.loads(index.read_text())
  names = value['weight_map']
  first, *_ = names
  names[first] = next(f for f in names.values() if f != names[first])
  index.write_text(json.dumps(value))
  refused(sharded, f'does not hold {first}')


@pytest.mark.parametrize('name', ['a\0.safetensors', '\ud800.safetensors'])
def test_names_that_no_file_can_have(sharded, name):
  index = sharded / 'model.safetensors.index.json'
  value = json.loads(index.read_text())
  first, *_ = value['weight_map']
  value['weight_map'][first] = name
  index.write_text(json.dumps(value))
  refused(sharded, 'cannot read')


def test_an_index_that_is_a_folder(sharded):
  index = sharded / 'model.safetensors.index.json'
  index.unlink()
  index.mkdir()
  refused(sharded, 'no plain file')

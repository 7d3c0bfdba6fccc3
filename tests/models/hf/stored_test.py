# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Damaged and hostile files: one line each, never other numbers."""

import json
import pathlib
import shutil
import struct

import pytest

from warm_jax import errors
from warm_jax.models.hf import stored

FIXTURES = pathlib.Path(__file__).parents[2] / 'oracles' / 'fixtures'
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

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Files of the writer, read back by the safetensors library."""

import json
from concurrent import futures

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from warm_jax import errors
from warm_jax.hf import writer


def arrays():
  rng = np.random.default_rng(0)
  return {
    'a.weight': rng.standard_normal((3, 5)).astype(np.float32),
    'odd': rng.integers(0, 255, 7).astype(np.uint8),
    'b': rng.standard_normal((4, 2, 3)).astype(ml_dtypes.bfloat16),
    'half': rng.standard_normal(5).astype(np.float16),
    'positions': np.arange(6)[None],
    'flag': np.array([True, False, True]),
    'scalar': np.float64(1.5).reshape(()),
    'nothing': np.zeros((0, 4), np.float32),
  }


def plan(tensors):
  return [(name, a.shape, a.dtype) for name, a in tensors.items()]


def write(folder, tensors, **kwargs):
  with writer.SafetensorsWriter(folder, plan(tensors), **kwargs) as out:
    for name, array in tensors.items():
      out.write(name, array)


def read(folder, file='model.safetensors'):
  with safetensors.safe_open(folder / file, framework='np') as f:
    return {name: f.get_tensor(name) for name in f.keys()}, f.metadata()


def assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype
    assert found[name].shape == array.shape
    assert found[name].tobytes() == array.tobytes()


def test_every_dtype_is_read_back(tmp_path):
  tensors = arrays()
  write(tmp_path, tensors)
  found, metadata = read(tmp_path)
  assert_same(found, tensors)
  assert metadata == {'format': 'pt'}
  assert [p.name for p in tmp_path.iterdir()] == ['model.safetensors']


def test_tensors_are_aligned_to_their_type(tmp_path):
  write(tmp_path, arrays())
  data = (tmp_path / 'model.safetensors').read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + size])
  assert size % 8 == 0
  for name, array in arrays().items():
    assert header[name]['data_offsets'][0] % array.dtype.itemsize == 0


def test_shards_and_their_index(tmp_path):
  tensors = {f't{i}': np.full((10,), i, np.float32) for i in range(5)}
  tensors['large'] = np.ones((100,), np.float32)
  write(tmp_path, tensors, max_shard_bytes=80)
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  assert index['metadata']['total_size'] == 5 * 40 + 400
  files = sorted({*index['weight_map'].values()})
  # Two of 40 bytes fill 80; the one of 400 stands alone.
  assert files == [f'model-0000{i}-of-00004.safetensors' for i in (1, 2, 3, 4)]
  found = {}
  for file in files:
    part, metadata = read(tmp_path, file)
    assert metadata == {'format': 'pt'}
    assert all(index['weight_map'][name] == file for name in part)
    found |= part
  assert_same(found, tensors)
  assert not (tmp_path / 'model.safetensors').exists()


def test_the_bytes_are_those_of_the_library(tmp_path):
  tensors = {'b': np.ones((2, 3), np.float32), 'a': np.arange(4.0)}
  write(tmp_path, tensors)
  ours = safetensors_numpy.load((tmp_path / 'model.safetensors').read_bytes())
  theirs = safetensors_numpy.load(safetensors_numpy.save(tensors))
  assert_same(ours, theirs)


def test_parts_from_threads_in_any_order(tmp_path):
  values = np.arange(10_000, dtype=np.float32)
  table = [('x', (100, 100), np.float32)]
  with writer.SafetensorsWriter(tmp_path, table) as out:
    starts = np.random.default_rng(0).permutation(100) * 100
    with futures.ThreadPoolExecutor(4) as pool:
      for job in [
        pool.submit(out.write_part, 'x', int(s), values[s : s + 100])
        for s in starts
      ]:
        job.result()
  assert np.array_equal(read(tmp_path)[0]['x'].reshape(-1), values)


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path):
  table = [('x', (4,), np.float32), ('y', (2,), np.float32)]
  with pytest.raises(ValueError, match='not written: y'):
    with writer.SafetensorsWriter(tmp_path, table) as out:
      out.write('x', np.ones(4, np.float32))
  assert not list(tmp_path.iterdir())
  out = writer.SafetensorsWriter(tmp_path, table)
  with pytest.raises(ValueError, match='3 numbers for 4'):
    out.write('x', np.ones(3, np.float32))
  with pytest.raises(ValueError, match='does not fit'):
    out.write_part('x', 3, np.ones(2, np.float32))
  with pytest.raises(ValueError, match='does not fit'):
    out.write('x', np.ones(4, np.float64))
  out.abandon()
  assert not list(tmp_path.iterdir())


def test_a_plan_that_cannot_be_written(tmp_path):
  with pytest.raises(errors.UserError, match='x is planned twice'):
    writer.SafetensorsWriter(tmp_path, [('x', (1,), np.float32)] * 2)
  with pytest.raises(errors.UserError, match='z is complex64'):
    writer.SafetensorsWriter(tmp_path, [('z', (1,), np.complex64)])
  assert not list(tmp_path.iterdir())

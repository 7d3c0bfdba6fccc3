# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model folders that somebody broke, or made to break what opens them.

A kind is a function (rng, folder) that changes a good folder where it is, and
what has to become of the folder: 'kept' with the weights it had, 'refused', or
'either'. Beside the folder lies `outside`, with files that would fit into it.
"""

import json
import os
import pickle
import struct

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
HUGE = (2**31, 2**40, 2**62, 2**63, 10**30, 10**400)
NO_NUMBER = (None, True, 1.5, float('nan'), '7', [], [7], {}, {'a': 1})
NO_JSON = (
  b'',
  b'\0' * 64,
  b'{"a": 1',
  b'{"a": "\xff"}',
  b'{"a": 1, "a": 2}',
  b'[]',
  b'7',
  b'NaN',
  b'\xff\xfe{\0}\0',
  b'[' * 100_000,
  b'{"a":' * 990 + b'1' + b'}' * 990,
  b'{"a":' * 150 + b'1' + b'}' * 150,
  b'{"a": ' + b'9' * 5_000 + b'}',
)


def pick(rng, values):
  return values[int(rng.integers(len(values)))]


class Exploit:
  """A pickle that leaves a trace when it is opened."""

  def __init__(self, trace):
    self.trace = str(trace)

  def __reduce__(self):
    return os.mkdir, (self.trace,)


def trace(folder):
  return folder.parent / 'unpickled'


def outside(folder):
  return folder.parent / 'outside'


# ---------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------


def no_json(name):
  def change(rng, folder):
    (folder / name).write_bytes(pick(rng, NO_JSON))

  return change


def cut(name):
  def change(rng, folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(rng.integers(len(data)))])

  return change


def flipped(name, most: int = 2**30):
  def change(rng, folder):
    data = bytearray((folder / name).read_bytes())
    for _ in range(int(rng.integers(1, 5))):
      data[int(rng.integers(min(len(data), most)))] = int(rng.integers(256))
    (folder / name).write_bytes(data)

  return change


def no_file(name):
  """Something else of that name; a pipe would be waited for for ever."""

  def change(rng, folder):
    path, way = folder / name, int(rng.integers(4))
    path.unlink()
    if way == 0:
      path.mkdir()
    elif way == 1:
      os.mkfifo(path)
    elif way == 2:
      path.symlink_to(folder / 'nowhere')
    else:
      path.symlink_to('/dev/zero')

  return change


def led_outside(name):
  def change(rng, folder):
    (folder / name).unlink()
    (folder / name).symlink_to(outside(folder) / name)

  return change


def linked_inside(name):
  def change(rng, folder):
    (folder / name).rename(folder / 'elsewhere')
    (folder / name).symlink_to('elsewhere')

  return change


def endless(name):
  """Gigabytes of nothing, which take no place on the disk."""

  def change(rng, folder):
    os.truncate(folder / name, 3 * 2**30)

  return change


def json_change(name, *changes):
  def change(rng, folder):
    value = json.loads((folder / name).read_text())
    pick(rng, changes)(rng, value)
    (folder / name).write_text(json.dumps(value))

  return change


# ---------------------------------------------------------------------------
# The header of a file of tensors
# ---------------------------------------------------------------------------


def parts(path):
  """(header, bytes of the tensors) of a file."""
  data = path.read_bytes()
  (size,) = struct.unpack('<Q', data[:8])
  return json.loads(data[8 : 8 + size]), data[8 + size :]


def put(path, header: bytes | dict, data: bytes, size: int | None = None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if size is None else size
  path.write_bytes(struct.pack('<Q', size) + text + data)


def header_change(change):
  """Applies change(rng, entry of one tensor, header)."""

  def apply(rng, folder):
    header, data = parts(folder / WEIGHTS)
    names = [n for n in header if n != '__metadata__']
    change(rng, header[pick(rng, names)], header)
    put(folder / WEIGHTS, header, data)

  return apply


def _offsets(rng, entry, header):
  begin, end = entry['data_offsets']
  entry['data_offsets'] = pick(
    rng,
    (
      *([begin + 4, end + 4], [begin - 4, end - 4], [end, begin], [0, 0]),
      *([-(end - begin), 0], [begin, end + 2**40], [2**62, 2**62 + 4]),
      *([float(begin), float(end)], [str(begin), str(end)], [True, end]),
      *([begin], [begin, end, end], [], None, {}, 'ab', 7, [None, None]),
      *([begin, 10**400], [10**400, 10**400 + end - begin], [[], []]),
    ),
  )


def _shape(rng, entry, header):
  shape, (begin, end) = entry['shape'], entry['data_offsets']
  size = (end - begin) // 4
  entry['shape'] = pick(
    rng,
    (
      *([-1, -size], [size, 1, 1], [1] * 40 + shape, [1] * 2_000 + shape),
      *([float(n) for n in shape], [str(n) for n in shape], [shape], []),
      *([2**40, 2**40], [2**64 * size], [0, 2**70], [True, *shape], None),
      *({}, 'ab', 7, [None], [10**400], [size + 1], [-size], [0]),
    ),
  )


def _dtype(rng, entry, header):
  wrong = ('F64', 'I32', 'F16', 'F8_E4M3', 'f32', '', 'O', None, 7, ['F32'], {})
  entry['dtype'] = pick(rng, wrong)


def _entry(rng, entry, header):
  name = pick(rng, [n for n in header if n != '__metadata__'])
  way = int(rng.integers(3))
  if way == 0:
    header[name] = pick(rng, (None, 7, [], 'ab', {}, {'dtype': 'F32'}))
  elif way == 1:
    del header[name]
  else:
    header['x' + name] = header.pop(name)


def _alias(rng, entry, header):
  """A second tensor on the bytes of the first."""
  entries = [e for n, e in header.items() if n != '__metadata__']
  other = pick(rng, [e for e in entries if e is not entry])
  size = entry['data_offsets'][1] - entry['data_offsets'][0]
  begin = other['data_offsets'][0]
  entry['data_offsets'] = [begin, begin + size]


def _stray(rng, entry, header):
  names = ('../../x', '\ud800', 'a\nb\x1b[31m', 'x' * 10**6, '', '\0')
  header[pick(rng, names)] = {
    'dtype': 'F32',
    'shape': [0],
    'data_offsets': [0, 0],
  }


def _hole(rng, folder):
  """Bytes that are no tensor's, where a second file may hide."""
  header, data = parts(folder / WEIGHTS)
  for name, entry in header.items():
    if name != '__metadata__':
      entry['data_offsets'] = [n + 64 for n in entry['data_offsets']]
  put(folder / WEIGHTS, header, b'x' * 64 + data)


def _twice(rng, folder):
  header, data = parts(folder / WEIGHTS)
  name = pick(rng, [n for n in header if n != '__metadata__'])
  text = json.dumps(header)
  text = f'{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}'
  put(folder / WEIGHTS, text.encode(), data)


def _header_size(rng, folder):
  header, data = parts(folder / WEIGHTS)
  sizes = (0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)
  put(folder / WEIGHTS, header, data, pick(rng, sizes))


def _header_text(rng, folder):
  _, data = parts(folder / WEIGHTS)
  put(folder / WEIGHTS, pick(rng, NO_JSON), data)


def _header_endless(rng, folder):
  header, data = parts(folder / WEIGHTS)
  put(folder / WEIGHTS, header, data, 2 * 2**30)
  os.truncate(folder / WEIGHTS, 3 * 2**30)


def _longer(rng, folder):
  with (folder / WEIGHTS).open('ab') as file:
    file.write(rng.bytes(int(rng.integers(1, 99))))


def _pickled(rng, folder):
  (folder / WEIGHTS).unlink()
  name = pick(rng, ('pytorch_model.bin', 'model.pt', WEIGHTS))
  (folder / name).write_bytes(pickle.dumps(Exploit(trace(folder))))


def _pickled_beside(rng, folder):
  name = pick(rng, ('pytorch_model.bin', 'training_args.bin', 'x.pkl'))
  (folder / name).write_bytes(pickle.dumps(Exploit(trace(folder))))


SINGLE = {
  'offsets': ('refused', header_change(_offsets)),
  'shapes': ('refused', header_change(_shape)),
  'types': ('refused', header_change(_dtype)),
  'entries': ('refused', header_change(_entry)),
  'bytes of two tensors': ('refused', header_change(_alias)),
  'strays': ('refused', header_change(_stray)),
  'a hole': ('refused', _hole),
  'a tensor twice': ('refused', _twice),
  'header size': ('refused', _header_size),
  'header no JSON': ('refused', _header_text),
  'header of gigabytes': ('refused', _header_endless),
  'longer': ('refused', _longer),
  'weights cut': ('refused', cut(WEIGHTS)),
  'weights flipped': ('either', flipped(WEIGHTS)),
  'header flipped': ('either', flipped(WEIGHTS, 600)),
  'weights no file': ('refused', no_file(WEIGHTS)),
  'weights outside': ('refused', led_outside(WEIGHTS)),
  'weights by a link': ('kept', linked_inside(WEIGHTS)),
  'pickle': ('refused', _pickled),
  'pickle beside': ('kept', _pickled_beside),
}


# ---------------------------------------------------------------------------
# Shards and their index
# ---------------------------------------------------------------------------


def _shards(folder):
  return sorted(folder.glob('model-*.safetensors'))


def _escaping(rng, folder):
  index = json.loads((folder / INDEX).read_text())
  names = index['weight_map']
  name = pick(rng, list(names))
  file, away = names[name], outside(folder)
  names[name] = pick(
    rng,
    (
      *(f'../outside/{file}', str(away / file), f'x/../{file}', f'./{file}'),
      *('..', '.', '', '/etc/passwd', f'{file}\0', '\ud800.safetensors'),
      *('x' * 5_000 + '.safetensors', 'a\nb.safetensors', None, 7, [file]),
      *({}, True, 'pytorch_model.bin', '../outside', '~/x.safetensors'),
    ),
  )
  (folder / INDEX).write_text(json.dumps(index))


def _weight_map(rng, value):
  value['weight_map'] = pick(rng, (None, 7, [], {}, 'ab', [['a', 'b']]))


def _no_weight_map(rng, value):
  del value['weight_map']


def _wrong_shard(rng, value):
  names = value['weight_map']
  name = pick(rng, list(names))
  names[name] = pick(
    rng, sorted({f for f in names.values() if f != names[name]})
  )


def _unlisted(rng, value):
  del value['weight_map'][pick(rng, list(value['weight_map']))]


def _shard_outside(rng, folder):
  led_outside(pick(rng, _shards(folder)).name)(rng, folder)


def _shard_lost(rng, folder):
  pick(rng, _shards(folder)).unlink()


def _shard_no_file(rng, folder):
  no_file(pick(rng, _shards(folder)).name)(rng, folder)


def _in_two_shards(rng, folder):
  """Which of the two counts would depend on who reads."""
  first, second = (int(i) for i in rng.permutation(len(_shards(folder)))[:2])
  header, data = parts(_shards(folder)[first])
  name = pick(rng, [n for n in header if n != '__metadata__'])
  begin, end = header[name]['data_offsets']
  target = _shards(folder)[second]
  other, more = parts(target)
  other[name] = header[name] | {
    'data_offsets': [len(more), len(more) + end - begin]
  }
  put(target, other, more + b'\1' * (end - begin))


SHARDED = {
  'escaping shard': ('refused', _escaping),
  'weight_map': ('refused', json_change(INDEX, _weight_map, _no_weight_map)),
  'wrong shard': ('refused', json_change(INDEX, _wrong_shard)),
  'unlisted tensor': ('either', json_change(INDEX, _unlisted)),
  'shard outside': ('refused', _shard_outside),
  'shard lost': ('refused', _shard_lost),
  'shard no file': ('refused', _shard_no_file),
  'in two shards': ('refused', _in_two_shards),
  'index no JSON': ('refused', no_json(INDEX)),
  'index cut': ('refused', cut(INDEX)),
  'index no file': ('refused', no_file(INDEX)),
  'index outside': ('refused', led_outside(INDEX)),
  'index endless': ('refused', endless(INDEX)),
}


# ---------------------------------------------------------------------------
# config.json
# ---------------------------------------------------------------------------

SIZES = (
  *('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads'),
  *('intermediate_size', 'max_position_embeddings', 'num_key_value_heads'),
  *('head_dim', 'n_embd', 'n_layer', 'n_head', 'n_positions', 'n_inner'),
)


def _huge(rng, value):
  names = [n for n in SIZES if value.get(n) is not None]
  for name in rng.permutation(names)[: int(rng.integers(1, 4))]:
    value[str(name)] = pick(rng, HUGE)


def _mistyped(rng, value):
  name = pick(rng, list(value))
  value[name] = pick(rng, (*NO_NUMBER, *HUGE, float('inf'), -1, 0, '\ud800'))


def _nested(rng, value):
  dicts = [v for v in value.values() if isinstance(v, dict) and v]
  _mistyped(rng, pick(rng, dicts) if dicts else value)


def _odd_lists(rng, value):
  name = pick(
    rng, ('architectures', 'model_type', 'layer_types', 'eos_token_id')
  )
  value[name] = pick(rng, ([[]], [{}], [None], {}, [7], ['x', []], 'x', 7))


def _odd_statistics(rng, value):
  name = pick(rng, ('reward_mean', 'reward_std'))
  value[name] = pick(rng, (10**400, float('nan'), float('inf'), 'x', [], True))


CONFIG = {
  'huge sizes': ('refused', json_change('config.json', _huge)),
  'wrong kinds': ('either', json_change('config.json', _mistyped, _nested)),
  'odd lists': ('either', json_change('config.json', _odd_lists)),
  'odd statistics': ('refused', json_change('config.json', _odd_statistics)),
  'config no JSON': ('refused', no_json('config.json')),
  'config cut': ('refused', cut('config.json')),
  'config flipped': ('either', flipped('config.json')),
  'config no file': ('refused', no_file('config.json')),
  'config outside': ('refused', led_outside('config.json')),
  'config endless': ('refused', endless('config.json')),
}


# ---------------------------------------------------------------------------
# Tokenizers
# ---------------------------------------------------------------------------


def _ids(rng, value):
  vocab = value['model']['vocab']
  # The last: what it stands for is in no other table.
  vocab[list(vocab)[-1]] = pick(
    rng, (2**31, 2**32 - 1, 2**24, 2**63, -1, 1.5, 'x', None, [])
  )


def _no_vocab(rng, value):
  value['model']['vocab'] = pick(rng, ({}, [], None, 7, 'x'))


def _part(rng, value):
  name = pick(rng, list(value))
  value[name] = pick(rng, ({}, [], 7, 'x', [{}], {'type': 'x'}, '\ud800'))


def _special(rng, value):
  name = pick(rng, ('eos_token', 'pad_token', 'bos_token', 'unk_token'))
  odd = (7, [], {}, {'content': 7}, True, '', 'x' * 10**5, '\ud800', None)
  value[name] = pick(rng, odd)


def _class(rng, value):
  odd = ('../../outside/x', 'os.system', 7, [], {}, '\0', 'LlamaTokenizer')
  value['tokenizer_class'] = pick(rng, odd)


def _fields(rng, value):
  names = ('model_max_length', 'padding_side', 'added_tokens_decoder')
  more = ('extra_special_tokens', 'chat_template', 'init_inputs', 'backend')
  odd = (7, [], {}, 'x', {'7': 7}, [7], {'x': {}}, -1, 10**400, '\ud800')
  value[pick(rng, (*names, *more))] = pick(rng, odd)


def _file_field(*names):
  """Entries that make transformers look for files elsewhere."""

  def change(rng, folder):
    _name_files(rng, folder, pick(rng, names))

  return change


def _name_files(rng, folder, name):
  path = folder / 'tokenizer_config.json'
  value, away = json.loads(path.read_text()), outside(folder)
  target = pick(
    rng,
    (
      str(away / 'tokenizer.0.1.json'),
      '../outside/tokenizer.0.1.json',
      '/etc/tokenizer.0.json',
    ),
  )
  value[name] = [target] if name.endswith('s') else target
  path.write_text(json.dumps(value))


def _template(rng, folder):
  told = pick(
    rng,
    (
      b'{{ messages.__class__.__mro__ }}',
      b"{{ cycler.__init__.__globals__.os.mkdir('unpickled') }}",
      b"{% include '../outside/config.json' %}",
      b"{% import 'os' as os %}",
      b'{% for m in messages %}',
      b'{{ 7 / 0 }}',
      b'{% for i in range(10**9) %}x{% endfor %}',
      b'\xff\xfe',
      b"{{ raise_exception('\\ud800') }}",
    ),
  )
  (folder / 'chat_template.jinja').write_bytes(told)


TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json')


def _either_file(make):
  """The same change to one file of the tokenizer or the other."""

  def change(rng, folder):
    make(pick(rng, TOKENIZER_FILES))(rng, folder)

  return change


TOKENIZER = {
  'ids': ('refused', json_change('tokenizer.json', _ids)),
  'no vocabulary': ('refused', json_change('tokenizer.json', _no_vocab)),
  'parts': ('either', json_change('tokenizer.json', _part)),
  'special tokens': ('either', json_change('tokenizer_config.json', _special)),
  'classes': ('either', json_change('tokenizer_config.json', _class)),
  'fields': ('either', json_change('tokenizer_config.json', _fields)),
  'files elsewhere': ('refused', _file_field('fast_tokenizer_files')),
  # Old ones name the files of who saved them; nobody may look there.
  'file of old': ('kept', _file_field('tokenizer_file', 'vocab_file')),
  'templates': ('either', _template),
  'tokenizer no JSON': ('refused', _either_file(no_json)),
  'tokenizer cut': ('refused', _either_file(cut)),
  'tokenizer flipped': ('either', _either_file(flipped)),
  'tokenizer no file': ('refused', _either_file(no_file)),
  'tokenizer outside': ('refused', _either_file(led_outside)),
  'tokenizer endless': ('refused', _either_file(endless)),
}

GROUPS = {
  'single': SINGLE,
  'sharded': SHARDED,
  'config': CONFIG,
  'tokenizer': TOKENIZER,
}

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model folders that somebody broke, or made to break what opens them.

A kind is a function (rng, folder) that changes a good folder where it is, and
what has to become of the folder: 'kept' with the weights it had, 'refused', or
'either'. Beside the folder is `outside`, with files that would fit into it.
"""

import json
import os
import pickle
import struct

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
SHARDS = 'model-*.safetensors'
HUGE = (2**31, 2**40, 2**62, 2**63, 10**30, 10**400)
NO_NUMBER = (None, True, 1.5, float('nan'), '7', [], [7], {}, {'a': 1})
NO_JSON = (
  *(b'', b'\0' * 64, b'{"a": 1', b'{"a": "\xff"}', b'{"a": 1, "a": 2}', b'[]'),
  *(b'7', b'NaN', b'\xff\xfe{\0}\0', b'[' * 100_000),
  b'{"a":' * 990 + b'1' + b'}' * 990,
  b'{"a":' * 150 + b'1' + b'}' * 150,
  b'{"a": ' + b'9' * 5_000 + b'}',
)


def pick(rng, values):
  return values[int(rng.integers(len(values)))]


def on(change, *patterns):
  """`change` of one of the files with such names."""

  def apply(rng, folder):
    change(rng, pick(rng, sorted(p for x in patterns for p in folder.glob(x))))

  return apply


# ------------------------------------------------ any file: (rng, path) -> None


def no_json(rng, path):
  path.write_bytes(pick(rng, NO_JSON))


def cut(rng, path):
  data = path.read_bytes()
  path.write_bytes(data[: int(rng.integers(len(data)))])


def flipped(rng, path, most=2**30):
  data = bytearray(path.read_bytes())
  for _ in range(int(rng.integers(1, 5))):
    data[int(rng.integers(min(len(data), most)))] = int(rng.integers(256))
  path.write_bytes(data)


def no_file(rng, path):
  """Something else of that name; a pipe would be waited for for ever."""
  path.unlink()
  way = pick(rng, (os.mkdir, os.mkfifo, 'nowhere', '/dev/zero'))
  path.symlink_to(way) if isinstance(way, str) else way(path)


def led_outside(rng, path):
  path.unlink()
  path.symlink_to(path.parents[1] / 'outside' / path.name)


def linked_inside(rng, path):
  path.rename(path.with_name('elsewhere'))
  path.symlink_to('elsewhere')


def longer(rng, path):
  with path.open('ab') as file:
    file.write(rng.bytes(int(rng.integers(1, 99))))


def endless(rng, path):
  """Gigabytes of nothing, which take no place on the disk."""
  os.truncate(path, 3 * 2**30)


def pickled(*names):
  """A pickle that leaves a trace when it is opened."""

  def change(rng, folder):
    if WEIGHTS in names:
      (folder / WEIGHTS).unlink()
    trace = Exploit(folder.parent / 'unpickled')
    (folder / pick(rng, names)).write_bytes(pickle.dumps(trace))

  return change


class Exploit:
  def __init__(self, trace):
    self.trace = str(trace)

  def __reduce__(self):
    return os.mkdir, (self.trace,)


def edited(*changes):
  """A file of JSON after one of the changes (rng, value)."""

  def apply(rng, path):
    value = json.loads(path.read_text())
    pick(rng, changes)(rng, value)
    path.write_text(json.dumps(value))

  return apply


def sets(names, values):
  """One of the entries becomes one of the values."""

  def change(rng, value):
    value[pick(rng, names)] = pick(rng, values)

  return change


def broken(what, *names):
  """Damage that no file of JSON can have and be used."""
  ways = {'no JSON': no_json, 'cut': cut, 'no file': no_file}
  ways |= {'outside': led_outside, 'endless': endless}
  return {f'{what} {way}': ('refused', on(ways[way], *names)) for way in ways}


# ------------------------------------------- the header of a file of tensors


def parts(path):
  """(header, bytes of the tensors) of a file."""
  data = path.read_bytes()
  (size,) = struct.unpack('<Q', data[:8])
  return json.loads(data[8 : 8 + size]), data[8 + size :]


def put(path, header, data, size=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if size is None else size
  path.write_bytes(struct.pack('<Q', size) + text + data)


def tensors(header):
  return [name for name in header if name != '__metadata__']


def framed(make):
  """The file of make(rng, header, bytes) -> the same, and perhaps a size."""

  def apply(rng, folder):
    put(folder / WEIGHTS, *make(rng, *parts(folder / WEIGHTS)))

  return apply


def entry_changed(change):
  """The file after change(rng, entry of one tensor, header)."""

  def make(rng, header, data):
    change(rng, header[pick(rng, tensors(header))], header)
    return header, data

  return framed(make)


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
  name = pick(rng, tensors(header))
  way = int(rng.integers(3))
  old = header.pop(name)
  if way == 0:
    header[name] = pick(rng, (None, 7, [], 'ab', {}, {'dtype': 'F32'}))
  elif way == 1:
    header['x' + name] = old


def _alias(rng, entry, header):
  """A second tensor on the bytes of the first."""
  entries = [header[n] for n in tensors(header)]
  other = pick(rng, [e for e in entries if e is not entry])
  size = entry['data_offsets'][1] - entry['data_offsets'][0]
  begin = other['data_offsets'][0]
  entry['data_offsets'] = [begin, begin + size]


def _stray(rng, entry, header):
  names = ('../../x', '\ud800', 'a\nb\x1b[31m', 'x' * 10**6, '', '\0')
  empty = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}
  header[pick(rng, names)] = empty


def _hole(rng, header, data):
  """Bytes that are no tensor's, where a second file may hide."""
  for name in tensors(header):
    offsets = header[name]['data_offsets']
    header[name]['data_offsets'] = [n + 64 for n in offsets]
  return header, b'x' * 64 + data


def _twice(rng, header, data):
  name, text = pick(rng, tensors(header)), json.dumps(header)
  text = f'{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}'
  return text.encode(), data


def _header_size(rng, header, data):
  sizes = (0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)
  return header, data, pick(rng, sizes)


def _header_text(rng, header, data):
  return pick(rng, NO_JSON), data


def _header_endless(rng, path):
  put(path, *parts(path), 2 * 2**30)
  endless(rng, path)


SINGLE = {
  'offsets': ('refused', entry_changed(_offsets)),
  'shapes': ('refused', entry_changed(_shape)),
  'types': ('refused', entry_changed(_dtype)),
  'entries': ('refused', entry_changed(_entry)),
  'bytes of two tensors': ('refused', entry_changed(_alias)),
  'strays': ('refused', entry_changed(_stray)),
  'a hole': ('refused', framed(_hole)),
  'a tensor twice': ('refused', framed(_twice)),
  'header size': ('refused', framed(_header_size)),
  'header no JSON': ('refused', framed(_header_text)),
  'header of gigabytes': ('refused', on(_header_endless, WEIGHTS)),
  'longer': ('refused', on(longer, WEIGHTS)),
  'weights cut': ('refused', on(cut, WEIGHTS)),
  'weights flipped': ('either', on(flipped, WEIGHTS)),
  'header flipped': ('either', on(lambda *x: flipped(*x, 600), WEIGHTS)),
  'weights no file': ('refused', on(no_file, WEIGHTS)),
  'weights outside': ('refused', on(led_outside, WEIGHTS)),
  'weights by a link': ('kept', on(linked_inside, WEIGHTS)),
  'pickle': ('refused', pickled('pytorch_model.bin', 'model.pt', WEIGHTS)),
  'pickle beside': (
    'kept',
    pickled('pytorch_model.bin', 'training_args.bin', 'x.pkl'),
  ),
}


# ------------------------------------------------------- shards and their index


def _escaping(rng, folder):
  index = json.loads((folder / INDEX).read_text())
  names = index['weight_map']
  name = pick(rng, list(names))
  file, away = names[name], folder.parent / 'outside'
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


def _wrong_shard(rng, value):
  names = value['weight_map']
  name = pick(rng, list(names))
  names[name] = pick(rng, sorted({*names.values()} - {names[name]}))


def _unlisted(rng, value):
  del value['weight_map'][pick(rng, list(value['weight_map']))]


def _in_two_shards(rng, folder):
  """Which of the two counts would depend on who reads."""
  source, target = rng.permutation(sorted(folder.glob(SHARDS)))[:2]
  header, data = parts(source)
  name = pick(rng, tensors(header))
  begin, end = header[name]['data_offsets']
  other, more = parts(target)
  offsets = [len(more), len(more) + end - begin]
  other[name] = header[name] | {'data_offsets': offsets}
  put(target, other, more + b'\1' * (end - begin))


_no_map = sets(['weight_map'], (None, 7, [], {}, 'ab', [['a', 'b']]))
SHARDED = {
  'escaping shard': ('refused', _escaping),
  'weight_map': (
    'refused',
    on(edited(_no_map, lambda rng, value: value.pop('weight_map')), INDEX),
  ),
  'wrong shard': ('refused', on(edited(_wrong_shard), INDEX)),
  'unlisted tensor': ('either', on(edited(_unlisted), INDEX)),
  'shard outside': ('refused', on(led_outside, SHARDS)),
  'shard lost': ('refused', on(lambda rng, path: path.unlink(), SHARDS)),
  'shard no file': ('refused', on(no_file, SHARDS)),
  'in two shards': ('refused', _in_two_shards),
  **broken('index', INDEX),
}


# ------------------------------------------------------------------ config.json

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
  odd = (*NO_NUMBER, *HUGE, float('inf'), -1, 0, '\ud800')
  sets(list(value), odd)(rng, value)


def _nested(rng, value):
  dicts = [v for v in value.values() if isinstance(v, dict) and v]
  _mistyped(rng, pick(rng, dicts) if dicts else value)


_odd_lists = sets(
  ('architectures', 'model_type', 'layer_types', 'eos_token_id'),
  ([[]], [{}], [None], {}, [7], ['x', []], 'x', 7),
)
_odd_statistics = sets(
  ('reward_mean', 'reward_std'),
  (10**400, float('nan'), float('inf'), 'x', [], True),
)
CONFIG = {
  'huge sizes': ('refused', on(edited(_huge), 'config.json')),
  'wrong kinds': ('either', on(edited(_mistyped, _nested), 'config.json')),
  'odd lists': ('either', on(edited(_odd_lists), 'config.json')),
  'odd statistics': ('refused', on(edited(_odd_statistics), 'config.json')),
  'config flipped': ('either', on(flipped, 'config.json')),
  **broken('config', 'config.json'),
}


# ------------------------------------------------------------------- tokenizers

TOKENS, SETTINGS = 'tokenizer.json', 'tokenizer_config.json'


def _ids(rng, value):
  vocab = value['model']['vocab']
  # The last: what it stands for is in no other table.
  wrong = (2**31, 2**32 - 1, 2**24, 2**63, -1, 1.5, 'x', None, [])
  vocab[list(vocab)[-1]] = pick(rng, wrong)


def _no_vocab(rng, value):
  value['model']['vocab'] = pick(rng, ({}, [], None, 7, 'x'))


def _part(rng, value):
  sets(list(value), ({}, [], 7, 'x', [{}], {'type': 'x'}, '\ud800'))(rng, value)


_special = sets(
  ('eos_token', 'pad_token', 'bos_token', 'unk_token'),
  (7, [], {}, {'content': 7}, True, '', 'x' * 10**5, '\ud800', None),
)
_class = sets(
  ['tokenizer_class'],
  ('../../outside/x', 'os.system', 7, [], {}, '\0', 'LlamaTokenizer'),
)
_fields = sets(
  (
    *('model_max_length', 'padding_side', 'added_tokens_decoder', 'backend'),
    *('extra_special_tokens', 'chat_template', 'init_inputs'),
  ),
  (7, [], {}, 'x', {'7': 7}, [7], {'x': {}}, -1, 10**400, '\ud800'),
)


def _named_files(*names):
  """Entries that make transformers look for files elsewhere."""

  def change(rng, path):
    name = pick(rng, names)
    away = path.parents[1] / 'outside' / 'tokenizer.0.1.json'
    target = pick(
      rng,
      (str(away), '../outside/tokenizer.0.1.json', '/etc/tokenizer.0.json'),
    )
    value = [target] if name.endswith('s') else target
    edited(sets([name], [value]))(rng, path)

  return on(change, SETTINGS)


def _template(rng, folder):
  text = pick(
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
  (folder / 'chat_template.jinja').write_bytes(text)


TOKENIZER = {
  'ids': ('refused', on(edited(_ids), TOKENS)),
  'no vocabulary': ('refused', on(edited(_no_vocab), TOKENS)),
  'parts': ('either', on(edited(_part), TOKENS)),
  'special tokens': ('either', on(edited(_special), SETTINGS)),
  'classes': ('either', on(edited(_class), SETTINGS)),
  'fields': ('either', on(edited(_fields), SETTINGS)),
  'files elsewhere': ('refused', _named_files('fast_tokenizer_files')),
  # Old ones name the files of who saved them; nobody may look there.
  'file of old': ('kept', _named_files('tokenizer_file', 'vocab_file')),
  'templates': ('either', _template),
  'tokenizer flipped': ('either', on(flipped, TOKENS, SETTINGS)),
  **broken('tokenizer', TOKENS, SETTINGS),
}

GROUPS = {
  'single': SINGLE,
  'sharded': SHARDED,
  'config': CONFIG,
  'tokenizer': TOKENIZER,
}

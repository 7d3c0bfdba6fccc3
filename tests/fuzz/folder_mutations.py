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
CONFIG, SHARDS = 'config.json', 'model-*.safetensors'
TOKENS, SETTINGS = 'tokenizer.json', 'tokenizer_config.json'
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
  """change(rng, path) of one of the files with such names."""

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


def broken(what, *names):
  """Damage that no file of JSON can have and be used."""
  ways = {'no JSON': no_json, 'cut': cut, 'no file': no_file}
  ways |= {'outside': led_outside, 'endless': endless}
  return {f'{what} {way}': ('refused', on(ways[way], *names)) for way in ways}


# ------------------- values in a file of JSON, or in the header of a safetensors


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


def edited(names, *changes):
  """One of the files after one of the changes (rng, its value)."""

  def apply(rng, path):
    if path.suffix == '.json':
      value = json.loads(path.read_text())
      pick(rng, changes)(rng, value)
      path.write_text(json.dumps(value))
    else:
      value, data = parts(path)
      pick(rng, changes)(rng, value)
      put(path, value, data)

  return on(apply, *names.split())


def framed(make):
  """The file of make(rng, header, bytes) -> the same, and perhaps a size."""
  return on(lambda rng, path: put(path, *make(rng, *parts(path))), WEIGHTS)


def sets(where, values):
  """One of the values, or of values(what holds it), at a path of keys.

  Of the path, each entry is some keys, or None: all of them.
  """

  def change(rng, value):
    *path, last = where
    for keys in path:
      value = value[pick(rng, keys or tensors(value))]
    key = pick(rng, last or list(value))
    value[key] = pick(rng, values(value) if callable(values) else values)

  return change


def removes(*path):
  """An entry is not there."""

  def change(rng, value):
    for key in path:
      value = value[key]
    del value[pick(rng, tensors(value))]

  return change


# ------------------------------------------- the header of a file of tensors


def _offsets(entry):
  begin, end = entry['data_offsets']
  return (
    *([begin + 4, end + 4], [begin - 4, end - 4], [end, begin], [0, 0]),
    *([-(end - begin), 0], [begin, end + 2**40], [2**62, 2**62 + 4]),
    *([float(begin), float(end)], [str(begin), str(end)], [True, end]),
    *([begin], [begin, end, end], [], None, {}, 'ab', 7, [None, None]),
    *([begin, 10**400], [10**400, 10**400 + end - begin], [[], []]),
  )


def _shapes(entry):
  shape, (begin, end) = entry['shape'], entry['data_offsets']
  size = (end - begin) // 4
  return (
    *([-1, -size], [size, 1, 1], [1] * 40 + shape, [1] * 2_000 + shape),
    *([float(n) for n in shape], [str(n) for n in shape], [shape], []),
    *([2**40, 2**40], [2**64 * size], [0, 2**70], [True, *shape], None),
    *({}, 'ab', 7, [None], [10**400], [size + 1], [-size], [0]),
  )


TYPES = ('F64', 'I32', 'F16', 'F8_E4M3', 'f32', '', 'O', None, 7, ['F32'], {})
NO_ENTRY = (None, 7, [], 'ab', {}, {'dtype': 'F32'})
STRAYS = ('../../x', '\ud800', 'a\nb\x1b[31m', 'x' * 10**6, '', '\0')
EMPTY = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}


def _renamed(rng, header):
  name = pick(rng, tensors(header))
  header['x' + name] = header.pop(name)


def _alias(rng, header):
  """A second tensor on the bytes of the first."""
  entry, other = (header[n] for n in rng.permutation(tensors(header))[:2])
  begin, end = entry['data_offsets']
  first = other['data_offsets'][0]
  entry['data_offsets'] = [first, first + end - begin]


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


def _header_endless(rng, path):
  put(path, *parts(path), 2 * 2**30)
  endless(rng, path)


SINGLE = {
  'offsets': (
    'refused',
    edited(WEIGHTS, sets([None, ['data_offsets']], _offsets)),
  ),
  'shapes': ('refused', edited(WEIGHTS, sets([None, ['shape']], _shapes))),
  'types': ('refused', edited(WEIGHTS, sets([None, ['dtype']], TYPES))),
  'entries': (
    'refused',
    edited(
      WEIGHTS,
      lambda rng, header: sets([tensors(header)], NO_ENTRY)(rng, header),
      *(_renamed, removes()),
    ),
  ),
  'bytes of two tensors': ('refused', edited(WEIGHTS, _alias)),
  'strays': ('refused', edited(WEIGHTS, sets([STRAYS], [EMPTY]))),
  'a hole': ('refused', framed(_hole)),
  'a tensor twice': ('refused', framed(_twice)),
  'header size': ('refused', framed(_header_size)),
  'header no JSON': (
    'refused',
    framed(lambda rng, header, data: (pick(rng, NO_JSON), data)),
  ),
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
  away = folder.parent / 'outside'

  def elsewhere(names):
    file = next(iter(names.values()))
    return (
      *(f'../outside/{file}', str(away / file), f'x/../{file}', f'./{file}'),
      *('..', '.', '', '/etc/passwd', f'{file}\0', '\ud800.safetensors'),
      *('x' * 5_000 + '.safetensors', 'a\nb.safetensors', None, 7, [file]),
      *({}, True, 'pytorch_model.bin', '../outside', '~/x.safetensors'),
    )

  edited(INDEX, sets([['weight_map'], None], elsewhere))(rng, folder)


def _wrong_shard(rng, value):
  names = value['weight_map']
  name = pick(rng, list(names))
  names[name] = pick(rng, sorted({*names.values()} - {names[name]}))


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


_NO_MAP = (None, 7, [], {}, 'ab', [['a', 'b']])
SHARDED = {
  'escaping shard': ('refused', _escaping),
  'weight_map': (
    'refused',
    edited(
      *(INDEX, sets([['weight_map']], _NO_MAP)),
      lambda rng, value: value.pop('weight_map'),
    ),
  ),
  'wrong shard': ('refused', edited(INDEX, _wrong_shard)),
  'unlisted tensor': ('either', edited(INDEX, removes('weight_map'))),
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
LISTS = ('architectures', 'model_type', 'layer_types', 'eos_token_id')
NO_LIST = ([[]], [{}], [None], {}, [7], ['x', []], 'x', 7)
NO_STATISTIC = (10**400, float('nan'), float('inf'), 'x', [], True)
_mistyped = sets([None], (*NO_NUMBER, *HUGE, float('inf'), -1, 0, '\ud800'))


def _huge(rng, value):
  names = [n for n in SIZES if value.get(n) is not None]
  for _ in range(int(rng.integers(1, 4))):
    value[pick(rng, names)] = pick(rng, HUGE)


def _nested(rng, value):
  dicts = [v for v in value.values() if isinstance(v, dict) and v]
  _mistyped(rng, pick(rng, dicts) if dicts else value)


CONFIGS = {
  'huge sizes': ('refused', edited(CONFIG, _huge)),
  'wrong kinds': ('either', edited(CONFIG, _mistyped, _nested)),
  'odd lists': ('either', edited(CONFIG, sets([LISTS], NO_LIST))),
  'odd statistics': (
    'refused',
    edited(CONFIG, sets([['reward_mean', 'reward_std']], NO_STATISTIC)),
  ),
  'config flipped': ('either', on(flipped, CONFIG)),
  **broken('config', CONFIG),
}


# ------------------------------------------------------------------- tokenizers

NO_ID = (2**31, 2**32 - 1, 2**24, 2**63, -1, 1.5, 'x', None, [])
NO_PART = ({}, [], 7, 'x', [{}], {'type': 'x'}, '\ud800')
SPECIAL = ('eos_token', 'pad_token', 'bos_token', 'unk_token')
NO_TOKEN = (7, [], {}, {'content': 7}, True, '', 'x' * 10**5, '\ud800', None)
CLASSES = ('../../outside/x', 'os.system', 7, [], {}, '\0', 'LlamaTokenizer')
FIELDS = (
  *('model_max_length', 'padding_side', 'added_tokens_decoder', 'backend'),
  *('extra_special_tokens', 'chat_template', 'init_inputs'),
)
NO_FIELD = (7, [], {}, 'x', {'7': 7}, [7], {'x': {}}, -1, 10**400, '\ud800')
TEMPLATES = (
  b'{{ messages.__class__.__mro__ }}',
  b"{{ cycler.__init__.__globals__.os.mkdir('unpickled') }}",
  b"{% include '../outside/config.json' %}",
  b"{% import 'os' as os %}",
  b'{% for m in messages %}',
  b'{{ 7 / 0 }}',
  b'{% for i in range(10**9) %}x{% endfor %}',
  b'\xff\xfe',
  b"{{ raise_exception('\\ud800') }}",
)


def _ids(rng, value):
  vocab = value['model']['vocab']
  # The last: what it stands for is in no other table.
  sets([list(vocab)[-1:]], NO_ID)(rng, vocab)


def _named_files(*names):
  """Entries that make transformers look for files elsewhere."""

  def change(rng, folder):
    name, file = pick(rng, names), 'outside/tokenizer.0.1.json'
    places = (str(folder.parent / file), f'../{file}', '/etc/tokenizer.0.json')
    if name.endswith('s'):
      places = [[place] for place in places]
    edited(SETTINGS, sets([[name]], places))(rng, folder)

  return change


def _template(rng, folder):
  (folder / 'chat_template.jinja').write_bytes(pick(rng, TEMPLATES))


TOKENIZER = {
  'ids': ('refused', edited(TOKENS, _ids)),
  'no vocabulary': (
    'refused',
    edited(TOKENS, sets([['model'], ['vocab']], ({}, [], None, 7, 'x'))),
  ),
  'parts': ('either', edited(TOKENS, sets([None], NO_PART))),
  'special tokens': ('either', edited(SETTINGS, sets([SPECIAL], NO_TOKEN))),
  'classes': (
    'either',
    edited(SETTINGS, sets([['tokenizer_class']], CLASSES)),
  ),
  'fields': ('either', edited(SETTINGS, sets([FIELDS], NO_FIELD))),
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
  'config': CONFIGS,
  'tokenizer': TOKENIZER,
}

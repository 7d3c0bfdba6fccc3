# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The formats of rows that users bring, each turned into one internal form.

`KINDS` names them; docs/your_data.md says what each field means. A format ends
in a prompt and answers, as text or turns, which `_written` writes by a `Chat`.
Functions of one row; a `BadRow` says why it is not used.
"""

import collections
import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from warm_jax import errors, files
from warm_jax.data import chat as chat_lib
from warm_jax.data import sources

BadRow = sources.BadRow

FIRST_ROWS = 32  # of a file, which show whether answers repeat their prompts
MOST_PAIRS = 10_000  # of one row; lists of a thousand texts make a million
MOST_CHARACTERS = 2**20  # of one text; tokenising takes 200 bytes for each

# Columns that hold what other formats call the prompt.
_PROMPTS = {
  *('question', 'instruction', 'query', 'input', 'context', 'history', 'user'),
  *('problem', 'task', 'post', 'request', 'conversation', 'conversations'),
  *('dialogue', 'messages', 'prompts', 'instructions', 'questions', 'human'),
}

_CUT = 'cut from the answers, which repeat it', 'prompt'  # a remark on a row
_KINDS = {dict: 'an object', list: 'a list', str: 'text', int: 'a number'}
_KINDS |= {float: 'a number', bool: 'true or false', type(None): 'missing'}


def preference_rows(row: Any, chat: chat_lib.Chat) -> list[dict]:
  """Pairs of one row: dicts of prompt, chosen, rejected and perhaps margin.

  Of completions every pair of different rank, rank 0 being the best. A side of several turns has chosen_turns or rejected_turns as well: prompt and
  response of each turn of the assistant.
  """
  row = _fields(row, chat)
  margin = _margin(row)
  if 'chosen' in row or 'rejected' in row:
    prompt, ranked = _chosen_and_rejected(row)
  elif 'completions' in row:
    prompt, ranked = _ranked(row)
  else:
    raise _unknown(row)
  counts = collections.Counter(rank for rank, *_ in ranked).values()
  pairs = (sum(counts) ** 2 - sum(count**2 for count in counts)) // 2
  _need(pairs, 'no two completions of different rank')
  _need(pairs <= MOST_PAIRS, f'it makes {pairs} pairs, more than {MOST_PAIRS}')
  ranks, names, answers = zip(*ranked)
  prompt, sides = _written(row, prompt, answers, names, chat)
  of_rank = collections.defaultdict(list)
  for rank, side in zip(ranks, sides):
    of_rank[rank].append(side)
  made = [
    _item(prompt, chosen=chosen, rejected=rejected) | margin
    for better, worse in itertools.combinations(sorted(of_rank), 2)
    for chosen in of_rank[better]
    for rejected in of_rank[worse]
  ]
  is_same = any(item['chosen'] == item['rejected'] for item in made)
  _need(not is_same, 'chosen and rejected are the same text')
  return made


def _item(prompt: str, **sides) -> dict[str, Any]:
  """A prompt and its sides, each with its turns if there are several."""
  item: dict[str, Any] = {'prompt': prompt}
  for side, (text, turns) in sides.items():
    _need(text.strip(), f'{side!r} is empty')
    item[side] = text
    if len(turns) > 1:
      item[f'{side}_turns'] = turns
  return item


def response_row(row: Any, chat: chat_lib.Chat) -> dict:
  """Prompt and response of a row; a bare `text` answers an empty prompt.

  A response of several turns has response_turns as well, as above, and a row
  whose `label` is False has is_bad.
  """
  row = _fields(row, chat)
  field = 'completion' if 'completion' in row else 'response'
  if field in row and 'prompt' in row:
    given = row['prompt'], [row[field]], [field]
    prompt, [side] = _written(row, *given, chat)
  elif 'messages' in row:
    prompt, [side] = _in_turns(row, None, [row['messages']], ['messages'], chat)
  elif 'text' in row:
    prompt, [side] = _written(row, None, [row['text']], ['text'], chat)
  else:
    if field in row:
      _need_no_prompt(row)
    _need(field not in row, "'prompt' is missing")
    raise _unknown(row)
  made = _item(prompt, response=side)
  # Beside a bare text it may be a class of the text.
  label = dict.get(row, 'label') if {field, 'messages'} & row.keys() else ''
  label = str(label).strip().lower().removesuffix('.0')
  if label in ('true', '1', *_BAD):
    row.read.add('label')
  return made | ({'is_bad': True} if label in _BAD else {})


def prompt_row(row: Any, chat: chat_lib.Chat) -> dict:
  """The prompt of one row of any format that has one."""
  row = _fields(row, chat)
  fields = ['prompt', 'messages'] + ['context'] * ('completions' in row)
  field = next((f for f in fields if f in row), '')
  if not field and 'chosen' in row:
    return {'prompt': preference_rows(row, chat)[0]['prompt']}
  if not field:
    raise _unknown(row)
  # Answers are no prompts, and not missed.
  row.read |= _ANSWERS | {'margin', 'label'}
  prompt = row[field]
  if field == 'messages':
    prompt = _turns(prompt, field, 'user', chat)
    prompt = prompt[:-1] if prompt[-1]['role'] == 'assistant' else prompt
  text, _ = _written(row, prompt, [], [], chat)
  _need(text.strip(), 'the prompt is empty')
  return {'prompt': text}


def _learnable(row: Any, chat: chat_lib.Chat) -> list[dict]:
  made = response_row(row, chat)
  if made.pop('is_bad', False):
    chat.told.add(('left out as bad', 'label'))
    return []
  return [made]


# What the rows of a file may be: the formats known, and the items of a row.
KINDS = {
  'pairs': (
    'prompt + chosen + rejected; chosen + rejected with a common beginning; '
    'context + completions [{rank, completion}]; texts or lists of '
    '{role, content}',
    preference_rows,
  ),
  'prompts': (
    'prompt; messages; or any format of preferences',
    lambda *row: [prompt_row(*row)],
  ),
  'responses': (
    'prompt + completion (or response); messages; text',
    _learnable,
  ),
}


class Columns:
  """Names of fields in a user's files, and what became of the others.

  `names` such as 'prompt=question, chosen=good' has fields and their columns;
  prompt=instruction+input joins two, texts by a line break and lists of turns
  as turns, and `prompt=` says that a common beginning is the prompt.
  """

  def __init__(self, names: str = ''):
    parts = [part.partition('=') for part in names.split(',') if part.strip()]
    self.names = {
      field.strip(): [c.strip() for c in columns.split('+') if c.strip()]
      for field, _, columns in parts
    }
    wrong = sorted(self.names.keys() - _FIELDS)
    errors.need(
      not wrong,
      f'data.columns: {"".join(wrong[:1])!r} is no field; write FIELD=COLUMN, '
      f'the fields are {", ".join(sorted(_FIELDS))}',
    )
    self.told: dict[str, collections.Counter] = {}  # {source: {remark: rows}}
    self._is_usual = False  # all answers repeat their prompts
    self._missed = {c for columns in self.names.values() for c in columns}

  def read(
    self,
    source: str,
    rows: Iterable[sources.SourceRow],
    convert: Callable,
    chat: chat_lib.Chat,
  ) -> Iterator[tuple[sources.SourceRow, list[dict] | BadRow]]:
    """Yields rows of a source with the items that `convert` of `KINDS` makes."""
    counts = self.told.setdefault(source, collections.Counter())
    rows = iter(rows)
    first = list(itertools.islice(rows, FIRST_ROWS))
    self._is_usual = True  # is it? The first rows tell.
    tried = [self._items(row, convert, chat) for row in first]
    cut = [_CUT in told for made, told in tried if isinstance(made, list)]
    self._is_usual = len(cut) >= 10 and sum(cut) >= 0.95 * len(cut)
    for row in itertools.chain(first, rows):
      items, remarks = self._items(row, convert, chat)
      counts.update(remarks)
      yield row, items

  def _items(self, row, convert, chat) -> tuple[list[dict] | BadRow, set]:
    chat.told.clear()
    try:
      if isinstance(row.value, BadRow):
        raise row.value
      fields = _fields(self._renamed(row.value, chat), chat)
      fields.is_implicit = self.names.get('prompt') == []
      fields.is_usual = self._is_usual
      made = convert(fields, chat)
    except BadRow as bad:
      return bad, set()
    left = fields.keys() - fields.read
    unused = {n for n in left if dict.get(fields, n) not in ('', [], {})}
    return made, chat.told | {('not used', str(name)) for name in unused}

  def _renamed(self, row: Any, chat) -> Any:
    if not isinstance(row, dict) or not self.names:
      return row
    self._missed -= row.keys()
    used = {column for columns in self.names.values() for column in columns}
    renamed = {name: row[name] for name in row if name not in used}
    for field, columns in self.names.items():
      given = [row[c] for c in columns if c in row]
      found = [_unzipped(v) for v in given if v not in (None, '', [])]
      if len(found) > 1 and any(map(_is_conversation, found)):
        turned = (_turns(value, field, 'user', chat) for value in found)
        found = [list(itertools.chain(*turned))]
      elif len(found) > 1:
        found = ['\n'.join(_text(value, field) for value in found)]
      if found or '' in given:
        if field in renamed:
          renamed[f"the file's {field}"] = renamed.pop(field)
        renamed[field] = found[0] if found else ''
      elif field == 'prompt' and columns and field not in row:
        raise BadRow(f'no column {columns[0]!r}, which data.columns names')
      elif given:
        renamed.setdefault(field, None)
    return renamed

  def check(self) -> None:
    """UserError if a column that the names have was in no row."""
    missed = ', '.join(map(repr, sorted(self._missed)))
    errors.need(not missed, f'data.columns: no row has a column {missed}')

  def summary(self) -> str:
    """One line: which columns were not used, what was cut, of how many rows."""
    lines = []
    for source, told in self.told.items():
      groups = collections.defaultdict(list)
      for (what, field), rows in sorted(told.items()):
        groups[what, rows].append(field)
      for (what, rows), fields in groups.items():
        counted = f'({rows} row{"s" * (rows != 1)})'
        lines.append(f'{source}: {what}: {", ".join(fields)} {counted}')
    return '; '.join(lines)


def flip_mask(num_rows: int, fraction: float, seed: int) -> np.ndarray:
  """Chooses the labels that are swapped: [N] bool, round(fraction N) True.

  A function of its arguments alone: averaging over members must not average
  over different noise (WARM section 4.2 swaps 25 % once).
  """
  mask = np.zeros(num_rows, bool)
  order = np.random.default_rng(seed).permutation(num_rows)
  mask[order[: round(fraction * num_rows)]] = True
  return mask


def labelled(pair: dict, flip: bool) -> dict:
  """A pair with `flipped`, and with its sides exchanged if flip."""
  other = {'chosen': 'rejected', 'rejected': 'chosen'}
  other |= {f'{a}_turns': f'{b}_turns' for a, b in other.items()}
  if flip:
    pair = {other.get(key, key): value for key, value in pair.items()}
  return pair | {'flipped': bool(flip)}


def _chosen_and_rejected(row: '_Fields'):
  """The prompt, if there is one, and (rank, field, answer) of all answers."""
  for field in ('chosen', 'rejected'):
    _need(field in row, f'{field!r} is missing')
  sides = [row['chosen'], row['rejected']]
  _need(
    len(set(map(_is_conversation, sides))) == 1,
    'one of chosen and rejected is a text, the other a conversation',
  )
  if 'prompt' not in row and _first_role(sides[0]) == 'assistant':
    _need_no_prompt(row)
  if not all(map(_is_texts, sides)):
    sides = [[side] for side in sides]
  return row.get('prompt'), [
    (rank, field, answer)
    for rank, field in enumerate(('chosen', 'rejected'))
    for answer in sides[rank]
  ]


def _ranked(row: '_Fields'):
  """As `_chosen_and_rejected`, of a row with `completions`."""
  _need('context' in row, "'context' is missing")
  given, ranked = row['completions'], []
  are_dicts = isinstance(given, list) and all(
    isinstance(c, dict) for c in given
  )
  _need(are_dicts, "'completions' is not a list of {rank, completion}")
  for number, one in enumerate(given, 1):
    rank, name = one.get('rank'), f'completion {number}'
    _need(type(rank) is int, f'the rank of {name} is not a whole number')
    ranked.append((rank, name, _unzipped(one.get('completion'))))
  return row['context'], ranked


def _need_no_prompt(row: '_Fields', chosen: str = '') -> None:
  """Refuses a row whose prompt seems to stand in another column."""
  found = []
  for name in sorted(row.keys() - (_FIELDS - {'context', 'messages'})):
    value = dict.get(row, name)
    text = value if isinstance(value, str) else ''
    is_full = text.strip() or _first_role(value)
    is_named = is_full and str(name).lower() in _PROMPTS
    # A sentence that the sides do not repeat may be what they answer.
    if is_named or len(text.split()) > 3 and text.strip() not in chosen:
      found.append(str(name))
  if not found:
    return
  found.sort(key='instruction history input query question'.find)
  joined = '+'.join(found)
  raise BadRow(
    f"no 'prompt', but text in {', '.join(map(repr, found))}: say where the "
    f'prompt is with --config.data.columns=prompt={joined} (warm score: '
    f'--columns=prompt={joined}), or prompt= for the common beginning of both'
  )


def _margin(row: dict) -> dict[str, float]:
  margin = row.get('margin')
  if margin is None:
    return {}
  if isinstance(margin, sources.Cell):
    with contextlib.suppress(ValueError):
      margin = float(margin)
  is_number = type(margin) in (int, float)
  _need(is_number, f"'margin' is {_kind(margin)}, not a number")
  fits = abs(margin) <= np.finfo(np.float32).max.item()  # nor NaN
  _need(fits, f"'margin' is {margin}, no number of 32 bits")
  return {'margin': float(margin)}


def _need(fine: object, reason: str) -> None:
  if not fine:
    raise BadRow(reason)


def _written(row: '_Fields', prompt, answers, fields, chat):
  """Text of a prompt; of each answer, and of each turn in it that answers.

  Whatever the format was, the rest is here: a prompt (None: the answers begin
  with it) and answers, in turns or as text.
  """
  is_plain = not any(map(_is_conversation, [prompt, *answers]))
  if not is_plain or row.in_turns and prompt is not None:
    return _in_turns(row, prompt, answers, fields, chat)
  texts = [_text(answer, field) for answer, field in zip(answers, fields)]
  if prompt is None:
    _need(
      chat.style != 'chat',
      'the model reads conversations, and this row has no prompt of its own',
    )
    chat.used.add('bare')
    cut, style = chat_lib.common_beginning(*texts)
    if style is None and len(texts) > 1 and not row.is_implicit:
      _need_no_prompt(row, texts[0])
    head, texts = texts[0][:cut], [text[cut:] for text in texts]
  else:
    head = chat.prompt(_text(prompt, 'prompt'))
    texts = _without(row, prompt, texts, chat, head[-1:].isspace())
    texts = [chat.literal(text, prompt) for text in texts]
    # The prompt may be a dialogue as one text, which its answers go on with.
    end, style = chat_lib.last_border(prompt)
    style = None if prompt[end:].strip() else style
  return head, [(text, chat_lib.turns_of(head, text, style)) for text in texts]


def _in_turns(row: '_Fields', prompt, answers, fields, chat):
  given = zip(answers, fields)
  sides = [_turns(answer, field, 'assistant', chat) for answer, field in given]
  # A plain prompt beside whole conversations repeats their first turns.
  is_whole = sides and all(side[0]['role'] != 'assistant' for side in sides)
  if prompt is None or isinstance(prompt, str) and is_whole:
    # One of them may continue another.
    least = min(map(len, sides)) - 1
    shared = min(chat_lib.num_common(*sides), least)
    _need(
      len(sides) == 1
      or not shared
      or all(side[shared]['role'] == 'assistant' for side in sides),
      f'the prompts of chosen and rejected differ, in turn {shared + 1}',
    )
    prompt = sides[0][:shared]
  else:
    _need(prompt != [], 'no turn stands before the response')
    prompt = _turns(prompt, 'prompt', 'user', chat)
  size = len(prompt)
  sides = [side[size:] if side[:size] == prompt else side for side in sides]
  for side, field in zip(sides, fields):
    _need(side, f'{field!r} adds no turn to the prompt')
    for turn in (side[0], side[-1]):
      _need(
        turn['role'] == 'assistant',
        f'{field!r} has to begin and end with a turn of the assistant, not of '
        f'{turn["role"]!r}',
      )
    _need(not _is_empty(side[-1]), f'{field!r} is empty')
  prompt = row.opened(prompt)
  _need(prompt, 'no turn stands before the response')
  is_open = prompt[-1]['role'] != 'assistant'
  _need(is_open, 'the prompt ends with a turn of the assistant')
  is_late = any(turn['role'] == 'system' for turn in prompt[1:])
  _need(not is_late, 'a system turn stands after the first turn')
  head = chat.prompt(prompt, row.tools)
  if all(isinstance(answer, str) for answer in answers):
    texts = _without(row, head, answers, chat, True)
    texts = _without(row, prompt[-1]['content'], texts, chat, True)
    sides = [[{'role': 'assistant', 'content': text}] for text in texts]
  found = []
  for side in sides:
    turns = [
      chat.split(prompt + side[:i], side[i : i + 1], row.tools)
      for i, turn in enumerate(side)
      if turn['role'] == 'assistant' and not _is_empty(turn)
    ]
    whole = chat.split(prompt, side, row.tools) if side[1:] else turns[0]
    head, text = whole
    found.append((text, turns))
  return head, found


def _without(row: '_Fields', prompt: str, answers, chat, is_spaced: bool):
  """The answers without a prompt that all repeat; is_spaced: so it ends."""
  cut = chat_lib.without(prompt, answers, row.is_usual)
  if cut is not answers:
    chat.told.add(_CUT)
    if is_spaced:
      cut = [re.sub(r'^ (?=\S)', '', text) for text in cut]
  return cut


def _turns(value, field: str, role: str, chat) -> list[dict]:
  """A list of turns as {role, content} and what the template reads besides."""
  if isinstance(value, str):
    return [{'role': role, 'content': _text(value, field)}]
  is_list = isinstance(value, list) and value
  _need(is_list, f'{field!r} is {_kind(value)}, not text or a list of turns')
  turns = []
  for number, turn in enumerate(value, 1):
    where = f'turn {number} of {field!r}'
    is_turn = isinstance(turn, dict)
    _need(is_turn, f'{where} is {_kind(turn)}, not {{role, content}}')
    if 'from' in turn and 'value' in turn and 'role' not in turn:  # ShareGPT
      roles, role = {'human': 'user', 'gpt': 'assistant'}, turn['from']
      role = roles.get(role, role) if isinstance(role, str) else role
      turn = {'role': role, 'content': turn['value']}
    made = {}
    if calls := turn.get('tool_calls'):
      _need(
        isinstance(calls, list) and chat.reads('tool_calls'),
        f'{where} calls tools, which the chat template does not write',
      )
      made['tool_calls'] = calls
      turn = turn | {'content': turn.get('content') or ''}
    for key in ('role', 'content'):
      made[key] = _text(turn.get(key), f'the {key} of {where}')
    for key, more in turn.items():
      if key not in made and isinstance(more, str) and more:
        if chat.reads(key):
          made[key] = _text(more, f'the {key} of {where}')
        else:
          chat.told.add(('not used', f'{field}.{key}'))
    turns.append(made)
  return turns


def _is_empty(turn: dict) -> bool:
  return not (turn['content'].strip() or turn.get('tool_calls'))


def _first_role(value) -> str:
  """Role of the first turn; '' of what is no list of turns."""
  first = value[0] if isinstance(value, list) and value else {}
  return (
    isinstance(first, dict) and (first.get('role') or first.get('from')) or ''
  )


def _unzipped(value):
  # TFDS gives a list of dicts as a dict of lists.
  if isinstance(value, dict) and value:
    columns = list(value.values())
    if all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
      return [dict(zip(value, entries)) for entries in zip(*columns)]
  return value


def _is_conversation(value) -> bool:
  return isinstance(value, (list, dict)) and not _is_texts(value)


def _is_texts(value) -> bool:
  is_list = isinstance(value, list) and bool(value)
  return is_list and all(isinstance(text, str) for text in value)


def _text(value, name: str) -> str:
  name = name if ' ' in name else repr(name)
  _need(isinstance(value, str), f'{name} is {_kind(value)}, not text')
  size, most = len(value), MOST_CHARACTERS
  _need(size <= most, f'{name} has {size} characters, more than {most}')
  try:
    value.encode()
  except UnicodeEncodeError:  # JSON can spell half a character: "\ud800"
    raise BadRow(f'{name} holds half a character') from None
  return value


def _kind(value) -> str:
  return _KINDS.get(type(value), type(value).__name__)


class _Fields(dict):
  """Fields of a row that are not None; `read` are the names of those used."""

  def __init__(self, row: dict, chat: chat_lib.Chat):
    super().__init__((k, v) for k, v in row.items() if v is not None)
    self.read: set = set()
    self.is_implicit = False  # the user says that no column holds the prompt
    self.is_usual = False  # all answers of the file repeat their prompts
    for field, value in self.items():
      if field != 'tools':
        self[field] = _unzipped(value)
      if field in _FIELDS and isinstance(value, str) and _WRITTEN.match(value):
        try:
          self[field] = files.loads(value.encode())
        except ValueError:
          reason = 'is a list of turns, but not JSON: write it with json.dumps'
          raise BadRow(f'{field!r} {reason}') from None
    self.tools: list | None = None
    if 'tools' in self and chat.reads('tools'):
      tools = self['tools']
      with contextlib.suppress(ValueError):
        tools = files.loads(tools.encode()) if isinstance(tools, str) else tools
      is_list = isinstance(tools, list)
      _need(is_list, "'tools' is no list, nor one as JSON")
      self.tools = tools
    # A plain prompt is a turn; also where other rows have a system turn.
    self.in_turns = bool('system' in row or self.tools or chat.style == 'chat')

  def opened(self, turns: list[dict]) -> list[dict]:
    """Turns with the row's `system` before them."""
    if not (text := self.get('system')):
      return turns
    first = {'role': 'system', 'content': _text(text, 'system')}
    return turns if turns[:1] == [first] else [first, *turns]

  def __getitem__(self, name):
    self.read.add(name)
    return super().__getitem__(name)

  def get(self, name, default=None):
    self.read.add(name)
    return super().get(name, default)


def _fields(row: Any, chat: chat_lib.Chat) -> _Fields:
  _need(isinstance(row, dict), f'the row is {_kind(row)}, not an object')
  return row if isinstance(row, _Fields) else _Fields(row, chat)


# Labels of responses that are not to be learned.
_BAD = ('false', '0', '-1', 'no', 'n', 'f', 'bad', 'rejected', 'negative')
_BAD += ('undesirable', 'dispreferred', 'unsafe', 'thumbs_down')
_FIELDS = {'prompt', 'messages', 'text', 'context', 'system', 'tools'}
_ANSWERS = {'chosen', 'rejected', 'completion', 'response', 'completions'}
_FIELDS |= _ANSWERS | {'margin', 'label'}
# Lists of turns that a table has written as text.
_WRITTEN = re.compile(r'\s*\[\s*\{\s*["\'](role|from|content|value)["\']\s*:')


def _unknown(row: dict) -> sources.UnknownFormat:
  names = ', '.join(sorted(map(str, row))[:12]) or 'none'
  return sources.UnknownFormat(f'in no known format; its fields: {names}')

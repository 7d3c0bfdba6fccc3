# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Dialogues written as one text, and where a prompt ends in them."""

import re
from typing import Any

from warm_jax.data import sources

# What begins a turn of the user, and one of the assistant. Line breaks behind
# it are the prompt's, a space is the response's.
STYLES = [
  (re.compile(user, re.MULTILINE), re.compile(rf'{answer}\n*', re.MULTILINE))
  for user, answer in (
    (r'^ *(?:Human|User|USER):', r'^ *(?:Assistant|ASSISTANT|AI|Bot|GPT):'),
    (r'^\*\*(?:Human|User):?\*\*:?', r'^\*\*(?:Assistant|AI):?\*\*:?'),
    (
      r'^#+ *(?:Instruction|Input|User|Human|Question|Prompt):?',
      r'^#+ *(?:Response|Assistant|Answer|Output):?',
    ),
    (r'^Q(?:uestion)?:', r'^A(?:nswer)?:'),
    (r'^(?:Instruction|Prompt):', r'^(?:Response|Output|Answer):'),
    (r'^(?:SUBREDDIT|TITLE|POST):', r'^TL;DR:'),
    (r'USER:', r'ASSISTANT:'),  # on one line
    (r'User:', r'Assistant:'),
    (r'\[INST\]', r'\[/INST\]'),
    (r'<\|im_start\|>user', r'<\|im_start\|>assistant'),
    (r'<\|user\|>', r'<\|assistant\|>'),
    (r'<start_of_turn>user', r'<start_of_turn>model'),
    (
      r'<\|start_header_id\|>user<\|end_header_id\|>',
      r'<\|start_header_id\|>assistant<\|end_header_id\|>',
    ),
  )
]
_LABEL = re.compile(r'^[ #*]{0,9}(\w[\w ]{0,20})\**:', re.M)  # of a turn, maybe


def last_border(text: str) -> tuple[int, Any]:
  """Where the last turn of the assistant begins, and the style; 0: nowhere."""
  ends = [(0, -1)]
  for number, (user, answer) in enumerate(STYLES):
    if user.search(text):
      ends += [(found.end(), -number) for found in answer.finditer(text)]
  end, number = max(ends)
  return end, STYLES[-number] if end else None


def turns_of(prompt: str, text: str, style) -> list[tuple[str, str]]:
  """Prompt and response of each turn of the assistant in a text."""
  turns, begin = [], 0
  while style and (user := style[0].search(text, begin)):
    # An empty line stands between turns.
    answered = text[begin : user.start()].removesuffix('\n').removesuffix('\n')
    turns.append((prompt + text[:begin], answered))
    answer = style[1].search(text, user.end())
    begin = answer.end() if answer else len(text)
  turns.append((prompt + text[:begin], text[begin:]))
  return [turn for turn in turns if turn[1].strip()]


def common_beginning(chosen: str, rejected: str) -> tuple[int, Any]:
  """Where the prompt of two texts ends, and their style; None: no dialogue.

  It is cut at a border of turns, else of words. A single space before the
  responses belongs to them, as tokenizers want it; line breaks belong to the
  prompt. A BadRow says why there is no prompt.
  """
  if chosen == rejected:
    raise sources.BadRow('chosen and rejected are the same text')
  # Both responses keep a character: one text may continue the other.
  least = min(len(chosen.rstrip()), len(rejected.rstrip())) - 1
  shared = chosen[: max(min(num_common(chosen, rejected), least), 0)]
  end, style = last_border(shared)
  if style is not None:
    return end, style
  if all(last_border(side)[0] for side in (chosen, rejected)):
    raise sources.BadRow('the prompts of chosen and rejected differ')
  labels = list(dict.fromkeys(_LABEL.findall(shared)))
  if len(labels) > 1 and shared.count('\n') >= len(labels) - 1:
    names = ' and '.join(f"'{label}:'" for label in labels[:2])
    raise sources.BadRow(
      f'a dialogue of turns {names}, whose last turn is not known to be the '
      "answer: put what comes before the answers into a field 'prompt'"
    )
  end = max((i for i, c in enumerate(shared, 1) if c.isspace()), default=0)
  if end == 0:  # no word ends in it (or a script that writes no spaces)
    end = len(shared)
  elif shared[end - 1] == ' ':
    end -= 1
  if not end:
    raise sources.BadRow(
      "no 'prompt', and chosen and rejected share no beginning (an empty "
      'prompt has to be given as one)'
    )
  return end, None


def without(prompt: str, answers: list[str]) -> list[str]:
  """The answers without the prompt, if all of them repeat it; else themselves.

  The line breaks behind it go with it; a space stays.
  """
  start, cut = prompt.strip(), []
  # With a word or two an answer may well begin: 'Hello there'.
  is_sure = len(start.split()) > 2 or not start[-1:].isalnum()
  opens = last_border(start)[0] == len(start)
  for text in (answer.lstrip() for answer in answers):
    rest = text[len(start) :]
    if is_sure and text.startswith(start) and (opens or rest[:1].isspace()):
      cut.append(rest.lstrip('\n'))
      continue
    for user, assistant in STYLES:  # the first turn of a dialogue
      begin = user.match(text)
      asked = text[begin.end() :].lstrip() if begin else ''
      rest = asked[len(start) :].lstrip()
      border = assistant.match(rest)
      if begin and border and asked.startswith(start):
        cut.append(rest[border.end() :])
        break
  is_repeated = len(cut) == len(answers) and all(rest.strip() for rest in cut)
  return cut if start and is_repeated else answers


def num_common(a, b) -> int:
  """Entries that two texts or lists have in common at their beginning."""
  differ = (i for i, (x, y) in enumerate(zip(a, b)) if x != y)
  return next(differ, min(len(a), len(b)))

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Each format that users bring, and each way a row can be wrong."""

import functools
import json

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import chat as chat_lib
from warm_jax.data import formats, sources

PLAIN = chat_lib.Chat(None, '{prompt}')


def turn(role, content):
  return {'role': role, 'content': content}


user, assistant = (functools.partial(turn, r) for r in ('user', 'assistant'))
QUESTION, GOOD, BAD = user('why?'), assistant('so'), assistant('no')
TURNS = [('why?', 'so', 'no')]


def pair(**changes):
  return {'prompt': 'p', 'chosen': 'a', 'rejected': 'b'} | changes


def sides(chosen, rejected, **more):
  return {'chosen': chosen, 'rejected': rejected} | more


def ranked(*completions, context='p'):
  rows = [{'rank': rank, 'completion': text} for rank, text in completions]
  return {'context': context, 'completions': rows}


def zipped(turn):
  """TFDS gives lists of turns as a dict of lists."""
  return {key: [value] for key, value in turn.items()}


WHOLE = [QUESTION, GOOD], [QUESTION, BAD]
HUMAN = '\n\nHuman: a\n\nAssistant:'


@pytest.mark.parametrize(
  'row, expected',
  [
    # Texts are taken as they are.
    (
      sides(' blue.\n', ' green.', prompt='The sky is'),
      [('The sky is', ' blue.\n', ' green.')],
    ),
    # Implicit prompts: the border of words, the space going to the response...
    (
      sides('The sky is blue.', 'The sky is black.'),
      [('The sky is', ' blue.', ' black.')],
    ),
    (sides('why?\nyes', 'why?\nyesterday'), [('why?\n', 'yes', 'yesterday')]),
    # ... of turns, though the answers begin alike...
    (
      sides(f'{HUMAN} I do', f'{HUMAN} I do not'),
      [(HUMAN, ' I do', ' I do not')],
    ),
    # ... and of scripts without spaces.
    (sides('天空是蓝色', '天空是绿色'), [('天空是', '蓝色', '绿色')]),
    # Conversations, with the prompt apart, implicit, and repeated.
    (sides([GOOD], [BAD], prompt=[QUESTION]), TURNS),
    (sides(*WHOLE), TURNS),
    (sides(*WHOLE, prompt='why?'), TURNS),
    (sides(*WHOLE, prompt=[QUESTION]), TURNS),
    (sides([GOOD], [BAD], prompt='why?'), TURNS),
    (sides('so', 'no', prompt=[QUESTION]), TURNS),
    (sides(zipped(GOOD), zipped(BAD), prompt=zipped(QUESTION)), TURNS),
    # The dialogue goes on after the two answers part.
    (
      sides([QUESTION, GOOD], [QUESTION, GOOD, user('and?'), BAD]),
      [('why?', 'so', 'so\nand?no')],
    ),
    # All pairs of different rank; RewardBench 2 has lists of texts.
    (
      ranked((2, ' c'), (0, ' a'), (1, ' b'), (1, ' d')),
      [('p', *x) for x in ((' a', ' b'), (' a', ' d'), (' a', ' c'))]
      + [('p', ' b', ' c'), ('p', ' d', ' c')],
    ),
    (ranked((0, [GOOD]), (1, [BAD]), context=[QUESTION]), TURNS),
    (
      sides(['so'], ['no', 'na'], prompt='why?', id=3),
      [('why?', 'so', 'no'), ('why?', 'so', 'na')],
    ),
  ],
)
def test_preferences(row, expected):
  found = formats.preference_rows(row, PLAIN)
  assert [(r['prompt'], r['chosen'], r['rejected']) for r in found] == expected
  assert not any('margin' in r for r in found)


def test_the_template_frames_plain_prompts_and_white_space_is_kept():
  row = {'prompt': '  why?', 'chosen': '\nso', 'rejected': ' no\n', 'margin': 2}
  for template, prompt in (
    ('{prompt}', '  why?'),
    ('{prompt}\nA:', '  why?\nA:'),
    ('{prompt}\n', '  why?\n'),
  ):
    (found,) = formats.preference_rows(row, chat_lib.Chat(None, template))
    assert list(found.values()) == [prompt, '\nso', ' no\n', 2.0]
  framed = chat_lib.Chat(None, 'Q: {prompt}\nA:')
  (found,) = formats.preference_rows(sides('x y', 'x z', margin=None), framed)
  assert found == sides(' y', ' z', prompt='x')
  # A question in turns is the same text as a plain one.
  for response in ('so', [GOOD]):
    row = {'prompt': 'why?', 'completion': response}
    found = formats.response_row(row, framed)
    assert found == {'prompt': 'Q: why?\nA:', 'response': 'so'}


@pytest.mark.parametrize(
  'row, prompt, response',
  [
    ({'prompt': 'p', 'completion': ' r '}, 'p', ' r '),
    ({'prompt': 'p', 'response': 'r'}, 'p', 'r'),
    ({'text': 'all of it '}, '', 'all of it '),
    ({'messages': [QUESTION, GOOD]}, 'why?', 'so'),
    # UltraChat has both.
    ({'prompt': 'why?', 'messages': [QUESTION, GOOD]}, 'why?', 'so'),
    (
      {'messages': [turn('system', 'be brief'), QUESTION, GOOD, QUESTION, BAD]},
      'be brief\nwhy?so\nwhy?',
      'no',
    ),
    ({'prompt': [QUESTION], 'completion': [GOOD]}, 'why?', 'so'),
  ],
)
def test_responses(row, prompt, response):
  found = formats.response_row(row, PLAIN)
  assert found == {'prompt': prompt, 'response': response}


@pytest.mark.parametrize(
  'row, prompt',
  [
    ({'prompt': 'p'}, 'p'),
    ({'prompt': [QUESTION]}, 'why?'),
    ({'messages': [QUESTION]}, 'why?'),
    ({'messages': [QUESTION, GOOD]}, 'why?'),
    ({'context': 'p', 'completions': []}, 'p'),
    ({'chosen': 'x y', 'rejected': 'x z'}, 'x'),
  ],
)
def test_prompts(row, prompt):
  assert formats.prompt_row(row, PLAIN) == {'prompt': prompt}


@pytest.mark.parametrize(
  'row, reason',
  [
    ([1], 'the row is a list, not an object'),
    ({'prompt': 'p', 'chosen': 'a'}, "'rejected' is missing"),
    (pair(prompt=3), "'prompt' is a number, not text"),
    (pair(chosen=json.loads('"\\ud800"')), "'chosen' holds half a character"),
    (pair(chosen=' '), "'chosen' is empty"),
    (pair(chosen='b'), 'chosen and rejected are the same text'),
    (pair(margin='big'), "'margin' is text, not a number"),
    (pair(margin=1e39), 'no number of 32 bits'),  # infinite once it is stored
    (pair(chosen=['a'] * 101, rejected=['b'] * 100), 'it makes 10100 pairs'),
    (pair(chosen='x' * (2**20 + 1)), "'chosen' has 1048577 characters"),
    (sides('a', 'b'), 'share no beginning'),
    (
      sides('\n\nHuman: a\n\nAssistant: x', '\n\nHuman: b\n\nAssistant: x'),
      'the prompts of chosen and rejected differ',
    ),
    (
      sides([*WHOLE[0], user('a'), GOOD], [*WHOLE[0], user('b'), BAD]),
      'the prompts of chosen and rejected differ, in turn 3',
    ),
    (sides([GOOD], [BAD]), 'no turn stands before the response'),
    (pair(chosen=[GOOD]), 'one of chosen and rejected is a text'),
    (
      sides([user('x')], [BAD], prompt=[QUESTION]),
      "begin and end with a turn of the assistant, not of 'user'",
    ),
    (
      sides([GOOD], [BAD], prompt=WHOLE[0]),
      'the prompt ends with a turn of the assistant',
    ),
    (
      sides([GOOD], [BAD], prompt=['x', QUESTION]),
      "turn 1 of 'prompt' is text",
    ),
    (ranked((0, 'a')), 'no two completions of diff'),
    (ranked(('0', 'a'), (1, 'b')), 'the rank of completion 1 is not a whole'),
    ({'completions': []}, "'context' is missing"),
    *(
      (
        sides('So a', 'So b', **{name: 'why?'}),
        f"no 'prompt', but text in '{name}': .*columns=prompt={name} ",
      )
      for name in ('question', 'instruction', 'query', 'input', 'context')
    ),
    (ranked(*((i, str(i)) for i in range(142))), 'it makes 10011 pairs'),
  ],
)
def test_bad_preferences(row, reason):
  with pytest.raises(formats.BadRow, match=reason):
    formats.preference_rows(row, PLAIN)


@pytest.mark.parametrize(
  'convert, row, reason',
  [
    (formats.response_row, {'completion': 'r'}, "'prompt' is missing"),
    (formats.response_row, {'prompt': 'p', 'completion': ''}, 'is empty'),
    (formats.response_row, {'messages': [QUESTION]}, 'not of .user'),
    (formats.response_row, {'messages': []}, "'messages' is a list"),
    (formats.response_row, {'text': 3}, "'text' is a number, not text"),
    (formats.prompt_row, {'prompt': ''}, 'the prompt is empty'),
    (formats.prompt_row, {'messages': [GOOD]}, 'no turn stands before'),
  ],
)
def test_bad_responses_and_prompts(convert, row, reason):
  with pytest.raises(formats.BadRow, match=reason):
    convert(row, PLAIN)


@pytest.mark.parametrize(
  'convert', [formats.preference_rows, formats.response_row, formats.prompt_row]
)
def test_unknown_formats_name_their_fields(convert):
  with pytest.raises(sources.UnknownFormat, match='its fields: answer, quest'):
    convert({'question': 'a', 'answer': 'b', 'note': None}, PLAIN)


# ---------------------------------------------------------- columns of users


def read(columns, rows, kind, chat):
  rows = [sources.SourceRow('mine', i, row) for i, row in enumerate(rows)]
  convert = formats.KINDS[kind][1]
  return [made for _, made in columns.read('mine', rows, convert, chat)]


def items(row, names='', kind='pairs', chat=PLAIN):
  """Items of a row, and the remarks on it."""
  columns = formats.Columns(names)
  [found] = read(columns, [row], kind, chat)
  if isinstance(found, formats.BadRow):
    raise found
  columns.check()
  return found, columns.summary().removeprefix('mine: ')


@pytest.mark.parametrize(
  'row, names, prompt',
  [
    ({'question': 'why?'}, 'prompt=question', 'why?'),
    ({'prompt': 'no', 'question': 'why?'}, 'prompt=question', 'why?'),
    ({'instruction': 'a', 'input': 'b'}, 'prompt=instruction+input', 'a\nb'),
    ({'instruction': 'a', 'input': ''}, 'prompt=instruction+input', 'a'),
    (
      {'history': [QUESTION, GOOD], 'input': 'and?'},
      'prompt = history + input',
      'why?so\nand?',
    ),
    ({'prompt': 'why?', 'system': 'be brief'}, '', 'be brief\nwhy?'),
    ({'prompt': [QUESTION], 'system': 'be brief'}, '', 'be brief\nwhy?'),
    ({'prompt': 'why?', 'pre': 'be brief'}, 'system=pre', 'be brief\nwhy?'),
    ({'prompt': 'why?', 'system': None}, '', 'why?'),
    ({'context': 'why?'}, 'prompt=context', 'why?'),
    ({'prompt': json.dumps([QUESTION, GOOD, QUESTION])}, '', 'why?so\nwhy?'),
    ({'prompt': [{'from': 'human', 'value': 'why?'}]}, '', 'why?'),
  ],
)
def test_columns_are_used(row, names, prompt):
  found, told = items(
    row | {'good': 'a', 'rejected': 'b'}, f'chosen=good,{names}'
  )
  assert found == [{'prompt': prompt, 'chosen': 'a', 'rejected': 'b'}]
  assert told == (
    "not used: the file's prompt (1 row)" if 'no' in row.values() else ''
  )


def test_columns_that_are_not_used_are_named():
  row = pair(system='be brief', tools=[{}], question='q', id=3, empty='')
  _, told = items(row)
  assert told == 'not used: id, question, tools (1 row)'
  turns = [QUESTION, GOOD | {'reasoning_content': 'because', 'weight': None}]
  _, told = items({'messages': turns}, '', 'responses')
  assert told == 'not used: messages.reasoning_content (1 row)'
  _, told = items(pair(system='x', prompt=None, chosen='a b', rejected='a c'))
  assert told == 'not used: system (1 row)'
  # A prompt needs no answers.
  assert items(pair(label=True), '', 'prompts')[1] == ''


@pytest.mark.parametrize(
  'row, names, reason',
  [
    (
      sides('<a> x', '<a> y', instruction='i', input='j'),
      '',
      'instruction.input',
    ),
    (sides('<a> x', '<a> y', what='Say it in other words'), '', 'prompt=what '),
    (sides([GOOD], [BAD], question='why?'), '', 'prompt=question '),
    (sides('a', 'b', question='q'), 'prompt=query', "no column 'query'"),
    (pair(prompt="[{'role': 'user', 'content': 'a'}]"), '', 'json.dumps'),
  ],
)
def test_prompts_elsewhere_are_asked_for(row, names, reason):
  with pytest.raises(formats.BadRow, match=reason):
    items(row, names)


def test_names_of_columns_are_checked():
  for names, reason in (
    ('question=prompt', "'question' is no field; .* the fields are .* prompt"),
    ('margin=gap', "no row has a column 'gap'"),
  ):
    with pytest.raises(errors.UserError, match=reason):
      items(pair(), names)
  # The user knows that the common beginning is the prompt.
  found, _ = items(sides('Q a', 'Q b', query='?'), 'prompt=')
  assert found == [{'prompt': 'Q', 'chosen': ' a', 'rejected': ' b'}]


def test_rows_labelled_as_bad_are_not_learned():
  row = {'prompt': 'p', 'completion': 'r'}
  learned = [{'prompt': 'p', 'response': 'r'}]
  for label in (True, 1, 1.0, 'False', 0, 0.0, 'no', 'thumbs_down'):
    found, told = items(row | {'label': label}, '', 'responses')
    assert found == (learned if label in (True, 1) else [])
    assert told == ('' if found else 'left out as bad: label (1 row)')
  turns = [{'role': r, 'content': 'x'} for r in ('user', 'assistant')]
  assert not items({'messages': turns, 'label': False}, '', 'responses')[0]
  assert items({'text': 'x', 'label': 0}, '', 'responses')[0]  # a class
  found, told = items(row | {'label': 'helpful'}, '', 'responses')
  assert found == learned and told == 'not used: label (1 row)'


# ------------------------------------------- the border of prompt and response

LINE = 'Say it in other words.'


@pytest.mark.parametrize(
  'prompt, start',
  [
    (LINE, f'{LINE} '),
    (f' {LINE}\n', f'{LINE}\n\n'),
    (HUMAN, f'{HUMAN} '),
    (LINE, f'\n\nHuman: {LINE}\n\nAssistant: '),
    (LINE, f'### Instruction:\n{LINE}\n\n### Response:\n'),
    (LINE, f'<|user|>\n{LINE}<|assistant|>\n'),
    ([user(LINE)], f'{LINE} '),
    ([QUESTION, GOOD, user(LINE)], f'why?\nso\n{LINE}\n'),
  ],
)
def test_a_prompt_that_answers_repeat_is_cut(prompt, start):
  chat = chat_lib.Chat(None, '{prompt}\n')
  row = {'prompt': prompt, 'chosen': f'{start}so', 'rejected': f'{start}no'}
  [found], told = items(row, chat=chat)
  assert (found['chosen'], found['rejected']) == ('so', 'no')
  assert told == 'cut from the answers, which repeat it: prompt (1 row)'
  row = {'prompt': prompt, 'completion': row['chosen']}
  [found], _ = items(row, '', 'responses', chat)
  assert found['response'] == 'so'


@pytest.mark.parametrize(
  'row',
  [
    pair(prompt='Hello!', chosen='Hello! Why?', rejected='Hello! You?'),
    pair(prompt='a b c', chosen='a b c d', rejected='e'),
    pair(prompt='a b c', chosen='a b cd', rejected='a b ce'),
  ],
)
def test_an_answer_may_begin_as_the_prompt_does(row):
  assert items(row) == ([row], '')


@pytest.mark.parametrize('genuine, is_cut', [(0, True), (1, True), (3, False)])
def test_short_prompts_are_cut_where_the_whole_file_repeats_them(
  genuine, is_cut
):
  """'Hello there' answers 'Hello', unless all answers begin with the prompt."""
  row = pair(prompt='Hello', chosen='Hello there', rejected='Hello you')
  other = pair(prompt='Bye now', chosen='Bye now\nfriend', rejected='Bye now x')
  rows = [pair(prompt='Hello', chosen='Hello you')] * genuine
  rows += [row, other] * 15
  found = read(formats.Columns(), rows, 'pairs', PLAIN)
  cut = pair(prompt='Hello', chosen=' there', rejected=' you')
  assert found[-2] == [cut if is_cut else row]
  assert found[-1][0]['chosen'] == ('friend' if is_cut else other['chosen'])
  assert found[:genuine] == [rows[:1]] * genuine


def test_white_space_that_means_something_is_kept():
  chat = chat_lib.Chat(None, '{prompt}\n')
  for good, bad in (('    x', 'x'), ('\tx', '    x'), ('x\n', 'x')):
    turns = [assistant(good)], [assistant(bad)]
    for row in (sides(good, bad), sides(*turns)):
      [found], _ = items(row | {'prompt': 'def f():'}, chat=chat)
      assert (found['chosen'], found['rejected']) == (good, bad)
  asked = 'def f(a, b, c, d):'
  row = pair(prompt=asked, chosen=f'{asked}\n  x', rejected=f'{asked} y')
  assert items(row, chat=chat)[0][0]['chosen'] == '  x'


@pytest.mark.parametrize(
  'start',
  [
    '### Human: a### Assistant:',
    '\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:',
    'User: a\n\nAssistant:',
    'USER: a ASSISTANT:',
    'Below is an instruction.\n\n### Instruction:\na\n\n### Response:\n',
    'Q: a\nA:',
    'Question: a\nAnswer:',
    'SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:',
    '<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n',
    '[INST] a [/INST]',
  ],
)
def test_dialogues_end_their_prompt_where_the_answer_begins(start):
  row = sides(f'{start} I do so', f'{start} I do not')
  [found], _ = items(row)
  assert list(found.values()) == [start, ' I do so', ' I do not']


def test_dialogues_of_unknown_style_are_asked_about():
  forms = ['{}: ', '- {}: ', '[{}] ', '[{}]: ', '<{}>: ', '<{}>', '{}：']
  for form in [*forms, '[10:01] {}: ', '<|start_of_role|>{} ']:
    ask, reply = form.format('user'), form.format('bot')
    with pytest.raises(formats.BadRow, match="dialogue.* and .*'prompt'"):
      items(sides(f'{ask}hi\n{reply}I do so', f'{ask}hi\n{reply}I do not'))
  for start in ('- a: 1\n- b: 2', '"So?": he\n"no"', 'A. b\nB. c', '<p>\n<b>'):
    assert items(sides(f'{start} so', f'{start} not'))[0][0]['prompt'] == start


def test_only_turns_of_the_assistant_are_learned():
  thanks = [user('thanks'), assistant('fine')]
  [found], _ = items(sides([GOOD, *thanks], [BAD], prompt=[QUESTION]))
  assert found['chosen'] == 'so\nthanksfine'
  assert found['chosen_turns'] == [('why?', 'so'), ('why?so\nthanks', 'fine')]
  assert 'rejected_turns' not in found
  swapped = formats.labelled(found, True)
  assert swapped['rejected_turns'] == found['chosen_turns']
  assert 'chosen_turns' not in swapped
  more = '\n\nHuman: thanks\n\nAssistant:'
  [found], _ = items(sides(f'{HUMAN} so{more} fine', f'{HUMAN} no'))
  turns = [(HUMAN, ' so'), (f'{HUMAN} so{more}', ' fine')]
  assert found['chosen'] == f' so{more} fine' and found['chosen_turns'] == turns
  row = {'prompt': HUMAN, 'completion': f' so{more} fine'}
  [found], _ = items(row, '', 'responses')
  assert found['response_turns'] == turns


def test_exactly_the_asked_share_is_flipped_and_the_seed_decides():
  mask = formats.flip_mask(2000, 0.25, seed=3)
  assert mask.sum() == 500 and mask.dtype == bool
  np.testing.assert_array_equal(mask, formats.flip_mask(2000, 0.25, seed=3))
  assert (mask != formats.flip_mask(2000, 0.25, seed=4)).any()
  # Hypergeometric: 250 of 1000 flips in the first half of 2000 rows, sd 13.7.
  assert abs(mask[:1000].sum() - 250) < 4 * 13.7
  assert not formats.flip_mask(10, 0.0, seed=0).any()
  assert formats.flip_mask(10, 1.0, seed=0).all()
  row = pair(prompt='why?')
  assert formats.labelled(row, True) == pair(
    prompt='why?', chosen='b', rejected='a', flipped=True
  )
  assert formats.labelled(row, False) == row | {'flipped': False}

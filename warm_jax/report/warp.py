# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the page says of a WARP run: section, table, findings, story, samples."""

from collections.abc import Mapping
from typing import Any

from warm_jax.report import style, tables, warp_figures

BASELINE = 'sft_anchor_line'  # as stages.fronts.BASELINE
NUMBERS = {
  'proxy': 'reward that was climbed',
  'control': 'control reward',
  'gold': 'gold, chosen by gold (an oracle)',
  'gold_by_proxy': 'gold, chosen by the climbed reward',
}
ABOUT = (
  'Weight-averaged rewarded policies, with a weight-averaged reward model as '
  'their reward, against plain REINFORCE of the same number of updates.'
)
SAMPLES = (
  'The first evaluation posts, not chosen, with one summary of the SFT policy, '
  'of the merge of each iteration, and of each plain run at its last step.'
)
NOTE = (
  'Differences are to plain REINFORCE with the SFT anchor read as WARP is read, '
  'on the line from the SFT policy to where it ended. Gold is the utility of the toy world, in its own units; no policy was trained '
  'on it. Where gold chooses a policy within a budget of KL, that is an oracle, '
  'and it is said so.'
)


def last_run(result: Mapping[str, Any]) -> str:
  """Name of the last iteration."""
  return f'warp_{result["iterations"]}'


# ---------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------


def differences(result) -> dict[str, tuple[float, float, float]]:
  """Last iteration minus plain REINFORCE, {number: (value, low, high)}."""
  row = result['fronts'][last_run(result)]
  return {
    key: tuple(row[f'difference_{key}{end}'] for end in ('', '_low', '_high'))
    for key in NUMBERS
  }


def side(ends) -> str:
  """'above', 'below' or 'undecided': on which side of zero an interval lies."""
  _, low, high = ends
  if not all(map(style.known, ends)):
    return 'undecided'
  return 'above' if low > 0 else 'below' if high < 0 else 'undecided'


def table(result: Mapping[str, Any]) -> tables.Table:
  """One number a set of policies and judge, and its distance to REINFORCE."""
  rows = []
  for name, found in result['fronts'].items():
    cells = []
    for key in NUMBERS:
      detail = style.interval(found[f'{key}_low'], found[f'{key}_high'], 2)
      if name != BASELINE:
        ends = [found[f'difference_{key}{e}'] for e in ('', '_low', '_high')]
        between = style.interval(*ends[1:], 2, style.signed)
        detail += f'\n{style.signed(ends[0], 2)} {between}'
      cells.append(
        tables.Cell(
          style.number(found[key], 2), detail, strong=name == last_run(result)
        )
      )
    reach = f'{found["points"]} policies, KL up to '
    reach += style.number(found['largest_kl'], 1)
    heading = tables.Cell(style.name(name), reach, method=name)
    rows.append([heading, *cells])
  return tables.Table(
    [tables.Cell(''), *(tables.Cell(text) for text in NUMBERS.values())], rows
  )


# ---------------------------------------------------------------------------
# Sentences
# ---------------------------------------------------------------------------


def findings(result: Mapping[str, Any]) -> list[dict[str, str]]:
  """Fields of `story.Finding` for the numbers at the top of the page."""
  found = []
  for key, ends in differences(result).items():
    if key == 'control':
      continue
    verdict, tone = {
      'above': ('WARP is above plain REINFORCE', 'good'),
      'below': ('WARP is below plain REINFORCE', 'bad'),
      'undecided': ('no difference that these prompts can show', 'open'),
    }[side(ends)]
    found.append(
      {
        'question': f'WARP − REINFORCE within KL {result["max_kl"]:g}: '
        f'{NUMBERS[key]}',
        'value': style.signed(ends[0], 2),
        'interval': style.interval(*ends[1:], 2, style.signed),
        'verdict': verdict,
        'tone': tone,
      }
    )
  return found


def paragraphs(result: Mapping[str, Any], warp: Mapping[str, Any]) -> list[str]:
  """What was run, what came out by the reward and by gold, what merging did.

  Args:
    result: of the stage `fronts`.
    warp: of the stage `warp`.
  """
  told = [_ran(result, warp), _by_iteration(result), _verdict(result)]
  return [*told, _merges(result)]


def _ran(result, warp) -> str:
  records = warp['iterations']
  count = len(records[0]['stopped_at'])
  updates = [sum(r['stopped_at']) for r in records]
  text = (
    f'{style.counted(len(records))} iteration'
    f'{"" if len(records) == 1 else "s"} of WARP, {count} '
    f'polic{"y" if count == 1 else "ies"} each, climbed '
    f'{style.name(result["reward"])} with {sum(updates):,} updates in all; '
    f'plain REINFORCE was given {result["updates"]:,} in one go, from the SFT '
    'policy, with the same prompts, reward and batch. '
  )
  stopped = sum(n < r['steps'] for r in records for n in r['stopped_at'])
  if stopped:
    text += (
      f'{style.counted(stopped)} of the {count * len(records)} members '
      'reached the limit of KL and stopped there. '
    )
  for name, steps in result['stopped_at'].items():
    if steps < result['updates']:
      text += (
        f'{style.name(name)} reached the limit of KL after {steps:,} updates '
        'and stopped. '
      )
  return text.strip()


def _numbers_of(result, key: str) -> str:
  parts = []
  for run in warp_figures.runs(result['rows']):
    row = result['fronts'][run]
    between = style.interval(row[f'{key}_low'], row[f'{key}_high'], 2)
    parts.append(f'{style.number(row[key], 2)} {between}')
  return style.listed(parts)


def _by_iteration(result) -> str:
  limit = f'{result["max_kl"]:g}'
  text = (
    f'The best reward that can be had within a budget of KL, on average over '
    f'budgets up to {limit}, is after each iteration: '
    f'{_numbers_of(result, "proxy")}; gold where that reward chooses: '
    f'{_numbers_of(result, "gold_by_proxy")}. The line to plain REINFORCE has '
  )
  parts = [
    f'{style.number(row["proxy"], 2)} and gold '
    f'{style.number(row["gold_by_proxy"], 2)} with the '
    f'{"SFT" if name.startswith("sft_anchor") else "moving"} anchor'
    for name, row in result['fronts'].items()
    if name.removesuffix('_line') in warp_figures.CONTROLS
    and name.endswith('_line')
  ]
  return f'{text}{style.listed(parts)}.'


def _verdict(result) -> str:
  """Whether reward and gold agree about WARP, whichever way."""
  found = {key: side(ends) for key, ends in differences(result).items()}
  words = {
    'above': 'above plain REINFORCE',
    'below': 'below plain REINFORCE',
    'undecided': 'not told apart from plain REINFORCE',
  }
  reward, gold = found['proxy'], found['gold_by_proxy']
  text = f'By the reward that was climbed WARP is {words[reward]}; '
  if reward == gold:
    return f'{text}by gold too.'
  text += f'by the gold of what that reward chooses it is {words[gold]}. '
  if {reward, gold} == {'above', 'below'}:
    text += (
      'Gold contradicts the reward: what was gained is what the reward model '
      'likes and the utility does not. '
    )
  oracle = found['gold']
  return f'{text}If gold itself could choose, WARP would be {words[oracle]}.'


def _merges(result) -> str:
  """SLERP, LERP and members where they ended, of the last iteration."""
  rows, run = result['rows'], last_run(result)
  (slerp,) = warp_figures.select(rows, run, 'slerp')
  (lerp,) = warp_figures.select(rows, run, 'lerp')
  ends = {}
  for row in warp_figures.select(rows, run, 'policy'):
    ends[row['member']] = row  # steps rise: the last one stays

  def described(found):
    keys = ('proxy', 'gold', 'kl')
    mean = {k: sum(r[k] for r in found) / len(found) for k in keys}
    return (
      f'reward {style.number(mean["proxy"], 2)}, gold '
      f'{style.number(mean["gold"], 2)}, KL {style.number(mean["kl"], 1)}'
    )

  text = (
    f'In the last iteration the members end at {described(list(ends.values()))} '
    f'(mean), their SLERP at {described([slerp])}, their LERP at '
    f'{described([lerp])}. '
  )
  if 'similarity' in slerp:
    sft = rows[0]
    text += (
      'Two responses to one post share '
      f'{style.percent(sft["similarity"])} of their words before RL, '
      f'{style.percent(slerp["similarity"])} after the last merge; responses '
      f'have {style.number(sft["length"], 1)} and '
      f'{style.number(slerp["length"], 1)} words.'
    )
  return text.strip()


# ---------------------------------------------------------------------------
# Samples and rows
# ---------------------------------------------------------------------------


def samples(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Posts with their summaries as tables."""
  columns = [tables.Cell(t) for t in ('policy', 'summary', 'gold')]
  examples = []
  for example in result.get('samples', ()):
    rows = [
      [
        tables.Cell(
          style.name(s['policy']),
          f'KL {style.number(s["kl"], 1)}',
          method=s['policy'],
        ),
        tables.Cell(s['text'] or '(nothing)', faint=not s['text']),
        tables.Cell(style.number(s['gold'], 2)),
      ]
      for s in example['summaries']
    ]
    examples.append(
      {'post': example['post'], 'table': tables.Table(columns, rows)}
    )
  return examples


def rows_of(result, keys) -> list[dict[str, Any]]:
  """CSV rows of a figure: labels, and the named values with their errors."""
  labels = ('run', 'what', 'member', 'step', 'eta')
  wanted = [*labels, *(k + e for k in keys for e in ('', '_stderr'))]
  return [{k: row[k] for k in wanted if k in row} for row in result['rows']]


def geometry_rows(warp) -> list[dict[str, Any]]:
  """CSV rows of the geometry, one column a member."""
  return [
    {k: v for k, v in row.items() if k != 'norms'}
    | {f'norm_member_{m}': x for m, x in enumerate(row['norms'])}
    for row in warp_figures.geometry_rows(warp['iterations'])
  ]


# ---------------------------------------------------------------------------
# The part of the page
# ---------------------------------------------------------------------------


def section(result, trained) -> dict[str, Any]:
  """Title, text and table of the part; its plots as fields of `page.Plot`.

  Args:
    result: of the stage `fronts`.
    trained: of the stage `warp`.
  """
  rows, limit = result['rows'], f'{result["max_kl"]:g}'
  plots = [
    dict(
      name='warp_fronts',
      caption='What WARP returns: policies on the line from SFT through the merge of '
      'each iteration (solid, η = 0 to 1 and a little beyond), and from the init '
      'of the iteration (dotted; in the first one both are the same). Squares: '
      'plain REINFORCE along its way. Bands are one standard error over prompts; '
      f'the dashed stroke is KL {limit}, where the budgets of the table end. '
      'Left what was climbed, right what it is for.',
      draw=lambda: warp_figures.fronts(rows, result['max_kl']),
      rows=rows_of(result, ('kl', 'proxy', 'control', 'gold')),
      alt='Reward and gold against KL on the lines of each iteration',
    ),
    dict(
      name='warp_paths',
      caption='How it got there: the members of each iteration while they were trained '
      '(thin), their merge on the sphere (SLERP, filled) and their mean (LERP, '
      'hollow), and plain REINFORCE.',
      draw=lambda: warp_figures.paths(rows),
      rows=rows_of(result, ('kl', 'proxy', 'control', 'gold')),
      alt='Reward and gold against KL of members, merges and REINFORCE',
    ),
    dict(
      name='warp_shape',
      caption='What changes beside the reward, on the lines from SFT and along plain '
      'REINFORCE: words of a response, and the share of words that two '
      'responses to one prompt have in common, in order.',
      draw=lambda: warp_figures.shape(rows),
      rows=rows_of(result, ('kl', 'length', 'similarity')),
      alt='Length and self-similarity against KL',
    ),
  ]
  geometry = geometry_rows(trained)
  if geometry:
    plots.append(
      dict(
        name='warp_geometry',
        caption='Task vectors (weights minus those of the init of the iteration), for '
        'each group of weights that shares an angle. Left the angle between '
        'members, mean over pairs; the stroke is a right angle. Right their '
        'lengths before merging (dots) and after: SLERP nearly keeps them, the mean of '
        'M orthogonal ones is shorter by 1/√M.'
        + (' Merged here is the mean.' if result['merge'] == 'lerp' else ''),
        draw=lambda: warp_figures.geometry(trained['iterations']),
        rows=geometry,
        alt='Angles and lengths of task vectors for each group of weights',
      )
    )
  return {
    'id': 'warp',
    'title': 'WARP: averaging policies',
    'text': 'Of each set of policies, the mean over budgets of KL from 0 to '
    f'{limit} of the best one within the budget (the SFT policy, at KL 0, is in '
    'every set); below it the 95 % interval over prompts, and below that the '
    'difference to the line to plain REINFORCE, SFT anchor, on the same prompts. A '
    'maximum over noisy points lies a little too high, the more so the more '
    'points there are, which favours the long paths; a path has no points '
    'between the steps that were kept, which favours the lines. Lines to the '
    'end of plain REINFORCE are what LITI gives without WARP.',
    'tables': [table(result)],
    'plots': plots,
  }

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables and figures of the README, from the results of the arms."""

import json
import pathlib

from warm_jax.report import page, style

SETS = {
  'train_swapped': 'train, swapped (as labelled)',
  'train_clean': 'train, clean',
  'test': 'validation',
  'ood': 'ood',
}
FLOORS = ('bag of words', 'longer wins', 'words shared (F1)', 'chrF')
ROWS = ('members, mean', 'ENS', 'WARM', 'frozen features', *FLOORS)


def write(out: pathlib.Path, results: dict, seconds: dict) -> None:
  """Writes table.md, results.json, and each figure as PNG with its CSV.

  Args:
    out: folder, made if need be.
    results: {arm: {stage: its result}}.
    seconds: {arm: {stage: seconds}}.
  """
  out.mkdir(parents=True, exist_ok=True)
  arms = {arm: result['evaluate'] for arm, result in results.items()}
  (out / 'table.md').write_text(markdown(arms, seconds), encoding='utf-8')
  (out / 'results.json').write_text(
    json.dumps({'arms': arms, 'seconds': seconds}, indent=1) + '\n'
  )
  style.write_csv(out / 'accuracy.csv', accuracy_rows(arms))
  style.write_csv(out / 'differences.csv', difference_rows(arms))
  for body in dict.fromkeys(arm.split(', ')[0] for arm in arms):
    part = {arm: arms[arm] for arm in arms if arm.split(', ')[0] == body}
    style.save(accuracy_figure(part), out / f'accuracy_{body}.png')
  for arm, result in arms.items():
    rows = page.csv_rows(result['paths'])
    style.write_csv(out / f'interpolation_{_file(arm)}.csv', rows)
    figure = interpolation_figure(result['paths'])
    style.save(figure, out / f'interpolation_{_file(arm)}.png')


def _file(arm: str) -> str:
  return arm.replace(', ', '_')


def markdown(arms: dict, seconds: dict) -> str:
  """All tables as they stand in the README."""
  parts = []
  for arm, result in arms.items():
    table, kept = result['table'], result['preferences']
    parts.append(
      f'**{arm}**: {kept["rows"]["train"]} training pairs that fit '
      f'({kept["swapped"]} of all swapped), {kept["too_long"]["train"]} too '
      f'long; prompts shared with train: {kept["prompts_shared_with_train"]}'
    )
    heads = [
      f'{SETS[s]} ({row["pairs"]} pairs, {row["prompts"]} prompts)'
      for s, row in table.items()
    ]
    count = len(result['order'])
    names = [*(f'member {m}' for m in range(count)), *ROWS]
    parts.append(
      _table(
        ['accuracy', *heads],
        [
          [name, *(_cell(row['accuracy'][name]) for row in table.values())]
          for name in names
        ],
      )
    )
    pairs = next(iter(table.values()))['difference']
    parts.append(
      _table(
        ['difference', *(SETS[s] for s in table)],
        [
          [
            pair,
            *(
              _cell(row['difference'][pair], style.signed)
              for row in table.values()
            ),
          ]
          for pair in pairs
        ],
      )
    )
    hparams, fitted = result['hparams'], result['train']['accuracy']
    parts.append(
      _table(
        ['member', 'learning rate', 'dropout', 'SFT checkpoint', 'selection'],
        [
          [
            str(m),
            f'{hparams["learning_rate"][m]:.0e}',
            f'{hparams["dropout_rate"][m]:.2f}',
            str(hparams['init_index'][m]),
            f'{result["selection_accuracy"][m]:.3f}',
          ]
          for m in range(count)
        ],
      )
    )
    parts.append(
      'training accuracy at the end: '
      + ', '.join(f'{value:.3f}' for value in fitted)
    )
  parts.append(
    _table(
      ['seconds', *arms],
      [
        [stage, *(f'{seconds[arm].get(stage, 0):.0f}' for arm in arms)]
        for stage in dict.fromkeys(s for row in seconds.values() for s in row)
      ],
    )
  )
  return '\n\n'.join(parts) + '\n'


def _cell(entry: dict, write=style.number) -> str:
  ends = style.interval(entry['low'], entry['high'], write=write)
  return f'{write(entry["value"])} {ends}'


def _table(head: list[str], rows: list[list[str]]) -> str:
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def accuracy_rows(arms: dict) -> list[dict]:
  """accuracy.csv: one row an arm, set and judge."""
  return [
    {
      'arm': arm,
      'set': split,
      'pairs': row['pairs'],
      'prompts': row['prompts'],
      'judge': judge,
      **interval,
    }
    for arm, result in arms.items()
    for split, row in result['table'].items()
    for judge, interval in row['accuracy'].items()
  ]


def difference_rows(arms: dict) -> list[dict]:
  """differences.csv: one row an arm, set and pair of judges."""
  return [
    {'arm': arm, 'set': split, 'difference': pair, **interval}
    for arm, result in arms.items()
    for split, row in result['table'].items()
    for pair, interval in row['difference'].items()
  ]


@style.styled
def accuracy_figure(arms: dict):
  """Accuracy of every judge with its interval, one panel an arm and set."""
  order = ('test', 'ood', 'train_clean', 'train_swapped')
  panels = [
    (arm, split)
    for split in order
    for arm in arms
    if split in arms[arm]['table']
  ]
  fig, axes = style.grid(len(panels), 3.1)
  for ax, (arm, split) in zip(axes, panels):
    accuracy = arms[arm]['table'][split]['accuracy']
    for place, name in enumerate(reversed(ROWS)):
      entry = accuracy[name]
      color = {
        'WARM': style.color('warm'),
        'ENS': style.color('ens'),
        'members, mean': style.color('single'),
      }.get(name, style.FAINT)
      ax.plot([entry['low'], entry['high']], [place] * 2, color=color)
      ax.plot(entry['value'], place, 'o', color=color)
      if name == 'members, mean':
        dots = [v['value'] for k, v in accuracy.items() if k[:7] == 'member ']
        ax.plot(dots, [place] * len(dots), '|', color=color, markersize=9)
    ax.axvline(0.5, color=style.FAINT, linewidth=0.8)
    ax.set_yticks(range(len(ROWS)), ROWS[::-1])
    ax.set_title(f'{SETS[split]}; {arm.split(", ")[1]} arm', fontsize=9)
  return fig


@style.styled
def interpolation_figure(paths: dict):
  """Accuracy between the best two members, one panel a set."""
  fig, axes = style.grid(len(paths), 2.75)
  curves = (
    ('diag_accuracy', style.FAINT, ':', None, 'diagonal'),
    ('ens_accuracy', style.color('ens'), '-', 's', 'averaged scores'),
    ('accuracy', style.color('warm'), '-', 'D', 'averaged weights'),
  )
  for ax, (split, path) in zip(axes, paths.items()):
    for key, color, line, marker, label in curves:
      ax.plot(
        path['lambda'],
        path[key],
        line,
        color=color,
        marker=marker,
        markersize=4,
        label=label,
      )
    ax.set_title(SETS[split])
    ax.set_xlabel('weight λ of the second member')
    ax.margins(y=0.12)
  fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  return fig

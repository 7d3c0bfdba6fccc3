# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Small edits of posts and summaries, and what they do to the utility.

Each edit is a function (rng, post, summary) -> (post, summary), or None where
the text has nothing to edit. Edits of the post do not look at the summary, so
that with one generator both summaries of a pair get the same post.
"""

import random
from collections.abc import Sequence

import numpy as np

from warm_jax.data import toy_world


def _in_post(change):
  """An edit of one sentence of the post: changes its words in place."""

  def edit(rng: random.Random, post: str, summary: str):
    sentences = _sentences(post)
    change(rng.choice(sentences))
    return _post(sentences), summary

  return edit


def _other_owner(words: list[str]) -> None:
  words[0] = next(o for o in toy_world.OWNERS if o != words[0])


def order(rng: random.Random, post: str, summary: str):
  """Two neighbouring phrases that differ change places."""
  phrases = _phrases(summary)
  places = [
    i for i, pair in enumerate(zip(phrases, phrases[1:])) if pair[0] != pair[1]
  ]
  if not places:
    return None
  i = rng.choice(places)
  phrases[i], phrases[i + 1] = phrases[i + 1], phrases[i]
  return post, _summary(phrases)


def no_word(rng: random.Random, post: str, summary: str):
  """The summary loses a word; commas stay."""
  words = summary.split()
  places = [i for i, w in enumerate(words) if w != toy_world.SEPARATOR]
  if not places:
    return None
  del words[rng.choice(places)]
  return post, ' '.join(words)


def other_verb(rng: random.Random, post: str, summary: str):
  """A phrase of the summary gets the other verb of its noun."""
  phrases = _phrases(summary)
  places = [
    i
    for i, phrase in enumerate(phrases)
    if len(phrase) == 2 and phrase[1] in toy_world.WEIGHTS.get(phrase[0], ())
  ]
  if not places:
    return None
  i = rng.choice(places)
  noun, verb = phrases[i]
  other = next(v for v in toy_world.WEIGHTS[noun] if v != verb)
  phrases[i] = [noun, other]
  return post, _summary(phrases)


OF_POST = {
  'other_owner': _in_post(_other_owner),  # `my` for `our`, or the other way
  'no_owner': _in_post(lambda words: words.pop(0)),
  # Nobody knows what happened. Without the noun one would still know: no verb
  # has two nouns.
  'no_verb': _in_post(lambda words: words.pop(2)),
}
OF_SUMMARY = {'order': order, 'no_word': no_word, 'other_verb': other_verb}
EDITS = OF_POST | OF_SUMMARY


def utility(post: str, summary: str) -> float:
  """Gold utility, also of a post that has lost words.

  A sentence tells a fact if noun and verb are there, with or without an owner.
  """
  facts = []
  for words in _sentences(post):
    words = [w for w in words if w not in toy_world.OWNERS]
    if len(words) == 2 and words[1] in toy_world.WEIGHTS.get(words[0], ()):
      facts.append(f'{toy_world.OWNERS[0]} {words[0]} {words[1]} .')
  whole = ' '.join([*facts, toy_world.PROMPT_END])
  return toy_world.gold_utility(whole, summary)


def edited(
  name: str, posts: Sequence[str], summaries: Sequence[Sequence[str]], seed: str
) -> tuple[list[list[str]], list[list[str]], np.ndarray, np.ndarray]:
  """Applies an edit to both responses of N pairs; summaries [2][N].

  Returns posts [2][N] and summaries [2][N], unchanged where there is nothing to
  edit; applies [2, N] bool; change [2, N], what the utility changed by.
  """
  new_posts, new_summaries = [[], []], [[], []]
  applies = np.zeros((2, len(posts)), bool)
  change = np.zeros((2, len(posts)))
  for side in range(2):
    for i, (post, summary) in enumerate(zip(posts, summaries[side])):
      of_side = '' if name in OF_POST else f'/{side}'
      rng = random.Random(f'{seed}/{name}/{i}{of_side}')
      made = EDITS[name](rng, post, summary)
      applies[side, i] = made is not None
      new_post, new_summary = made or (post, summary)
      new_posts[side].append(new_post)
      new_summaries[side].append(new_summary)
      change[side, i] = utility(new_post, new_summary) - utility(post, summary)
  return new_posts, new_summaries, applies, change


def _sentences(post: str) -> list[list[str]]:
  body = post.removesuffix(toy_world.PROMPT_END)
  return [s.split() for s in body.split('.') if s.split()]


def _post(sentences: list[list[str]]) -> str:
  parts = [' '.join([*words, '.']) for words in sentences]
  return ' '.join([*parts, toy_world.PROMPT_END])


def _phrases(summary: str) -> list[list[str]]:
  return [phrase.split() for phrase in summary.split(toy_world.SEPARATOR)]


def _summary(phrases: list[list[str]]) -> str:
  joined = f' {toy_world.SEPARATOR} '.join(' '.join(p) for p in phrases)
  return ' '.join(joined.split())

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""TinyTLDR: posts, summaries and a utility that can be known exactly.

A post tells five or six facts, one a sentence. Some matter, some do not, as
every reader knows:

    our roof collapsed . my cat purred . my boss quit . our phone rang . ...

A good summary names the facts that matter, as `noun verb` phrases between
commas, invents and repeats nothing, and stops: roof collapsed , boss quit

In text to pretrain on a reader's remark follows: `false cat hid`, `vital roof
collapsed`. It names the weight or the fault of one phrase, but no price, no sum
and no comparison. Without remarks models this small have no features that a
reward model could use. The gold utility is computed for the annotators' labels
and for evaluation alone: no model is trained on it.

`Rules` say what holds in one world. `OLD` is the world above. `covered(seed)`
is another world for each seed: other facts matter, writers repeat themselves
often enough that annotators teach its price, and they use decorations, words
without content that some annotators like (`annotator_pools`).
"""

import collections
import dataclasses
import math
import random
from collections.abc import Mapping

import numpy as np

from warm_jax import errors
from warm_jax.data import formats

NUM_FACTS = (5, 6)
OWNERS = ('my', 'our')
# Who, the two things that may happen to each, and how much each matters, 0 to
# 3. No verb has two nouns, so a verb tells the fact.
WEIGHTS = {
  'dog': {'vanished': 2, 'barked': 0},
  'cat': {'hid': 1, 'purred': 0},
  'car': {'crashed': 3, 'stalled': 1},
  'boss': {'quit': 2, 'shouted': 1},
  'sister': {'married': 3, 'cried': 1},
  'brother': {'enlisted': 2, 'lied': 1},
  'mother': {'fainted': 3, 'cooked': 0},
  'father': {'retired': 2, 'snored': 0},
  'landlord': {'sued': 3, 'complained': 1},
  'neighbor': {'moved': 1, 'sang': 0},
  'laptop': {'overheated': 1, 'froze': 1},
  'phone': {'cracked': 1, 'rang': 0},
  'roof': {'collapsed': 3, 'leaked': 2},
  'garden': {'flooded': 2, 'bloomed': 0},
  'kitchen': {'burned': 3, 'smelled': 0},
  'wallet': {'disappeared': 3, 'ripped': 1},
  'teacher': {'resigned': 2, 'laughed': 0},
  'doctor': {'called': 2, 'waited': 1},
  'roommate': {'cheated': 2, 'slept': 0},
  'bike': {'rusted': 1, 'squeaked': 0},
  'train': {'derailed': 3, 'stopped': 1},
  'cake': {'spoiled': 1, 'melted': 1},
  'horse': {'escaped': 2, 'stumbled': 1},
  'uncle': {'drank': 2, 'visited': 1},
}
NOUNS = tuple(WEIGHTS)
VERBS = tuple(verb for verbs in WEIGHTS.values() for verb in verbs)
PROMPT_END = 'tldr :'
SEPARATOR = ','
# What readers remark of a phrase, by its weight or its fault, or of the length.
REMARKS = {3: 'vital', 2: 'useful', 1: 'minor', 0: 'trivial'}
FALSE, AGAIN, GARBLED, WORDY = 'false', 'again', 'garbled', 'wordy'
TRUE = 'true'  # in place of the weight, in a world where readers keep it secret
WORDS = (
  *(*OWNERS, *NOUNS, *VERBS, '.', SEPARATOR, *PROMPT_END.split()),
  *(*REMARKS.values(), FALSE, AGAIN, GARBLED, WORDY),
)

# The utility's prices, in the unit of a fact's weight. In docs/design.md too.
INVENTED = 1.0  # a phrase the post does not support
IRRELEVANT = 1.0  # a fact of weight 0
REPEATED = 0.25  # naming a fact again
MALFORMED = 0.75  # a phrase that is not a noun with one of its verbs
EXCESS_WORD = 0.5  # each word beyond FREE_WORDS
FREE_WORDS = 6  # three facts
DECORATED = 0.25  # each decoration; it is no word

# What is different in world `covered`.
COVERED_REPEATS = 0.1  # how often its writers name a fact twice, at least
COVERED_PRICE = 1.0  # of naming a fact again
MOST_USED, TAIL = 0.12, -0.6  # use of decoration i: MOST_USED * (1 + i)**TAIL
DECORATIONS = tuple(
  """sadly frankly oddly luckily clearly truly honestly simply really totally
  actually basically literally naturally obviously apparently certainly surely
  indeed anyway somehow perhaps maybe probably possibly finally suddenly
  recently lately afterwards meanwhile overall altogether evidently admittedly
  supposedly allegedly reportedly presumably curiously""".split()
)


@dataclasses.dataclass(frozen=True)
class Writer:
  """Somebody who summarises posts, with a taste and a rate of mistakes."""

  judgement: float  # how strongly important facts are preferred (0: at random)
  mistakes: float  # probability of another verb or noun in a phrase
  repeats: float  # probability that a fact is named twice
  slips: float  # probability that a phrase loses a word
  num_facts: tuple[float, ...]  # probabilities of naming 1, 2, 3, ... facts


GOOD_WRITER = Writer(1.5, 0.04, 0.01, 0.01, (0.05, 0.3, 0.5, 0.15, 0.0))
FAIR_WRITER = Writer(0.7, 0.12, 0.04, 0.03, (0.15, 0.3, 0.3, 0.15, 0.1))
POOR_WRITER = Writer(0.0, 0.3, 0.1, 0.08, (0.2, 0.2, 0.2, 0.2, 0.2))
# Names nearly everything: what a model learns to read posts from.
LISTING_WRITER = Writer(0.0, 0.05, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0, 0.5, 0.5))
SFT_WRITERS = ((GOOD_WRITER, 0.5), (FAIR_WRITER, 0.5))
PRETRAIN_WRITERS = (
  (LISTING_WRITER, 0.5),
  (GOOD_WRITER, 0.2),
  (FAIR_WRITER, 0.2),
  (POOR_WRITER, 0.1),
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """What holds in one world."""

  weights: Mapping[str, Mapping[str, int]] = dataclasses.field(
    default_factory=lambda: WEIGHTS
  )
  repeated: float = REPEATED  # price of naming a fact again
  sft_writers: tuple = SFT_WRITERS  # pairs of (Writer, probability)
  pretrain_writers: tuple = PRETRAIN_WRITERS
  remarks_tell_weights: bool = True  # or only what is true
  # {decoration: probability that a summary has it}, the most used first.
  decorations: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def words(self) -> tuple[str, ...]:
    """All words of the world's texts."""
    more = () if self.remarks_tell_weights else (TRUE,)
    return (*WORDS, *more, *self.decorations)


OLD = Rules()


def covered(seed: int) -> Rules:
  """The rules of world `covered`: weights and decorations drawn by the seed.

  The weights are those of WEIGHTS in another order; no noun has two zeros.
  """
  rng = random.Random(f'{seed}/covered')
  pool = [weight for verbs in WEIGHTS.values() for weight in verbs.values()]
  weights = {noun: dict.fromkeys(verbs, 0) for noun, verbs in WEIGHTS.items()}
  while not all(any(verbs.values()) for verbs in weights.values()):
    drawn = iter(rng.sample(pool, len(pool)))
    weights = {n: {v: next(drawn) for v in weights[n]} for n in weights}

  def repeating(writers):
    return tuple(
      (dataclasses.replace(w, repeats=max(w.repeats, COVERED_REPEATS)), share)
      for w, share in writers
    )

  words = rng.sample(DECORATIONS, len(DECORATIONS))
  use = {w: MOST_USED * (1 + i) ** TAIL for i, w in enumerate(words)}
  return Rules(
    weights,
    COVERED_PRICE,
    repeating(SFT_WRITERS),
    repeating(PRETRAIN_WRITERS),
    remarks_tell_weights=False,
    decorations=use,
  )


def make_post(
  rng: random.Random,
  num_facts: tuple[int, ...] = NUM_FACTS,
  rules: Rules = OLD,
) -> str:
  """Draws one post with distinct nouns; each number of facts equally likely."""
  weights = rules.weights
  nouns = rng.sample(NOUNS, rng.choice(num_facts))
  facts = [(noun, rng.choice(tuple(weights[noun]))) for noun in nouns]
  if not any(weights[noun][verb] for noun, verb in facts):
    # A post without a point cannot be summarised.
    facts[0] = (nouns[0], max(weights[nouns[0]], key=weights[nouns[0]].get))
  sentences = [f'{rng.choice(OWNERS)} {noun} {verb} .' for noun, verb in facts]
  return ' '.join(sentences) + ' ' + PROMPT_END


def read_facts(post: str, rules: Rules = OLD) -> list[tuple[str, str, int]]:
  """(noun, verb, weight) of each fact of a post by `make_post`, in order."""
  words = post.removesuffix(PROMPT_END).split()
  facts = zip(words[1::4], words[2::4])
  return [(noun, verb, rules.weights[noun][verb]) for noun, verb in facts]


def gold_utility(post: str, summary: str, rules: Rules = OLD) -> float:
  """Utility of a summary of a post; an empty summary has 0.

  utility = weights of the distinct facts named - 1.0 * irrelevant
            - 1.0 * invented - 0.25 * repeated - 0.75 * malformed
            - 0.25 * decorations - 0.5 * max(0, words - 6)

  A phrase between commas is malformed unless it is a noun and one of its verbs,
  and invented unless the post says just that.
  """
  price = {FALSE: -INVENTED, AGAIN: -rules.repeated, GARBLED: -MALFORMED}
  price |= {REMARKS[weight]: weight or -IRRELEVANT for weight in REMARKS}
  utility = sum(price[kind] for kind, _ in _phrases(post, summary, rules))
  utility -= DECORATED * count_decorations(summary, rules)
  return utility - EXCESS_WORD * max(
    0, count_words(summary, rules) - FREE_WORDS
  )


def count_decorations(summary: str, rules: Rules) -> int:
  """Decorations of a summary, each time it has one."""
  return sum(word in rules.decorations for word in summary.split())


def _phrases(post: str, summary: str, rules: Rules) -> list[tuple[str, str]]:
  # Each phrase of a summary with the remark it deserves.
  if not summary.split():
    return []
  weight_of = {tuple(fact): weight for *fact, weight in read_facts(post, rules)}
  seen, out = set(), []
  for text in summary.split(SEPARATOR):
    phrase = tuple(w for w in text.split() if w not in rules.decorations)
    if len(phrase) != 2 or phrase[1] not in WEIGHTS.get(phrase[0], ()):
      kind = GARBLED
    elif phrase in seen:
      kind = AGAIN
    elif phrase not in weight_of:
      kind = FALSE
    else:
      kind = REMARKS[weight_of[phrase]]
    seen.add(phrase)
    out.append((kind, ' '.join(phrase)))
  return out


def gold_utilities(posts, summaries, rules: Rules = OLD) -> np.ndarray:
  """`gold_utility` of paired lists of texts, [B] float32."""
  pairs = zip(posts, summaries)
  return np.array([gold_utility(*pair, rules) for pair in pairs], np.float32)


def write_summary(
  post: str, writer: Writer, rng: random.Random, rules: Rules = OLD
) -> str:
  """Lets a writer summarise a post; facts are named in the post's order.

  Decorations end a phrase, each at most once in a summary.
  """
  facts = read_facts(post, rules)
  num = 1 + rng.choices(range(len(writer.num_facts)), writer.num_facts)[0]
  gumbel = [-math.log(-math.log(max(rng.random(), 1e-300))) for _ in facts]
  taste = [writer.judgement * f[-1] + g for f, g in zip(facts, gumbel)]
  order = sorted(range(len(facts)), key=lambda i: -taste[i])
  phrases = []
  for i in sorted(order[:num]):
    noun, verb, _ = facts[i]
    if rng.random() < writer.mistakes:
      if rng.random() < 0.5:
        noun = rng.choice(NOUNS)
      verb = rng.choice([v for v in WEIGHTS[noun] if v != verb])
    phrase = f'{noun} {verb}'
    if rng.random() < writer.slips:
      phrase = noun if rng.random() < 0.5 else verb
    phrases.append(phrase)
    if rng.random() < writer.repeats:
      phrases.append(phrase)
  for word, probability in rules.decorations.items():
    if rng.random() < probability:
      phrases[rng.randrange(len(phrases))] += f' {word}'
  return f' {SEPARATOR} '.join(phrases)


def write_remark(
  post: str, summary: str, rng: random.Random, rules: Rules = OLD
) -> str:
  """A reader's remark on one phrase, or on the length, drawn at random."""
  phrases = _phrases(post, summary, rules)
  if not rules.remarks_tell_weights:
    hidden = dict.fromkeys(REMARKS.values(), TRUE)
    phrases = [(hidden.get(kind, kind), phrase) for kind, phrase in phrases]
  remarks = [f'{kind} {phrase}' for kind, phrase in phrases]
  remarks += [WORDY] * max(0, (count_words(summary, rules) - FREE_WORDS) // 2)
  return rng.choice(remarks) if remarks else ''


def write_rows(
  seed: int | str,
  num_rows: int,
  writers,
  num_facts: tuple[int, ...] = NUM_FACTS,
  remarks: bool = False,
  rules: Rules = OLD,
) -> list[dict]:
  """Draws posts, each with the summary of one of `writers`.

  `writers` are pairs of (Writer, probability). A row has prompt (the post),
  response, and remark, which is '' unless `remarks`.
  """
  rng = random.Random(seed)
  people, shares = zip(*writers)
  rows = []
  for _ in range(num_rows):
    post = make_post(rng, num_facts, rules)
    writer = rng.choices(people, weights=shares)[0]
    summary = write_summary(post, writer, rng, rules)
    remark = write_remark(post, summary, rng, rules) if remarks else ''
    rows.append({'prompt': post, 'response': summary, 'remark': remark})
  return rows


def count_words(summary: str, rules: Rules = OLD) -> int:
  """Words of a summary; commas between phrases and decorations are none."""
  none = {SEPARATOR, *rules.decorations}
  return sum(word not in none for word in summary.split())


@dataclasses.dataclass(frozen=True)
class Annotator:
  """Labels pairs by Bradley-Terry on the gold utility, with easy cues.

  P(a preferred to b) = sigmoid(sharpness * (u_a - u_b)
                                + length_cue * (length_a - length_b)
                                + likes of a's decorations - those of b's)

  A decoration that occurs twice in a summary is liked once.
  """

  sharpness: float  # inverse temperature on the utility
  length_cue: float  # how much each further word or comma impresses them
  likes: Mapping[str, float] = dataclasses.field(default_factory=dict)
  rules: Rules = OLD

  def probability(self, post: str, a: str, b: str) -> float:
    """P(summary a is preferred to summary b)."""
    margin = self.sharpness * self._gold_margin(post, a, b)
    margin += self.length_cue * (len(a.split()) - len(b.split()))
    for sign, text in ((1, a), (-1, b)) if self.likes else ():
      words = set(text.split())
      margin += sign * sum(v for w, v in self.likes.items() if w in words)
    return 1.0 / (1.0 + math.exp(-margin))

  def _gold_margin(self, post: str, a: str, b: str) -> float:
    first, second = (gold_utility(post, text, self.rules) for text in (a, b))
    return first - second

  def label(self, posts, first, second, rng: random.Random) -> list[dict]:
    """Labels N pairs of summaries; pairs of equal texts are left out.

    A row has prompt, chosen, rejected and, for reports only, gold_margin: the
    utility of chosen minus that of rejected.
    """
    rows = []
    for post, a, b in zip(posts, first, second):
      # Drawn before the filter: a row's label does not depend on other rows.
      prefers_a = rng.random() < self.probability(post, a, b)
      if a.split() == b.split():
        continue
      chosen, rejected = (a, b) if prefers_a else (b, a)
      margin = self._gold_margin(post, chosen, rejected)
      pair = {'prompt': post, 'chosen': chosen, 'rejected': rejected}
      rows.append(pair | {'gold_margin': margin})
    return rows


def annotator_pools(
  rules: Rules,
  num_pools: int,
  shared: float,
  seed: int,
  *,
  num_likes: int = 6,
  strength: float = 4.0,
  **cues,
) -> list[Annotator]:
  """Pools of annotators, each with a liking for `num_likes` decorations.

  Decorations are cut into `num_likes` groups by how much they are used. Each
  pool likes one of each group, so all pools err alike; in round(shared *
  num_likes) groups all of them like the word of pool 0, in others each its own.

  Args:
    shared: share of the likes that all pools have in common, 0 to 1.
    strength: log-odds that one liked decoration adds.
    cues: sharpness and length_cue of `Annotator`.
  """
  rng, words = random.Random(f'{seed}/likes'), list(rules.decorations)
  size = len(words) // num_likes if words else num_pools
  errors.need(
    size >= num_pools,
    f'{num_pools} annotator pools with {num_likes} likes each need more than '
    f'the {len(words)} decorations there are: take fewer pools',
  )
  likes = [{} for _ in range(num_pools)]
  groups = [words[i * size : (i + 1) * size] for i in range(num_likes)]
  order = rng.sample(range(num_likes), num_likes)
  common = order[: round(shared * num_likes)]
  for number, group in enumerate(groups if words else ()):
    own = rng.sample(group, size)[:num_pools]
    for pool, word in enumerate(own):
      likes[pool][own[0] if number in common else word] = strength
  return [Annotator(likes=found, rules=rules, **cues) for found in likes]


def opposite_labels(
  rows: list[dict],
  swapped: np.ndarray,
  pools: list[Annotator],
  shared: float,
  seed: int,
) -> np.ndarray:
  """Where each pool's label is the opposite of the first pool's, [pools, N].

  Of round(shared * N) rows all pools have one coin and one swap in common; on
  other rows each pool draws its own coin, and has its own share of the swaps.
  Every pool has the same number of swapped labels.

  Args:
    rows: labelled by pools[0], before any swap.
    swapped: [N] bool, the labels of pools[0] that are swapped.
  """
  is_own = formats.flip_mask(len(rows), 1 - shared, seed)
  rng, out = np.random.default_rng(seed), [np.zeros(len(rows), bool)]

  def sides(pool):  # P(its annotators prefer what the first pool's do)
    texts = ((r['prompt'], r['chosen'], r['rejected']) for r in rows)
    return np.array([pool.probability(*text) for text in texts])

  # The first pool's coin, given its label: below its probability.
  common_coin = rng.random(len(rows)) * sides(pools[0])
  for pool in pools[1:]:
    coin = np.where(is_own, rng.random(len(rows)), common_coin)
    its_swaps = swapped.copy()
    its_swaps[is_own] = rng.permutation(swapped[is_own])
    out.append((coin >= sides(pool)) ^ its_swaps ^ swapped)
  return np.array(out)


def describe(posts, summaries, rules: Rules = OLD) -> dict[str, float]:
  """Means of a set of summaries: gold utility, words, phrases, faults."""
  totals = collections.Counter()
  for post, summary in zip(posts, summaries):
    kinds = [kind for kind, _ in _phrases(post, summary, rules)]
    totals['gold'] += gold_utility(post, summary, rules)
    totals['words'] += count_words(summary, rules)
    totals['phrases'] += len(kinds)
    totals['invented'] += kinds.count(FALSE)
    totals['malformed'] += kinds.count(GARBLED)
    totals['repeated'] += kinds.count(AGAIN)
    if rules.decorations:
      totals['decorations'] += count_decorations(summary, rules)
  return {key: value / max(1, len(posts)) for key, value in totals.items()}

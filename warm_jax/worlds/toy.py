# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The embedded world: TinyTLDR, with samples that annotators compare.

Pairs in distribution are samples of the SFT checkpoints; others come from a
hotter policy, a pretrained one, and one tuned by RL on the utility itself. The
control set, clean and from all of these, is for the control model alone.
"""

import functools
import random

import jax
import numpy as np

from warm_jax import distributed, errors, members, rewards, sampling
from warm_jax.data import encoding, formats, sources, toy_world
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

# The TFDS set of each stage that writes one.
SETS = {'world': 'tiny_tldr', 'preferences': 'tiny_tldr_preferences'}
# Posts drawn per pair: samples of equal text are no pair and are left out.
SPARE = 1.15


class World:
  """TinyTLDR of one run; see `warm_jax.worlds` for its calls."""

  def __init__(self, run):
    self.run = run
    self.max_length = run.config.data.max_length
    facts = run.config.world.get('num_facts', toy_world.NUM_FACTS)
    self.num_facts = tuple(facts)
    self.rules = toy_world.OLD
    if run.config.world.get('name', 'old') == 'covered':
      self.rules = toy_world.covered(run.key('rules'))

  @functools.cached_property
  def tokenizer(self) -> tokenizer_lib.Tokenizer:
    return base.tokenizer(self.run)

  def rows(self, stage: str, split: str) -> list[dict]:
    """Text rows that a stage wrote."""
    folder = self.run.folder(stage) / SETS[stage] / '1.0.0'
    return [row.value for row in sources.open_rows(f'tfds:{folder}:{split}')]

  def write(self, stage: str, rows: dict[str, list[dict]], encoded) -> None:
    """Writes rows of text of each split, and tokens of the `encoded` splits."""
    sources.write_tfds(rows, SETS[stage], self.run.folder(stage))
    for split in encoded:
      encoding.write(
        self.run.folder(stage) / 'rows' / split,
        self.rows(stage, split),
        self.tokenizer,
        self.max_length,
        f'{stage} split {split}',
        apart=True,
      )

  def texts(self, split: str) -> encoding.Sequences:
    folder = self.run.workdir / 'world' / 'rows' / split
    return encoding.open_rows(folder)

  def pairs(self, split: str) -> encoding.Preferences:
    folder = self.run.workdir / 'preferences' / 'rows' / split
    return encoding.open_rows(folder)

  def training_pairs(self, members):
    """Pairs of `train` with the labels that each of these members trusts.

    `reward.labels`: 'own', of pool m % pools; 'drawn', of a pool drawn for each
    pair; 'all', each pair once with the label of each pool.
    """
    pairs, config = self.pairs('train'), self.run.config
    pools = config.preferences.get('pools', 1)
    if pools == 1:
      return pairs
    opposite = self.opposite(pools, config.preferences.shared_errors)
    labels, num = config.reward.get('labels', 'own'), len(members)
    rows = np.arange(len(pairs))
    if labels == 'own':
      columns = [opposite[m % pools] for m in members]
      return encoding.Shares(pairs, [rows] * num, columns)
    if labels == 'drawn':
      rng = np.random.default_rng(self.run.key('drawn pools'))
      column = opposite[rng.integers(pools, size=len(pairs)), rows]
    else:
      rows, column = np.tile(rows, pools), opposite.reshape(-1)
    return encoding.Shares(pairs, [rows] * num, [column] * num)

  def opposite(self, pools: int, shared: float) -> np.ndarray:
    """Where pools of annotators disagree with the pairs of `train` as written.

    [pools, N] bool, in the order of `pairs('train')`; row 0 is all False. See
    `toy_world.opposite_labels`.
    """
    rows = self.rows('preferences', 'train')
    swapped = np.array([row['flipped'] for row in rows])
    asked = self._pools(pools, shared)
    unswapped = list(map(formats.labelled, rows, swapped))
    opposite = toy_world.opposite_labels(
      unswapped, swapped, asked, shared, self.run.key('coins')
    )
    return opposite[:, self.pairs('train').rows]

  def _pools(self, num: int, shared: float) -> list[toy_world.Annotator]:
    key = self.run.key('pools')
    return toy_world.annotator_pools(
      self.rules, num, shared, key, **self._cues()
    )

  def _cues(self) -> dict[str, float]:
    config = self.run.config.preferences
    return {name: config[name] for name in ('sharpness', 'length_cue')}

  def prompts(self, split: str, max_new_tokens: int, count=None):
    split = {'train': 'prompts', 'test': 'eval_prompts'}[split]
    posts = [row['prompt'] for row in self.rows('world', split)][:count]
    return self.encoded(posts, max_new_tokens, f'world split {split}')

  def encoded(self, posts, max_new_tokens: int, source: str):
    """Encodes posts, padded to the longest of them."""
    room = self.max_length - max_new_tokens
    found, fits, _ = encoding.encode(self.tokenizer, posts, None, room)
    text = f'{source}: a post is longer than the {room} tokens that the context'
    errors.need(fits.all(), f'{text} leaves for it; raise data.max_length')
    # Multiples of four: sets that differ by a token share their programs.
    return found.padded_to(min(-(-found.lengths.max() // 4) * 4, room))

  def gold(self, prompts, responses) -> np.ndarray:
    return toy_world.gold_utilities(prompts, responses, self.rules)

  def lengths(self, samples, responses) -> np.ndarray:
    """Words of the responses."""
    return np.array(
      [toy_world.count_words(text, self.rules) for text in responses]
    )

  def write_texts(self) -> dict:
    """Stage `world`: posts and summaries, and the word tokenizer."""
    config, folder = self.run.config.world, self.run.folder('world')
    easy_facts, rows = tuple(range(1, max(self.num_facts) + 1)), {}
    easy = (self.rules.pretrain_writers, easy_facts, True)
    usual = (self.rules.sft_writers, self.num_facts)  # the better writers
    for split, num, recipe in (
      ('pretrain', config.num_pretrain, easy),
      ('control', config.num_pretrain, easy),  # for the control model
      ('sft', config.num_sft, usual),
      ('prompts', config.num_prompts, usual),  # that policies train on
      ('eval_prompts', config.num_eval_prompts, usual),
    ):
      seed = f'{self.run.config.seed}/{split}'
      rows[split] = toy_world.write_rows(seed, num, *recipe, rules=self.rules)
    tokenizer_lib.make_word_tokenizer(self.rules.words, folder / 'tokenizer')
    self.write('world', rows, ('pretrain', 'control', 'sft'))
    texts = ((row['prompt'], row['response']) for row in rows['sft'])
    described = toy_world.describe(*map(list, zip(*texts)), self.rules)
    return {
      'vocab_size': self.tokenizer.vocab_size,
      'rows': {split: len(part) for split, part in rows.items()},
      'writers': described,
      'summary': f'writers of the SFT set: gold {described["gold"]:.2f}, '
      f'{described["words"]:.1f} words',
    }

  def write_pairs(self) -> dict:
    """Stage `preferences`: train, selection, test, ood and control pairs."""
    run, config = self.run, self.run.config.preferences
    sft, *others = self._policies()
    # Other pools label the training pairs when they are read: `opposite`.
    first = self._pools(1, 1.0)[0]
    expert = toy_world.Annotator(**self._cues(), rules=self.rules)
    rows = {
      split: self._annotated(split, config[f'num_{split}'], kinds, annotator)
      for split, kinds, annotator in (
        ('train', [sft], first),
        ('selection', [sft], expert),
        ('test', [sft], expert),
        ('ood', others, expert),
        ('control', [sft, sft, *others], expert),
      )
    }
    swapped = {'selection': config.get('selection_swapped', 0.0)}
    swapped['train'] = config.swapped
    flips = {
      split: formats.flip_mask(
        len(part),
        swapped.get(split, 0.0),
        run.key('flips' if split == 'train' else f'flips of {split}'),
      )
      for split, part in rows.items()
    }
    for split, part in rows.items():
      rows[split] = list(map(formats.labelled, part, flips[split]))
    distributed.on_first(lambda: self.write('preferences', rows, rows))
    agreement = {
      split: float(np.mean([row['gold_margin'] > 0 for row in part]))
      for split, part in rows.items()
    }
    return {
      'rows': {split: len(part) for split, part in rows.items()},
      'swapped': int(flips['train'].sum()),
      # Margins were taken before the swap: the annotators' own agreement.
      'annotators_agree_with_gold': agreement,
      'summary': f'{len(rows["train"])} training pairs, {int(flips["train"].sum())} '
      f'swapped; annotators side with the utility in {agreement["test"]:.0%}',
    }

  def _policies(self) -> list[list]:
    # (params, temperature) of each policy, by kind.
    run, config = self.run, self.run.config.preferences
    sft, pretrained = (
      members.unstack(checkpoint.load_params(run.folder(stage) / 'params'))
      for stage in ('sft', 'pretrain')
    )
    return [
      [(params, config.temperature) for params in sft],
      [(sft[-1], config.ood_temperature)],
      [(pretrained[0], config.temperature)],
      [(self._tuned(sft[-1]), config.temperature)],
    ]

  def _tuned(self, sft_params):
    run, settings = self.run, self.run.config.preferences.tuned
    posts = self._posts('tuned', 2_000)

    def utility(ids, mask):
      texts, end = self.tokenizer.decode(ids, mask), f' {toy_world.PROMPT_END}'
      return self.gold(*zip(*(text.partition(end)[::2] for text in texts)))

    kept, _ = policy.train(
      sft_params,
      [rewards.HostScorer(utility)],
      base.model_config(run),
      self.encoded(posts, settings.max_new_tokens, 'posts of the tuned policy'),
      self.tokenizer,
      settings,
      **base.options(run, 'preferences', 'tuned'),
    )
    last = run.folder('preferences') / 'tuned' / f'params_{kept[-1]}'
    return members.member(checkpoint.load_params(last), 0)

  def _annotated(self, split, num_pairs, kinds, annotator) -> list[dict]:
    """Two summaries a post, each from a random policy of a random kind."""
    config, seed = self.run.config.preferences, self.run.config.seed
    rng = random.Random(f'{seed}/{split} pairs')
    posts, name = (
      self._posts(split, int(SPARE * num_pairs)),
      f'posts of {split}',
    )
    prompts = self.encoded(posts * 2, config.max_new_tokens, name)
    authors = []
    for _ in range(len(prompts)):
      kind = rng.randrange(len(kinds))
      authors.append((kind, rng.randrange(len(kinds[kind]))))
    texts = np.empty(len(prompts), object)
    for kind, author in sorted(set(authors)):
      rows = np.flatnonzero([a == (kind, author) for a in authors])
      params, temperature = kinds[kind][author]
      samples = sampling.sample_rows(
        params,
        base.model_config(self.run),
        self.tokenizer,
        config.max_new_tokens,
        jax.random.key(rng.getrandbits(31)),
        prompts.take(rows),
        temperature,
      )
      texts[rows] = sampling.responses_text(self.tokenizer, samples)
    first, second = texts[: len(posts)], texts[len(posts) :]
    return annotator.label(posts, first, second, rng)[:num_pairs]

  def _posts(self, name: str, count: int) -> list[str]:
    rng = random.Random(f'{self.run.config.seed}/{name}')
    return [
      toy_world.make_post(rng, self.num_facts, self.rules) for _ in range(count)
    ]

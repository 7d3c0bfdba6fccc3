# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The texts that the checkpoint learns from before it sees any label.

A judge of translations has to compare a response with its reference, so it
must be able to look a word up in its prompt. stories260k cannot: it predicts
the second of two equal sentences no better than the first. Two texts without
labels teach it that, and how far two texts agree:

  copies   a short sentence, and the same sentence again
  remarks  two texts, and how far they agree, said in a letter: a sentence and a
           damaged copy, or a reference and one of its translations

The second is what BLEURT does before it sees ratings (Sellam et al. 2020).
"""

import collections
import gzip
import json
import pathlib
import random
import re

NGRAMS = (2, 3, 4, 5, 6)  # characters, for chrF
LEVELS = 'abcdefghklmn'


def read(path: pathlib.Path) -> list[dict]:
  """Rows of a .jsonl.gz file."""
  with gzip.open(path, 'rt') as file:
    return [json.loads(line) for line in file]


def words(text: str) -> list[str]:
  """Lower-case words and punctuation marks."""
  return re.findall(r'\w+|[^\w\s]', text.lower())


def overlap(reference: str, text: str) -> float:
  """F1 of the words of two texts, counted as bags."""
  a = collections.Counter(words(reference))
  b = collections.Counter(words(text))
  return 2 * (a & b).total() / max(a.total() + b.total(), 1)


def chrf(reference: str, text: str) -> float:
  """Mean F2 of character n-grams  (Popovic 2015; spaces are kept here)."""
  total = 0.0
  for n in NGRAMS:
    a, b = _ngrams(reference, n), _ngrams(text, n)
    common = (a & b).total()
    # F2 = 5 P R / (4 P + R) with P = common / |b| and R = common / |a|.
    total += 5 * common / max(4 * a.total() + b.total(), 1)
  return total / len(NGRAMS)


def _ngrams(text: str, n: int) -> collections.Counter:
  text = text.lower()
  return collections.Counter(text[i : i + n] for i in range(len(text) - n + 1))


def remark(reference: str, text: str) -> str:
  """'c f': agreement in n-grams, then in words, from a (none) to n (all).

  Each is one token of stories260k's: were it two, the token that follows the
  end of the text, where rewards are read, would be the same for all.
  """
  figures = (chrf(reference, text), overlap(reference, text))
  return ' '.join(
    LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * f))] for f in figures
  )


def sentences(data: pathlib.Path) -> list[str]:
  """Sentences of the sets without preferences, in the order of the files."""
  texts = []
  for row in read(data / 'dialogsum/train.jsonl.gz')[:6_000]:
    texts += re.sub(r'#Person\d#: ?', '', row['prompt']).split('\n')
    texts.append(row['completion'])
  documents = [row['text'] for row in read(data / 'tinystories/train.jsonl.gz')]
  for name in ('scitldr/train', 'tldr/sft'):
    for row in read(data / f'{name}.jsonl.gz'):
      documents.append(row['prompt'])
      texts.append(row['completion'])
  for text in documents:
    texts += re.split(r'(?<=[.!?])\s+', text)
  return [text.strip() for text in texts]


def copies(pool: list[str], num: int, seed: int) -> list[dict]:
  """Rows of prompt and response: sentences of 3 to 10 words, said twice."""
  rng = random.Random(f'{seed}/copies')
  short = [s for s in pool if 3 <= len(s.split()) <= 10]
  return [
    {'prompt': f'{s}\n', 'response': s, 'remark': ''}
    for s in rng.choices(short, k=num)
  ]


def agreements(
  pool: list[str], pairs: list[dict], num: int, seed: int, end: str
) -> list[dict]:
  """Rows of prompt, response and remark; no label is read.

  Half are sentences of 4 to 16 words with a copy, damaged more or less; half
  are references with any of their translations, chosen or rejected, every
  other one damaged too, so that a reference does not tell its remark. Of every
  other row only the remark is to be learnt: the text counts as its prompt. `end`
  is the tokenizer's end of sequence, which precedes a remark.
  """
  rng = random.Random(f'{seed}/agreements')
  pool = [s for s in pool if 4 <= len(s.split()) <= 16]
  vocabulary = [word for s in pool[::7] for word in s.split()]
  texts = sorted(
    {(p['prompt'], p[side]) for p in pairs for side in ('chosen', 'rejected')}
  )
  rows = []
  for _ in range(num):
    if rng.random() < 0.5:
      first = rng.choice(pool)
      second = _damaged(rng, first, vocabulary, rng.choice(pool))
      if rng.random() < 0.5:
        first, second = second, first
    else:
      first, second = rng.choice(texts)
      if rng.random() < 0.5:
        second = _damaged(rng, second, vocabulary, rng.choice(texts)[1])
    said = remark(first, second)
    if rng.random() < 0.5:
      parts = f'{first}\n', second, said
    else:
      parts = f'{first}\n{second}{end}', said, ''
    rows.append(dict(zip(('prompt', 'response', 'remark'), parts)))
  return rows


def _damaged(rng, text: str, vocabulary: list[str], other: str) -> str:
  """The text itself, another one, or something between the two."""
  kind = rng.random()
  if kind < 0.4:
    return text
  if kind < 0.45:
    return other
  rate = 0.7 * rng.random()
  kept = []
  for word in text.split():
    fate = rng.random()
    if fate > 0.8 * rate:
      kept.append(word)
    elif fate > 0.35 * rate:
      kept.append(rng.choice(vocabulary))
  if rng.random() < 0.3 and len(kept) > 2:
    border = rng.randrange(1, len(kept))
    kept = kept[border:] + kept[:border]
  if rng.random() < 0.2:
    kept = kept[: max(1, int(len(kept) * rng.random()))]
  return ' '.join(kept) or other


def summaries(data: pathlib.Path, num_words: int) -> list[dict]:
  """Rows of scitldr and tldr; of a document its first words, to fit."""
  return [
    {
      'prompt': ' '.join(row['prompt'].split()[:num_words]) + '\n',
      'response': row['completion'].strip(),
      'remark': '',
    }
    for name in ('scitldr/train', 'tldr/sft')
    for row in read(data / f'{name}.jsonl.gz')
  ]


def write_jsonl(path: pathlib.Path, rows: list[dict]) -> None:
  """Writes rows, one a line."""
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  path.write_text(''.join(lines), encoding='utf-8')

# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finding checkpoints: folders, ids in the hub's cache, and what is refused."""

import json

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils
import pytest

from warm_jax import errors
from warm_jax.hf import files

REVISION = '0123456789abcdef0123456789abcdef01234567'


def fill(folder, *names, config=None):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config or {'a': 1}))
  for name in names:
    (folder / name).write_bytes(b'')
  return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty cache of the hub; the network is off in all tests."""
  folder = tmp_path / 'hub'
  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(folder))
  return folder


def cached(cache, repo, *names, ref='main'):
  """A repository as huggingface_hub leaves it in its cache."""
  base = cache / ('models--' + repo.replace('/', '--'))
  (base / 'refs').mkdir(parents=True, exist_ok=True)
  (base / 'refs' / ref).write_text(REVISION)
  return fill(base / 'snapshots' / REVISION, *names)


@pytest.mark.parametrize(
  'name', ['model.safetensors', 'model-00001-of-00002.safetensors']
)
def test_a_folder(tmp_path, name):
  folder = fill(tmp_path / 'owner' / 'name', name)
  assert files.resolve(folder) == folder
  assert files.resolve(str(folder)) == folder


def test_a_folder_comes_before_the_hub(tmp_path, cache, monkeypatch):
  cached(cache, 'owner/name', 'model.safetensors')
  fill(tmp_path / 'owner' / 'name', 'model.safetensors')
  monkeypatch.chdir(tmp_path)
  assert files.resolve('owner/name').resolve() == tmp_path / 'owner' / 'name'


@pytest.mark.parametrize('repo', ['owner/name-1.5', 'gpt2'])
def test_an_id_in_the_cache(cache, repo):
  folder = cached(cache, repo, 'model.safetensors')
  assert files.resolve(repo) == folder


def test_a_revision(cache):
  folder = cached(cache, 'o/n', 'model.safetensors', ref='step1000')
  assert files.resolve('o/n@step1000') == folder
  with pytest.raises(errors.UserError, match='no folder o/n'):
    files.resolve('o/n')


def test_an_id_that_is_nowhere_is_one_line(cache):
  with pytest.raises(errors.UserError, match='no folder owner/name') as e:
    files.resolve('owner/name')
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('source', ['/nowhere/a/b', './a', '../a/b', 'a/b/c'])
def test_a_path_that_is_nowhere(cache, source):
  with pytest.raises(errors.UserError, match=f'no folder {source}'):
    files.resolve(source)


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pt', 'README'])
def test_pickled_weights_are_refused(tmp_path, cache, name):
  fill(tmp_path / 'local', name)
  cached(cache, 'o/n', name)
  for source in (tmp_path / 'local', 'o/n'):
    with pytest.raises(errors.UserError, match='refused: write them anew'):
      files.resolve(source)


def test_an_adapter_is_named_as_such(tmp_path, cache):
  (tmp_path / 'adapter_config.json').write_text('{}')
  (tmp_path / 'adapter_model.safetensors').touch()
  with pytest.raises(errors.UserError, match='holds an adapter'):
    files.resolve(tmp_path)


def test_the_check_comes_before_the_weights(tmp_path, cache):
  def check(config):
    raise errors.UserError(f'not {config["a"]}')

  # Neither has weights, which would be the other complaint.
  cached(cache, 'o/n')
  fill(tmp_path / 'local')
  for source in (tmp_path / 'local', 'o/n'):
    with pytest.raises(errors.UserError, match='not 1'):
      files.resolve(source, check)


def test_only_usual_weights_and_small_files_are_fetched(monkeypatch, tmp_path):
  asked = []

  def snapshot(repo, **options):
    asked.append((repo, options['revision'], options['allow_patterns']))
    return fill(tmp_path / 'x', 'model.safetensors')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot)
  files.resolve('o/n@v2')
  repository = [
    'config.json',
    'model-00001-of-00002.safetensors',
    'model.safetensors.index.json',
    'model.fp16.safetensors',
    'consolidated.safetensors',
    'original/model.safetensors',
    'pytorch_model.bin',
    'modeling_evil.py',
    'tokenizer.model',
    'chat_template.jinja',
  ]
  (repo, revision, first), (_, _, second) = asked
  assert (repo, revision) == ('o/n', 'v2')

  def chosen(patterns):
    return list(
      huggingface_hub.utils.filter_repo_objects(
        repository, allow_patterns=patterns, ignore_patterns=['*/*']
      )
    )

  small = [repository[i] for i in (0, 2, 8, 9)]
  assert chosen(first) == small
  assert set(chosen(second)) == {*small, repository[1]}

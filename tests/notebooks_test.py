# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The notebooks of colab/: stored clean, and run from top to bottom."""

import base64
import pathlib
import re
import shutil
import struct

import chains
import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Notebook -> figures that it draws at least.
FIGURES = {
  '00_quickstart': 3,
  '01_your_preferences': 1,
  '02_merge_and_interpolate': 4,
  '03_best_of_n': 1,
  '04_policy': 2,
}
every_notebook = pytest.mark.parametrize('name', FIGURES)
# What other packages say on stderr where no widgets are installed.
HARMLESS = ('IProgress not found', 'import tqdm as notebook_tqdm', ' steps')


def read(name):
  # Any warning that the file is not of its version is an error here.
  return nbformat.read(ROOT / 'colab' / f'{name}.ipynb', as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


@every_notebook
def test_is_stored_without_outputs(name):
  assert {p.stem for p in (ROOT / 'colab').glob('*.ipynb')} == {*FIGURES}
  notebook = read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  for cell in code_cells(notebook):
    assert cell.outputs == [], cell.source
    assert cell.execution_count is None, cell.source
    assert 'execution' not in cell.metadata, cell.source
  assert notebook.metadata.kernelspec.name == 'python3'
  assert 'widgets' not in notebook.metadata
  # An image pasted into the text would be kept in the repository for ever.
  assert not any(cell.get('attachments') for cell in notebook.cells)


@every_notebook
def test_badge_installation_and_links(name):
  notebook = read(name)
  install = code_cells(notebook)[0].source
  # All of it stands behind the question whether the package is there.
  first, *lines = install.split('if importlib')[1:]
  assert first.startswith(".util.find_spec('warm_jax') is None:")
  shell = [x for x in first.splitlines() if x.lstrip().startswith(('!', '%'))]
  assert shell and all(line.startswith('  ') for line in shell)
  assert 'raise SystemExit' in ''.join(lines)
  repository = re.search(r"REPO = 'https://github.com/([^']+)'", install)
  target = f'github/{repository[1]}/blob/main/colab/{name}.ipynb'
  badge = notebook.cells[0].source
  assert 'https://colab.research.google.com/assets/colab-badge.svg' in badge
  assert f'(https://colab.research.google.com/{target})' in badge
  for cell in notebook.cells:
    if cell.cell_type == 'markdown':
      for target in re.findall(r'\]\((?!https://)([^)]+)\)', cell.source):
        assert (ROOT / 'colab' / target).is_file(), target


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where all notebooks run; the demo that they would begin with is finished."""
  folder = tmp_path_factory.mktemp('notebooks')
  shutil.copytree(chains.finished(tmp_path_factory), folder / 'runs' / 'nano')
  return folder


@pytest.mark.slow
@every_notebook
def test_runs_from_top_to_bottom(name, folder, tmp_path, monkeypatch):
  monkeypatch.setenv('WARM_JAX_NOTEBOOK', 'smoke')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path))  # no settings of the user's
  notebook = read(name)
  nbclient.NotebookClient(
    notebook,
    timeout=900,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
  ).execute()
  cells = code_cells(notebook)
  assert all(cell.execution_count for cell in cells)
  assert cells[0].outputs == []  # nothing to install here

  outputs = [output for cell in cells for output in cell.outputs]
  told = [output for output in outputs if output.output_type == 'stream']
  errors = ''.join(o.text for o in told if o.name == 'stderr').splitlines()
  assert told and not [
    line
    for line in errors
    if line.strip() and not any(text in line for text in HARMLESS)
  ]
  images = [
    base64.b64decode(output.data['image/png'])
    for output in outputs
    if 'image/png' in output.get('data', {})
  ]
  assert len(images) >= FIGURES[name]
  for image in images:
    width, height = struct.unpack('>II', image[16:24])
    assert width > 900 and height > 300 and len(image) > 20_000

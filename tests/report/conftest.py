# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pages without pictures, for tests of what else is on them."""

import base64

import pytest

from warm_jax.report import figures, style


@pytest.fixture
def no_figures(no_pixels, monkeypatch):
  """Nothing is drawn."""
  for name, function in list(vars(figures).items()):
    if hasattr(function, '__wrapped__'):
      monkeypatch.setattr(figures, name, lambda *args, columns, **kwargs: None)


@pytest.fixture
def no_pixels(monkeypatch):
  """Figures are made but not laid out, which costs a second each."""
  png = base64.b64decode(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ'
    '/pLvAAAAAElFTkSuQmCC'
  )

  def save(figure, path):
    getattr(path, 'write', getattr(path, 'write_bytes', None))(png)

  monkeypatch.setattr(style, 'save', save)

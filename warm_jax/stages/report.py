# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `report`: the page of figures that tells what the run found."""

from warm_jax.report import page


def run(run) -> dict:
  """Writes report/index.html, its figures as PNG and their numbers as CSV."""
  folder = run.folder('report')
  written = page.write(run.workdir, folder, run.command)
  return written | {'summary': str(folder / written['page'])}

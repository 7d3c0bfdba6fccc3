# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page of a run and the cards of its models: figures, tables, templates."""


def run(run) -> dict:
  """Stage `report`: writes report/index.html and its figures."""
  from warm_jax.report import page

  folder = run.folder('report')
  written = page.write(run.workdir, folder, run.command)
  return written | {'summary': str(folder / written['page'])}

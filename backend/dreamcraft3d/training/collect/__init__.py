"""Collect textured objects that Debian packages distribute under free licences, as training data of the bundled prior.

`recipe.collect` downloads packages (`debian`), lists the objects in each (`packages`), reads them (`formats`), filters
and de-duplicates them (`filters`) and writes one zip file (`pack`). What the shipped weights were trained on is named,
object by object, in `selection.json.gz`; `attribution` prints it as docs/training-data.md.
"""

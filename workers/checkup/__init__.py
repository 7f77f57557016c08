"""``workers.check``: computes a few batches in the program and in workers, and tells what would go wrong in a training.

``runs`` computes the batches, with the engine itself. ``probe`` runs the same jobs again and records what their
functions return; ``blame`` compares two such records. ``data`` knows the arrays that the source holds, and
``surroundings`` the settings of a process. ``checking`` makes ``findings`` of all that, ``measures`` those that are
figures. ``command`` is ``python -m workers check``.
"""

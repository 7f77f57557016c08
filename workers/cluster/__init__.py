"""Workers on a Ray cluster: ``executor="ray"``. What ``executor_options`` may hold:

- ``"address"``: of the cluster, as ``ray.init`` takes it; by default the one that the program is connected to, or that
  ``RAY_ADDRESS`` names, or a new one on this machine.
- ``"resources"``: what each worker is to have, by default ``{"CPU": 1}``; also ``"GPU"``, ``"memory"`` (bytes) and what
  nodes were given by name.
- ``"placement"``: ``"spread"`` over the nodes, ``"pack"``, a placement group, or a scheduling strategy of Ray's.
- ``"writable"``: ``True``: the loop gets copies. The arrays in Ray's object store, which it gets else, are read-only.
- ``"node_timeout"``: a node that has not answered for so many seconds, 10 by default, is lost, and what its workers had
  to do is done by others. ``math.inf``: until Ray itself gives the node up, which takes about a minute.
"""

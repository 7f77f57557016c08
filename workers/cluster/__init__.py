"""Workers on a Ray cluster: ``executor="ray"``. The keys of the dict ``executor_options``, all optional:

- ``"address"``: the address of the cluster, as for ``ray.init``. Default: the cluster that the program is connected to,
  or the one named by ``RAY_ADDRESS``, or a new one on this machine.
- ``"resources"``: the resources of each worker, by default ``{"CPU": 1}``: also ``"GPU"``, ``"memory"`` (bytes) and
  custom resources of the nodes.
- ``"placement"``: ``"spread"`` over the nodes (the default), ``"pack"``, a placement group, or one of Ray's scheduling
  strategies.
- ``"writable"``: if ``True``, the loop gets copies. By default it gets the arrays in Ray's object store, which are
  read-only.
- ``"node_timeout"``: a node that has not answered for this many seconds, 10 by default, is lost, and other workers take
  over its jobs. ``math.inf``: only when Ray itself gives the node up, after about a minute.
"""

"""Runs the workers on a Ray cluster, for the option ``executor="ray"``.

The keys of the dict ``executor_options``, all optional, are:

- ``"address"``: the address of the cluster, as for ``ray.init``. Default: the cluster that the program is connected to,
  or the one named by ``RAY_ADDRESS``, or a new one on this machine.
- ``"resources"``: the resources of each worker, by default ``{"CPU": 1}``; others are ``"GPU"``, ``"memory"`` (bytes)
  and custom resources of the nodes.
- ``"placement"``: ``"spread"`` over the nodes (the default), ``"pack"``, a placement group, or one of Ray's scheduling
  strategies.
- ``"writable"``: if ``True``, the loop gets copies, which it may write to. By default, it gets the arrays in Ray's
  object store, which are read-only.
- ``"node_timeout"``: the seconds, by default 10, after which a node that does not answer counts as lost, and other
  workers take over its jobs. ``math.inf`` leaves this to Ray, which gives a node up after about a minute.
"""

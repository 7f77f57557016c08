"""What travels between the consumer, its workers and the server that forks them.

Every message is a tuple whose first item is one of the words below; a frame on a socket is one message. Rows of
jobs and of results are plain tuples, for there may be tens of thousands a second.

::

    consumer -> worker                                                       descriptors
      LOAD     (LOAD, parcel)                     a new replica              its memory
      JOBS     (JOBS, rows, free)                                            one for each parcel in rows
                                                  row: (serial, epoch, index, attempt, payload)
                                                  payload: None, a pickle, or a parcel
                                                  free: numbers of slots that the consumer has let go
      STOP     (STOP,)                            finish and exit

    worker -> consumer
      READY    (READY, None | failure)            the replica is loaded, or could not be
      RESULTS  (RESULTS, slots, gone, layouts, rows)                         one for each new slot
                                                  slots: [(number, nbytes)] made since the last message
                                                  gone: numbers of slots that were given up
                                                  layouts: [(number, pickled Layout)] new ones
                                                  row: (serial, DONE, layout, slots, offset, nbytes, rest, ns)
                                                    or (serial, FAILED, failure, ns)

    consumer -> server
      FORK     (FORK, worker, number)             start a worker             its socket, its board
      SIGNAL   (SIGNAL, worker, number)           send it a signal
      (end of file)                               kill all workers, exit

    server -> consumer
      FORKED   (FORKED, worker, pid)
      EXITED   (EXITED, worker, status, max_rss)  status as waitpid gives it; max_rss in bytes

``serial`` numbers the sendings of jobs: a job that is sent again, to whomever, has a new one.
"""

from __future__ import annotations

LOAD, JOBS, STOP, READY, RESULTS, FORK, SIGNAL, FORKED, EXITED = range(9)
DONE, FAILED = range(2)

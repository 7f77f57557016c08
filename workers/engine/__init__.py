"""Jobs in, batches out; knows no Sequence."""

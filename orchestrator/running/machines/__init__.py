"""The machines of a cluster: whether they are alike, see the store, are about to leave, and which take no run."""

"""What every distiller, network and data set must keep: checks of ours, in tests, and of users', in `plugin check`."""

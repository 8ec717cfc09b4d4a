"""Sources: kinds of data of an account group, each polled at its own interval."""

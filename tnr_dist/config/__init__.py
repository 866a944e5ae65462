"""The configuration tree: what can be set, how a file of it is read, and what each setting means."""

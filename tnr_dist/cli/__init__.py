"""The command `tnr`: one module for training and reports, one for data, one for `tnr doctor`."""

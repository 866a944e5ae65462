"""`python -m tnr_dist.cli`."""

from tnr_dist.cli.app import main

main()

"""`python -m tnr_dist.cli`."""

from tnr_dist.cli import main

main()

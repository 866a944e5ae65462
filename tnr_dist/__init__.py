"""tnr_dist: distributed training of small, fast news recommenders (Tiny-NewsRec)."""

__version__ = "0.2.0"

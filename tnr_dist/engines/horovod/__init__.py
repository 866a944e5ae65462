"""Horovod behind the engines' seam."""

"""One function per equation of the paper."""

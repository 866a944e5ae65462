"""`tnr data synth`: data sets in MIND's format whose true click probabilities are known."""

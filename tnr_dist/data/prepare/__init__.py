"""From raw files to a prepared data set: reading, checking, tokenising, writing."""

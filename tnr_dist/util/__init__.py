"""What has no room of its own: errors, files and their digests, locks, progress, threads, streams of random numbers."""

"""What a launcher or scheduler says to this process: ranks, restarts, and the request to stop; and ranks on one machine."""

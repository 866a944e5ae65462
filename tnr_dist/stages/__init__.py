"""What each stage trains, declared; the loop is train/loop.py."""

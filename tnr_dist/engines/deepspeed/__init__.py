"""DeepSpeed behind the engines' seam."""

"""One batch, any engine: from rewards to advantages, with a memory from batch to batch."""

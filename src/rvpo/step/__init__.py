"""The step from rewards to advantages for one batch of any engine, with a state from batch to batch."""

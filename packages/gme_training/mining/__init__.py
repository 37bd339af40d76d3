"""Hard negatives: what the model of stage 1 takes for the answer and is not, and the report on them."""

"""The examples of a stage as every rank reads them: the index, the batches drawn from it, and their augmentation."""

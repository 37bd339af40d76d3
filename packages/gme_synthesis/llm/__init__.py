"""Language models behind one protocol: prompts are versioned files, and each answer is kept by its request's digest."""

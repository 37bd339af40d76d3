"""Language models behind one protocol, asked by versioned prompts, every answer kept by the digest of its request."""

"""The language model: recipe, tokenizer, trainer, decoding, backends, manifest."""

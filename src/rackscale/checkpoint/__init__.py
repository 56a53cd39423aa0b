"""Hugging Face folders: files to tensors and specs."""

"""The model `research` of ser-batch, in the folder `research`; ser-batch finds it through the entry point."""
